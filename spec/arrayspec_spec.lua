require "spec.helper"
local arrayspec = require "rouse.arrayspec"

describe("arrayspec.parse", function()
  it("reads single indices and ranges", function()
    assert.same({ 0, 3, 4, 5 }, arrayspec.parse("0,3-5"))
    assert.same({ 5, 12, 13, 14, 23, 27 }, arrayspec.parse("5,12-14,23,27"))
    assert.same({ 9999999 }, arrayspec.parse("9999999"))
  end)

  it("sorts and keeps each index once", function()
    assert.same({ 1, 2, 3, 7 }, arrayspec.parse("7,2-3,1-3"))
  end)

  it("reads the empty text as no indices", function()
    assert.same({}, arrayspec.parse(""))
  end)

  for text, why in pairs {
    ["0--1"] = "not an index", ["1,,2"] = "not an index", ["1,"] = "not an index",
    [" 1"] = "not an index", ["1, 2"] = "not an index", ["-1"] = "not an index",
    ["01"] = "not an index", ["10000000"] = "not an index", ["a"] = "not an index",
    ["1-2-3"] = "not an index", ["5-3"] = "runs backwards", ["0-9999999"] = "more than 1000",
    ["0-999,2000"] = "more than 1000",
  } do
    it(("refuses '%s'"):format(text), function()
      local list, message, code = arrayspec.parse(text)
      assert.is_nil(list)
      assert.is_truthy(message:find(why, 1, true), message)
      assert.equal("ARRAYSPEC", code)
    end)
  end

  it("raises on what is no text", function()
    assert.has_error(function() arrayspec.parse(nil) end)
  end)
end)

describe("arrayspec.format", function()
  it("writes neighbours as ranges", function()
    assert.equal("0,3-5", arrayspec.format { 0, 3, 4, 5 })
    assert.equal("0-1", arrayspec.format { 1, 0, 1 })
    assert.equal("7", arrayspec.format { 7.0 })
    assert.equal("", arrayspec.format {})
  end)

  it("is undone by parse", function()
    for seed = 1, 50 do
      local list = {}
      for i = 0, 99 do
        if (i * 7919 + seed * 104729) % 13 < seed % 13 and #list < 40 then
          list[#list + 1] = i
        end
      end
      assert.same(list, arrayspec.parse(arrayspec.format(list)))
    end
  end)

  it("says when the service would refuse the result", function()
    local scattered, many = {}, {}
    for i = 1, 100 do
      scattered[i] = i * 2
    end
    for i = 1, 1001 do
      many[i] = i
    end
    local text, message, code = arrayspec.format(scattered)
    assert.same({ nil, "ARRAYSPEC" }, { text, code })
    assert.matches("at most 253", message)
    assert.matches("at most 1000", (select(2, arrayspec.format(many))))
  end)

  it("raises on what is no index", function()
    for _, wrong in ipairs { -1, 1.5, 10000000, "x" } do
      local ok, message = pcall(function() local _ = arrayspec.format { wrong } end)
      assert.is_false(ok)
      assert.matches("^spec/arrayspec_spec%.lua:%d+: arrayspec%.format: .* is not an index", message)
    end
  end)
end)
