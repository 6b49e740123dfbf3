require "spec.helper"
local url = require "rouse.url"

describe("url", function()
  it("encodes everything but unreserved characters, byte by byte", function()
    assert.equal("aZ09-._~", url.encode("aZ09-._~"))
    assert.equal("a%20b%2Fc%25%00%C3%A9", url.encode("a b/c%\0é"))
  end)

  it("decodes what is encoded and leaves the rest", function()
    local all = {}
    for i = 0, 255 do all[#all + 1] = string.char(i) end
    local text = table.concat(all)
    assert.equal(text, url.decode(url.encode(text)))
    assert.equal("100%", url.decode("100%"))
    assert.equal("%zz", url.decode("%zz"))
  end)

  it("builds paths of encoded segments", function()
    assert.equal("/projects/a%2Fb/job_runs/3", url.path("projects", "a/b", "job_runs", 3))
  end)

  it("builds queries sorted by name, an array gives one pair per item", function()
    assert.equal("a=1&b=x%20y&b=2&c=true", url.query { c = true, b = { "x y", 2 }, a = 1 })
    assert.equal("", url.query {})
  end)

  it("reads queries: plus is a space, a name without a value is empty, the last value wins", function()
    assert.same({ a = "1 2", ["b c"] = "=", d = "", e = "2" }, url.parse_query("a=1+2&b%20c==&d&&e=1&e=2"))
    assert.same({}, url.parse_query(""))
  end)
end)
