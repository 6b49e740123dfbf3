-- make sim-exhaustive: lua5.4 spec/sim/exhaustive.lua [SECONDS]
-- Every interleaving of small worlds; SECONDS bounds each of them.
package.path = "./lua/?.lua;./?.lua;" .. package.path
local explore = require "rouse.sim.explore"
local worlds = require "spec.sim.worlds"

local seconds = tonumber(arg[1])
local states, violations = 0, 0
for _, small in ipairs(worlds) do
  local began = os.clock()
  local result = explore.run(small, { seconds = seconds })
  states = states + result.states
  print(("%s: %d states, %d steps, %s, %.0f s"):format(worlds.describe(small), result.states, result.steps,
    result.violation and "broken" or result.complete and "complete" or "not complete", os.clock() - began))
  if result.violation then
    violations = violations + 1
    print(table.concat(result.trace, "\n"))
    print(("%s: %s"):format(result.violation.invariant, result.violation.message))
  end
end
print(("states: %d"):format(states))
print(("violations: %d"):format(violations))
os.exit(violations == 0 and 0 or 1)
