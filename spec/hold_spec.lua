require "spec.helper"
local hold = require "rouse.hold"
local log = require "rouse.log"

describe("hold.fault", function()
  local said, real

  before_each(function()
    said, real = {}, log.error
    log.error = function(message) said[#said + 1] = message end
  end)

  after_each(function() log.error = real end)

  it("ends at once where nobody starts it again", function()
    assert.equal(78, hold.fault { code = 78, message = { "a", "b" } })
    assert.same({ "a", "b" }, said)
    assert.equal(77, hold.fault { code = 77, message = "c", job_mode = "task" })
    assert.same({ "a", "b", "c" }, said)
  end)

  it("keeps a daemon for ten minutes and says each minute why", function()
    local waited = 0
    local signals = { wait = function(_, seconds)
      waited = waited + seconds
      return nil, "timed out", "TIMEDOUT"
    end }
    assert.equal(78, hold.fault { code = 78, message = "a", job_mode = "daemon", signals = signals })
    assert.equal(600, waited)
    assert.equal(10, #said)
  end)

  it("ends when it is told to", function()
    for name, code in pairs { TERM = 143, INT = 130 } do
      local signals = { wait = function() return name end }
      assert.equal(code, hold.fault { code = 78, message = "a", job_mode = "daemon", signals = signals })
    end
    assert.equal(2, #said)
  end)
end)
