require "spec.helper"

local path = "scripts/consumer.lua"

-- The script as it is, with a log that remembers.
local function load(lines)
  local real = require "rouse.log"
  package.loaded["rouse.log"] = {
    place = real.place,
    info = function(message, fields) lines[#lines + 1] = { message = message, fields = fields } end,
  }
  local script = assert(loadfile(path, "t"))()
  package.loaded["rouse.log"] = real
  return script
end

describe("scripts/consumer.lua", function()
  it("finishes each record and says where it is, not what is in it", function()
    local lines = {}
    local script = load(lines)
    local record = { topic = "payments", partition = 2, offset = 41, key = "k", value = "secret",
      headers = {} }
    assert.equal("done", script.handle(record, { now = 0, attempt = 1, group = "g" }))
    assert.equal(1, #lines)
    assert.same({ topic = "payments", partition = 2, offset = 41 }, lines[1].fields)
    assert.is_nil(lines[1].message:find("secret", 1, true))
  end)

  it("leaves everything to the environment, and headers unread", function()
    assert.same({ headers = false }, load({}).consume)
  end)
end)
