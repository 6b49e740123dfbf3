require "spec.helper"
local sim = require "rouse.sim"
local verdict = require "rouse.verdict"

local ROUTES = { payments = { partitions = 4, jobs = {
  { name = "pay", group = "g", assign = "index", idle_timeout = 20 } } } }

describe("rouse.sim", function()
  it("runs the packaged rule: one run for what waits, none for nothing", function()
    local s = sim.new { routes = ROUTES }
    s:advance(60)
    assert.same({}, s:submits())
    s:produce("payments", 1, 3)
    s:produce("payments", 2)
    s:advance(60)
    local indices = {}
    for _, submit in ipairs(s:submits()) do
      for _, index in ipairs(submit.indices) do indices[#indices + 1] = index end
    end
    assert.same({ 1, 2 }, indices)
    assert.equal(3, s:committed("g", "payments", 1))
    assert.equal("completed", s:runs()[1].status)
    local count = #s:submits()
    s:advance(3600)
    assert.equal(count, #s:submits())
  end)

  it("runs a rule of the user's", function()
    local script = { observe = { routes = ROUTES }, decide = function(job, ctx)
      if ctx.now % 600 < 300 then
        return verdict.wait { seconds = 300 - ctx.now % 600, reason = "not yet" }
      end
      return verdict.wake { env = { ATTEMPT = tostring(job.attempt) } }
    end }
    local s = sim.new { script = script }
    s:advance(300) -- the clock begins at 1,700,000,000, 200 seconds into its ten minutes
    s:produce("payments", 0)
    s:advance(3000)
    assert.equal("1", s:submits()[1].env.ATTEMPT)
    assert.equal(1, s:committed("g", "payments", 0))
  end)

  it("is the same for the same seed, and takes any partition", function()
    local function day(seed)
      local s = sim.new { routes = ROUTES, seed = seed }
      for _ = 1, 20 do
        s:produce("payments")
        s:advance(50)
      end
      return s:trace()
    end
    assert.equal(day(7), day(7))
    assert.are_not.equal(day(7), day(8))
  end)

  it("has the faults of the steps, and names the nearest for a wrong one", function()
    local s = sim.new { routes = ROUTES }
    s:advance(1)
    s:step { kind = "fault", op = "submit", how = "lost" }
    s:produce("payments", 3)
    s:advance(60)
    assert.equal(1, s:committed("g", "payments", 3))
    assert.equal(1, #s:runs())
    assert.has_error(function() s:step { kind = "fualt" } end, "sim: unknown step 'fualt', did you mean 'fault'?")
    assert.has_error(function() s:produce("payment") end, "sim: there is no topic 'payment'")
    assert.has_error(function() sim.new { route = ROUTES } end, "sim.new: unknown key 'route', did you mean 'routes'?")
  end)

  it("raises when an invariant breaks, with what happened", function()
    local doors = require "rouse.wake.doors"
    local settle = doors.settle
    local _ <close> = setmetatable({}, { __close = function() doors.settle = settle end })
    doors.settle = function() end
    local s = sim.new { routes = ROUTES }
    s:produce("payments", 0)
    local ok, message = pcall(s.advance, s, 100)
    assert.is_false(ok)
    assert.matches("^sim: W1 at .*\n.*produce partition=0", message)
  end)
end)
