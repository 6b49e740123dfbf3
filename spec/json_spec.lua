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
    assert.equal("JSON: line 1, column 19: too big integer", round "9223372036854775808")
    assert.equal("JSON: line 2, column 26: too big negative integer",
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
    for _, text in ipairs {
      "0.1", "0.30000000000000004", "3.141592653589793", "1e16", "1e-7", "-0.0",
      "1.7976931348623157e308", "2.2250738585072014e-308", "123456789012345.0",
    } do
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

  it("keeps NUL bytes in strings, escapes and surrogate pairs", function()
    assert.equal("a\0b", json.decode '"a\\u0000b"')
    assert.equal("😀é\"\\/\b\f\n\r\t", json.decode [["\ud83d\ude00\u00e9\"\\\/\b\f\n\r\t"]])
    assert.equal([["\u0000\u001F\b\f\n\r\t\"\\/é😀"]],
      json.encode "\0\31\b\f\n\r\t\"\\/é😀")
  end)

  it("lets the last of duplicate keys win", function()
    assert.same({ a = 2 }, json.decode '{"a":1,"a":2}')
  end)

  it("refuses what is not JSON, with line and column", function()
    local cases = {
      { "", "line 1, column 1: unexpected token near end of file" },
      { "[1,]", "line 1, column 4: unexpected token" },
      { "[1 2]", "line 1, column 4: ']' expected" },
      { "[1\n", "line 2, column 1: ']' expected near end of file" },
      { '{"a":1,}', "line 1, column 8: string or '}' expected" },
      { '{"a" 1}', "line 1, column 6: ':' expected" },
      { '{"a":1 "b"}', "line 1, column 10: '}' expected" },
      { "{\n1}", "line 2, column 1: string or '}' expected" },
      { '{"\\u0000":1}', "line 1, column 9: NUL byte in object key not supported" },
      { "[1] x", "line 1, column 5: end of file expected" },
      { "1\0", "line 1, column 2: NUL byte" },
      { '["ä",\n 1\0, 2]', "line 2, column 3: NUL byte" },
      { "0x10", "line 1, column 2: end of file expected" },
      { "NaN", "line 1, column 3: invalid token" },
      { "-Infinity", "line 1, column 1: invalid token" },
      { "01", "line 1, column 1: invalid token" },
      { "1.", "line 1, column 2: invalid token" },
      { "1e+", "line 1, column 3: invalid token" },
      { "1e999", "line 1, column 5: real number overflow" },
      { "tru", "line 1, column 3: invalid token" },
      { '"abc', "line 1, column 5: premature end of input" },
      { '"a\nb"', "line 1, column 2: unexpected newline" },
      { '"\\x"', "line 1, column 3: invalid escape" },
      { '"\\u12g4"', "line 1, column 6: invalid escape" },
      { '"\\ud800x"', "line 1, column 9: invalid Unicode '\\uD800'" },
      { '"\\udc00"', "line 1, column 8: invalid Unicode '\\uDC00'" },
      { '"\xff"', "line 1, column 2: unable to decode byte 0xff" },
      { '"\xc0\xaf"', "line 1, column 2: unable to decode byte 0xc0" }, -- overlong
      { '"\xed\xa0\x80"', "line 1, column 2: unable to decode byte 0xed" }, -- surrogate
      { '"\xf4\x90\x80\x80"', "line 1, column 2: unable to decode byte 0xf4" }, -- past U+10FFFF
      { '"\xe2\x82"', "line 1, column 2: unable to decode byte 0xe2" }, -- cut
      { '["ä"\n\xff]', "line 2, column 1: unable to decode byte 0xff" },
      { "\xef\xbb\xbf1", "line 1, column 1: invalid token" },
    }
    for _, case in ipairs(cases) do
      assert.equal("JSON: " .. case[2], round(case[1]))
    end
  end)

  it("limits the depth in both directions", function()
    local deep = ("["):rep(2048) .. ("]"):rep(2048)
    assert.is_true(deep == round(deep))
    assert.equal("JSON: line 1, column 2049: maximum parsing depth reached",
      round("[" .. deep .. "]"))
    assert.matches("nested too deeply", refusal { json.decode(deep) })
    local full = ("["):rep(2047) .. "1" .. ("]"):rep(2047) -- a scalar is a level, too
    assert.is_true(full == round(full))
    assert.matches("nested too deeply", refusal { json.decode(full) })
  end)

  it("refuses texts whose tree could take too much memory", function()
    local message = "JSON: text too large: reading it could take more than 128 MiB"
    assert.equal(message, round("[" .. ("{},"):rep(500000) .. "{}]"))
    assert.equal(message, round('"' .. ("x"):rep(33 << 20) .. '"'))
    assert.equal(16 << 20, #assert(json.decode('"' .. ("x"):rep(16 << 20) .. '"')))
  end)

  it("quotes nothing of the text in messages", function()
    assert.is_nil((round '{"password": "hunter2"; }'):find("hunter2", 1, true))
    assert.is_nil((round '{"card": 4111111111111111 x}'):find("near", 1, true))
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
