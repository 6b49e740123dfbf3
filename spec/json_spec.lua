require "spec.helper"
local json = require "rouse.json"

-- Decodes and encodes again, or shows the error.
local function round(text)
  local value, message, code = json.decode(text)
  if value == nil then
    return code .. ": " .. message
  end
  return json.encode(value, { sorted = true })
end

local function refusal(value)
  local ok, message = pcall(json.encode, value)
  assert.is_false(ok)
  return message
end

describe("json", function()
  it("keeps integers of 64 bits and tells 5 from 5.0", function()
    assert.equal("integer", math.type(json.decode "5"))
    assert.equal("float", math.type(json.decode "5.0"))
    assert.equal("order-5", "order-" .. json.decode '{"n":5}'.n)
    for _, text in ipairs {
      "5", "5.0", "-1", "0", "9007199254740993", "9223372036854775807", "-9223372036854775808",
    } do
      assert.equal(text, round(text))
    end
    assert.equal(math.mininteger, json.decode "-9223372036854775808")
  end)

  it("refuses integers outside 64 bits, with their place", function()
    assert.equal("JSON: line 1, column 1: integer outside 64 bits", round "9223372036854775808")
    assert.equal("JSON: line 2, column 7: integer outside 64 bits",
      round '{"ä":1,\n "b": -9223372036854775809}')
  end)

  it("tells [] from {} and keeps null, also inside", function()
    assert.equal('{"a":[],"b":{},"c":[null,[]]}', round '{"a":[], "b":{}, "c":[null, []]}')
    assert.equal("{}", json.encode {})
    assert.equal("[]", json.encode(json.array {}))
    assert.equal("[]", json.encode(json.array()))
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_false(json.is_array(json.decode "{}"))
    assert.equal(json.null, json.decode "null")
    assert.equal("null", tostring(json.null))
    assert.equal('{"a":null}', json.encode { a = json.null })
  end)

  it("writes a float with the fewest digits that read back the same", function()
    for _, text in ipairs { "0.1", "0.30000000000000004", "3.141592653589793", "1e+16", "-0.0",
      "1.7976931348623157e+308", "2.2250738585072014e-308", "123456789012345.0" } do
      assert.equal(text, round(text))
    end
    local state = 7
    for _ = 1, 2000 do -- doubles of any exponent, from a generator of our own
      state = state * 6364136223846793005 + 1442695040888963407
      local value = string.unpack("d", string.pack("i8", state))
      if value == value and value ~= math.huge and value ~= -math.huge then
        local back = json.decode(json.encode(value))
        assert.equal("float", math.type(back))
        assert.equal(value, back)
      end
    end
  end)

  it("keeps NUL bytes, escapes and surrogate pairs", function()
    assert.equal("a\0b", json.decode '"a\\u0000b"')
    assert.equal("\0", next(json.decode '{"\\u0000":1}'))
    assert.equal("😀é\"\\/\b\f\n\r\t", json.decode [["\ud83d\ude00\u00e9\"\\\/\b\f\n\r\t"]])
    assert.equal([["\u0000\u001f\b\f\n\r\t\"\\/é😀"]],
      json.encode "\0\31\b\f\n\r\t\"\\/é😀")
  end)

  it("lets the last of duplicate keys win", function()
    assert.same({ a = 2 }, json.decode '{"a":1,"a":2}')
  end)

  it("refuses what is not JSON, with line and column", function()
    local cases = {
      { "", "line 1, column 1: expected a value, found the end of the text" },
      { "[1,]", "line 1, column 4: expected a value, found ']'" },
      { "[1 2]", "line 1, column 4: expected ',' or ']' in an array, found '2'" },
      { '{"a":1,}', "line 1, column 8: expected a key in quotes, found '}'" },
      { '{"a" 1}', "line 1, column 6: expected ':' after a key, found '1'" },
      { '{"a":1 "b"}', "line 1, column 8: expected ',' or '}' in an object, found '\"'" },
      { "{\n1}", "line 2, column 1: expected a key in quotes, found '1'" },
      { "[1] x", "line 1, column 5: text after the document" },
      { "1\0", "line 1, column 2: text after the document" },
      { "0x10", "line 1, column 2: text after the document" },
      { "NaN", "line 1, column 1: expected a value, found 'N'" },
      { "-Infinity", "line 1, column 1: invalid number" },
      { "01", "line 1, column 1: number with a leading zero" },
      { "1.", "line 1, column 1: number without digits after the point" },
      { "1e+", "line 1, column 1: number without digits in the exponent" },
      { "1e999", "line 1, column 1: number too large for a double" },
      { "tru", "line 1, column 1: expected a value, found 't'" },
      { '"abc', "line 1, column 5: string without an end" },
      { '"a\nb"', "line 1, column 3: control character in a string" },
      { '"\\x"', "line 1, column 2: invalid escape in a string" },
      { '"\\u12g4"', "line 1, column 2: invalid \\u escape in a string" },
      { '"\\ud800x"', "line 1, column 2: unpaired surrogate in a string" },
      { '"\\udc00"', "line 1, column 2: unpaired surrogate in a string" },
      { '"\xff"', "line 1, column 2: invalid UTF-8 in a string" },
      { '"\xc0\xaf"', "line 1, column 2: invalid UTF-8 in a string" }, -- overlong
      { '"\xed\xa0\x80"', "line 1, column 2: invalid UTF-8 in a string" }, -- surrogate
      { '"\xf4\x90\x80\x80"', "line 1, column 2: invalid UTF-8 in a string" }, -- past U+10FFFF
      { '"\xe2\x82"', "line 1, column 2: invalid UTF-8 in a string" }, -- cut
      { "\xef\xbb\xbf1", "line 1, column 1: expected a value, found byte 0xEF" },
    }
    for _, case in ipairs(cases) do
      assert.equal("JSON: " .. case[2], round(case[1]))
    end
  end)

  it("limits the depth in both directions", function()
    local deep = ("["):rep(1000) .. ("]"):rep(1000)
    assert.equal(deep, round(deep))
    assert.equal("JSON: line 1, column 1001: nested too deeply", round("[" .. deep .. "]"))
    assert.matches("nested too deeply", refusal { json.decode(deep) })
  end)

  it("refuses what JSON cannot say, and names the place", function()
    local cycle = {}
    cycle.list = { { cycle } }
    assert.equal("json.encode: .list[1][1]: table contains itself", refusal(cycle))
    assert.equal("json.encode: .a[2]: NaN has no JSON form", refusal { a = { 1, 0 / 0 } })
    assert.equal("json.encode: infinity has no JSON form", refusal(-math.huge))
    assert.equal("json.encode: .a: string is not valid UTF-8", refusal { a = "\xff" })
    assert.equal("json.encode: .f: a function has no JSON form", refusal { f = print })
    assert.equal("json.encode: a userdata has no JSON form", refusal(io.stdout))
    assert.equal("json.encode: .items: array with holes (2 items, highest index 3)",
      refusal { items = { [1] = 1, [3] = 3 } })
    assert.equal("json.encode: .items: key 'x' in a table that begins as an array",
      refusal { items = { 1, 2, x = 3 } })
    assert.equal("json.encode: .o: key of type boolean in an object",
      refusal { o = { [true] = 1 } })
    assert.equal("json.encode: key 0 in an array", refusal(json.array { [0] = 1 }))
    local message = refusal(nil)
    assert.equal("json.encode: a nil has no JSON form, null is json.null", message)
  end)

  it("raises on misuse", function()
    assert.error_matches(function() json.decode(5) end, "string expected, got number")
    assert.error_matches(function() json.encode({}, { sort = true }) end,
      "unknown option 'sort', did you mean 'sorted'")
    assert.error_matches(function() json.array(setmetatable({}, {})) end, "metatable of its own")
    assert.error(function() setmetatable(json.array {}, {}) end)
  end)

  it("sorts keys by bytes when asked to", function()
    local text = '{"":0,"A":1,"a":{"x":1,"y":2},"ab":3,"b":4,"é":5}'
    assert.equal(text, json.encode(json.decode(text), { sorted = true }))
  end)
end)
