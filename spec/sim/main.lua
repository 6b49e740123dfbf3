-- make sim: lua5.4 spec/sim/main.lua FIRST COUNT
-- Plain Lua: the simulation needs nothing of the C library.
package.path = "./lua/?.lua;" .. package.path
local campaign = require "rouse.sim.campaign"

local first, count, most = tonumber(arg[1]) or 1, tonumber(arg[2]) or 1000, tonumber(arg[3]) or 3
local began = os.clock()
local result = campaign.run(first, count, { report = function(text) print(text .. "\n") end, most = most })
print(("seeds: %d (%d to %d)"):format(result.seeds, first, first + result.seeds - 1))
print(("steps: %d"):format(result.steps))
print(("submits: %d, runs: %d, of well consumers without a record: %d"):format(result.submits, result.runs, result.empty))
print(("schedules per second: %.0f"):format(result.seeds / math.max(0.001, os.clock() - began)))
print(("violations: %d"):format(result.violations))
os.exit(result.violations == 0 and 0 or 1)
