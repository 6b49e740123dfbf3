-- make sim-exhaustive: lua5.4 spec/sim/exhaustive.lua [SECONDS]
-- Every interleaving of small worlds, a process each, as many side by side as there are processors. SECONDS bounds each.
package.path = "./lua/?.lua;./?.lua;" .. package.path
local explore = require "rouse.sim.explore"
local worlds = require "spec.sim.worlds"

local seconds, number = tonumber(arg[1]), tonumber(arg[2])

-- One world, told in one piece.
if number then
  collectgarbage("incremental", 400, 400) -- states are copies of copies: what lives, lives long
  local small, began = worlds[number], os.clock()
  local result = explore.run(small, { seconds = seconds > 0 and seconds or nil })
  local outcome = result.violation and "violated" or result.complete and "complete" or "incomplete"
  local lines = { ("%s: %d states, %d steps, %s, %.0f s"):format(worlds.describe(small), result.states, result.steps,
    outcome, os.clock() - began) }
  if result.violation then
    lines[#lines + 1] = table.concat(result.trace, "\n")
    lines[#lines + 1] = ("%s: %s"):format(result.violation.invariant, result.violation.message)
  end
  io.write(table.concat(lines, "\n"), "\n")
  os.exit(true)
end

local states, violations, incomplete, told = 0, 0, 0, 0
local all <close> = assert(io.popen(("seq %d | xargs -P $(nproc) -n 1 %s spec/sim/exhaustive.lua %d"):format(#worlds,
  arg[-1] or "lua5.4", seconds or 0)))
for line in all:lines() do
  print(line)
  io.stdout:flush()
  local count, outcome = line:match("^%d+ partition.*: (%d+) states, %d+ steps, (%a+), %d+ s$")
  if count then
    told, states = told + 1, states + tonumber(count)
    violations = violations + (outcome == "violated" and 1 or 0)
    incomplete = incomplete + (outcome == "incomplete" and 1 or 0)
  end
end
print(("states: %d, worlds: %d, incomplete: %d"):format(states, told, incomplete + #worlds - told))
print(("violations: %d"):format(violations))
os.exit(violations == 0 and told == #worlds and (seconds ~= nil or incomplete == 0))
