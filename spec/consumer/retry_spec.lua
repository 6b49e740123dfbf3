require "spec.helper"
local retry = require "rouse.consumer.retry"

describe("consumer.retry", function()
  local function policy(tries, random)
    return { first = 1, max = 60, tries = tries, random = function() return random end }
  end

  it("doubles from the first delay to the cap", function()
    local seen = {}
    for attempt = 1, 9 do seen[attempt] = retry.delay(policy(10, 1), attempt) end
    assert.same({ 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60, 60, 60 }, seen)
  end)

  it("counts the first call as a try", function()
    assert.is_nil(retry.delay(policy(10, 0), 10))
    assert.is_nil(retry.delay(policy(1, 0), 1))
  end)

  it("takes away up to half as jitter", function()
    assert.equal(2, retry.delay(policy(10, 0), 3))
    assert.equal(3, retry.delay(policy(10, 0.5), 3))
  end)
end)
