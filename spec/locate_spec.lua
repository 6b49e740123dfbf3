require "spec.helper"
local locate = require "rouse.locate"

describe("locate", function()
  it("finds keys where they are written, not in comments or strings", function()
    local source = "-- key = 1\n--[==[ key = 2\n]] ]==]\nlocal s = 'key = 3' .. [[\nkey = 4]]\n"
      .. "if key == 5 then end\nt = {\nkey = 6}"
    assert.equal(8, locate(source, { "key" }))
    assert.equal(2, locate("x = {\n['key'] = 1}", { "key" }))
    assert.equal(3, locate("key = 1\na = {\nkey = 2}", { "a", "key" }))
    assert.equal(1, locate("a = {}", { "a", "nothing" }))
    assert.is_nil(locate("a = {}", { "nothing" }))
  end)
end)
