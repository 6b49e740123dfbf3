require "spec.helper"
local sources = require "rouse.observer.sources"

describe("sources", function()
  local files, read

  before_each(function()
    files = { a = "1", b = "2" }
    read = sources.new(function(path)
      if files[path] then return files[path] end
      return nil, path .. ": No such file"
    end)
  end)

  it("remember what was read, and see that it changed", function()
    assert.equal("1", read.reader "a")
    assert.is_nil(read:changed())
    files.b = "never read"
    assert.is_nil(read:changed())
    files.a = "3"
    assert.equal("a", read:changed())
    files.a = "1"
    assert.is_nil(read:changed())
    files.a = nil
    assert.equal("a", read:changed())
  end)

  it("see a file that appears", function()
    local text, message = read.reader "c"
    assert.is_nil(text)
    assert.equal("c: No such file", message)
    assert.is_nil(read:changed())
    files.c = ""
    assert.equal("c", read:changed())
  end)

  it("name what is there", function()
    read.reader "b"
    read.reader "c"
    read.reader "a"
    assert.same({ "a", "b" }, read:paths())
  end)
end)
