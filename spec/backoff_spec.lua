require "spec.helper"
local backoff = require "rouse.backoff"

local function at(value)
  return function() return value end
end

describe("backoff.delay", function()
  it("doubles from first to max", function()
    local seen = {}
    for attempt = 1, 6 do
      seen[attempt] = backoff.delay(attempt, { first = 1, max = 10, random = at(1) })
    end
    assert.same({ 1, 2, 4, 8, 10, 10 }, seen)
  end)

  it("lies between half the delay and all of it", function()
    assert.equal(4, backoff.delay(4, { first = 1, max = 60, random = at(0) }))
    assert.equal(6, backoff.delay(4, { first = 1, max = 60, random = at(0.5) }))
    for _ = 1, 100 do
      local delay = backoff.delay(3)
      assert.is_true(delay >= 2 and delay < 4)
    end
  end)

  it("stays at max however often it was tried", function()
    assert.equal(60, backoff.delay(100000, { random = at(1) }))
    assert.equal(0, backoff.delay(100000, { first = 0, random = at(1) }))
  end)

  it("counts from one", function()
    assert.has_error(function() backoff.delay(0) end, "backoff.delay: attempts count from 1")
  end)
end)
