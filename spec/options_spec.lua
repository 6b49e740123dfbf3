require "spec.helper"
local options = require "rouse.options"

local SPEC = {
  { name = "name", type = "string", required = true },
  { name = "size", type = "integer", min = 1, max = 9, default = 3 },
  { name = "pause", type = "number", min = 0 },
  { name = "mode", type = "string", choices = { "fast", "slow" } },
  { name = "extra", type = "string|table" },
  { name = "even", check = function(v)
    if v % 2 == 0 then
      return v // 2
    end
    return nil, "an even number"
  end },
}

local function message_of(values)
  return select(2, pcall(options.check, values, SPEC, "box"))
end

describe("options.check", function()
  it("fills in defaults and leaves the given table alone", function()
    local given = { name = "a" }
    assert.same({ name = "a", size = 3 }, options.check(given, SPEC, "box"))
    assert.same({ name = "a" }, given)
  end)

  it("takes whole floats as whole numbers", function()
    local size = options.check({ name = "a", size = 8 / 2 }, SPEC, "box").size
    assert.equal("integer", math.type(size))
    assert.equal(4, size)
  end)

  it("uses what a check returns", function()
    assert.equal(3, options.check({ name = "a", even = 6 }, SPEC, "box").even)
    assert.matches("box: even is 7, expected an even number", message_of { name = "a", even = 7 })
  end)

  for what, case in pairs {
    ["a missing key"] = { {}, "box: name is missing, expected a string" },
    ["an empty string"] = { { name = "" }, "box: name is '', expected something that is not empty" },
    ["a wrong type"] = { { name = {} }, "box: name is a table, expected a string" },
    ["a fraction"] = { { name = "a", size = 1.5 },
      "box: size is 1.5, expected a whole number from 1 to 9" },
    ["a number out of range"] = { { name = "a", size = 10 },
      "box: size is 10, expected a whole number from 1 to 9" },
    ["a negative number"] = { { name = "a", pause = -1 },
      "box: pause is -1, expected a number of 0 or more" },
    ["a number that is none"] = { { name = "a", pause = 0 / 0 }, "expected a number of 0 or more" },
    ["infinity"] = { { name = "a", pause = math.huge }, "expected a number of 0 or more" },
    ["a wrong choice"] = { { name = "a", mode = "quick" },
      "box: mode is 'quick', expected fast or slow" },
    ["a type of several"] = { { name = "a", extra = 1 },
      "box: extra is 1, expected a string or a table" },
    ["an unknown key"] = { { name = "a", sise = 1 }, "box: unknown key 'sise', did you mean 'size'?" },
    ["a positional value"] = { { "a", name = "a" }, "box: unknown key 1" },
    ["something that is no table"] = { 5, "box is 5, expected a table" },
  } do
    it("refuses " .. what, function()
      local _, message = pcall(options.check, case[1], SPEC, "box")
      assert.is_string(message)
      assert.is_truthy(message:find(case[2], 1, true), message)
    end)
  end

  it("always names the same one of several unknown keys", function()
    for _ = 1, 5 do
      assert.matches("unknown key 'aa'", message_of { name = "a", cc = 1, aa = 1, bb = 1 })
    end
  end)

  it("raises at the line of the caller's caller", function()
    local function library(values)
      local checked = options.check(values, SPEC, "box")
      return checked
    end
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, message = pcall(function() local _ = library { nam = "a" } end)
    assert.is_false(ok)
    assert.matches("options_spec%.lua:" .. line .. ": box: unknown key 'nam', did you", message)
  end)

  it("shows long and odd values briefly", function()
    assert.matches("is '" .. ("x"):rep(40) .. "%.%.%.'", message_of { name = "a", mode = ("x"):rep(99) })
    assert.equal("'a?b'", options.show("a\nb"))
  end)
end)

describe("options.nearest", function()
  local names = { "dedup_window", "max_instances", "idle_timeout", "group", "name", "key" }
  for written, meant in pairs {
    dedup_windw = "dedup_window", dedupWindow = "dedup_window", ["dedup-window"] = "dedup_window",
    gruop = "group", Group = "group", nmae = "name", instances = "max_instances",
    idle = "idle_timeout", idle_exit = "idle_timeout", keys = "key", naem = "name",
  } do
    it(("takes %s for %s"):format(written, meant), function()
      assert.equal(meant, options.nearest(written, names))
    end)
  end

  it("does not guess what is far off", function()
    assert.is_nil(options.nearest("banana", names))
    assert.is_nil(options.nearest("", names))
    assert.is_nil(options.nearest(7, names))
    assert.is_nil(options.nearest("xy", names))
  end)

  it("does not choose among several that contain what was written", function()
    assert.is_nil(options.nearest("timeout", { "idle_timeout", "http_timeout" }))
  end)
end)
