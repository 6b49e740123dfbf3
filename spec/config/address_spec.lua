require "spec.helper"
local address = require "rouse.config.address"

describe("address", function()
  it("reads ports and hosts", function()
    for text, expected in pairs {
      ["80"] = { "127.0.0.1", 80 }, [":81"] = { "127.0.0.1", 81 }, ["localhost:1"] = { "localhost", 1 },
      ["10.1.2.3:65535"] = { "10.1.2.3", 65535 }, ["[::1]:0"] = { "::1", 0 }, ["a-b.c:7"] = { "a-b.c", 7 },
    } do
      local found = assert(address.parse(text))
      assert.same(expected, { found.host, found.port }, text)
    end
  end)

  it("refuses the rest, and says what it expected", function()
    for _, text in ipairs { "", "host", "host:", "65536", "1:2:3", "::1:80", "http://x:1", "host:-1", "123456" } do
      local found, message = address.parse(text)
      assert.is_nil(found, text)
      assert.is_truthy(message:find "expected PORT or HOST:PORT")
    end
  end)

  it("keeps an endpoint on this machine", function()
    assert.is_false(address.loopback "off")
    assert.same({ host = "127.0.0.1", port = 5 }, address.loopback "localhost:5")
    assert.same({ host = "127.0.0.2", port = 5 }, address.loopback "127.0.0.2:5")
    assert.same({ host = "::1", port = 5 }, address.loopback "[::1]:5")
    for _, text in ipairs { "0.0.0.0:5", "10.0.0.1:5", "[::]:5", "example.org:5", "on" } do
      local found, message = address.loopback(text)
      assert.is_nil(found, text)
      assert.is_truthy(message:find "this machine", text)
    end
  end)

  it("writes what it read", function()
    assert.equal("[::1]:5", address.show { host = "::1", port = 5 })
    assert.equal("127.0.0.1:7873", address.show(address.ADMIN))
  end)
end)
