--- How many runs bursts cost, beside the fewest that could serve them, and how fast schedules are simulated. In virtual time:
--- this one needs no broker.
local campaign = require "rouse.sim.campaign"
local figures = require "bench.figures"
local sim = require "rouse.sim"

local say = figures.say

local bench = {}

local PARTITIONS <const>, RECORDS <const>, EVERY <const> = 4, 1000, 90
local SPREAD <const>, CHUNK <const> = 1, 20 -- seconds that a producer needs for a burst; records of one request

-- A producer's burst: request after request over a second, to one partition after the other as sticky partitioners do.
local function burst(s)
  local requests = RECORDS // CHUNK
  for i = 1, requests do
    s:produce("payments", i % PARTITIONS, CHUNK)
    s:advance(SPREAD / requests)
  end
end

-- What is created in the second of one burst serves it, so that one run a burst is ideal: a consumer has left before the next.
local function measure(assign, observers, seed)
  local count = figures.number("BENCH_BURSTS", 40)
  local s = sim.new { seed = seed, observers = observers, routes = { payments = { partitions = PARTITIONS,
    jobs = { { name = "pay", group = "g", assign = assign, idle_timeout = 60 } } } } }
  s:advance(5)
  for _ = 1, count do
    burst(s)
    s:advance(EVERY - SPREAD)
  end
  s:advance(120)
  local accepted, handled = 0, 0
  for _, submit in ipairs(s:submits()) do
    accepted = accepted + (submit.error and 0 or 1)
  end
  for partition = 0, PARTITIONS - 1 do
    handled = handled + (s:committed("g", "payments", partition) or 0)
  end
  assert(handled == count * RECORDS, "records are left")
  return accepted, count
end

function bench.bursts()
  say("bursts of %d records every %d s over %d partitions, in virtual time", RECORDS, EVERY, PARTITIONS)
  for _, case in ipairs { { "index", 1 }, { "group", 1 }, { "index", 2 }, { "group", 2 } } do
    local submits, ideal, seeds = 0, 0, figures.number("BENCH_SEEDS", 5)
    for seed = 1, seeds do
      local accepted, count = measure(case[1], case[2], seed)
      submits, ideal = submits + accepted, ideal + count
    end
    say("  %s assignment, %d observer%s: submits accepted %d, ideal %d, ratio %.3f", case[1], case[2],
      case[2] > 1 and "s" or " ", submits, ideal, submits / ideal)
  end
  local seeds, began = figures.number("BENCH_SCHEDULES", 500), os.clock()
  local result = campaign.run(1, seeds)
  local seconds = os.clock() - began
  say("  simulated schedules: %d in %.1f s, %.0f per second, %.0f steps per second, violations: %d", result.seeds,
    seconds, result.seeds / seconds, result.steps / seconds, result.violations)
end

return bench
