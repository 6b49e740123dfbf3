-- Seeded mutations of valid texts through the parsers: whatever comes, a value or nil, message, code; and what was
-- understood survives being written. Bounded by a count, so every run does the same; FUZZ=n runs n times as many.
require "spec.helper"
local json = require "rouse.json"
local yaml = require "rouse.yaml"

local RUNS = 40000 * (tonumber(os.getenv "FUZZ") or 1)

local JSON_SEEDS = {
  '{"a":[1,2.5,-3e2,"x\\u00e9\\ud83d\\ude00",null,true,false],"b":{"c":{}},"d":[]}',
  "[0,-0,1E5,1e-7,9223372036854775807,-9223372036854775808,0.1]",
  '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000"',
  '  [ 1 , {"k" : "v"} ]  ',
  '{"ä":"ö","":"","a":1,"a":2}',
  "[[[[[[[[]]]]]]]]",
}

local YAML_SEEDS = {
  "payments:\n  partitions: 4\n  jobs:\n    - payments-consumer\n    - {name: b, group: 'g'}\n",
  "a: &x [1, \"two\\n\", *x]\nb: *x\n<<: {c: d}\n",
  "# c\n---\nk: |\n  literal\n  text\nf: >-\n  folded\n? complex\n: value\n...\n",
  "- !!str 5\n- !x y\n- 'it''s'\n- {a: [b, {c: }]}\n",
}

local PIECES = {
  "{", "}", "[", "]", '"', "'", ":", ",", "-", "\\", "\\u", "\\ud800", "0", "9", "1e", ".", "\n", "\t", " ", "  ", "\0",
  "\xff", "\xc3", "\xf0\x9f", "é", "&x ", "*x", "!", "%", "|", ">", "#", "?", "null", "tru", "- ", ": ", "---\n", "\u{feff}",
}

-- A generator of our own: the same numbers everywhere, and nobody else's sequence disturbed.
local function generator(seed)
  local state = seed
  return function(n)
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) % n + 1
  end
end

local function mutate(text, random)
  for _ = 1, random(5) do
    local at, length = random(#text + 1), random(4)
    local kind = random(4)
    if kind == 1 then -- cut
      text = text:sub(1, at - 1) .. text:sub(at + length)
    elseif kind == 2 then -- insert
      text = text:sub(1, at - 1) .. PIECES[random(#PIECES)] .. text:sub(at)
    elseif kind == 3 then -- overwrite
      text = text:sub(1, at - 1) .. PIECES[random(#PIECES)] .. text:sub(at + 1)
    else -- repeat a part
      local from = random(#text + 1)
      text = text:sub(1, at - 1) .. text:sub(from, from + random(40)) .. text:sub(at)
    end
  end
  return text
end

-- Calls fn(text, hint) for many texts; a failure names the text that caused it. Returns how many fn accepted.
local function each_text(seeds, seed, fn)
  local random = generator(seed)
  local accepted = 0
  for i = 1, RUNS do
    local text = mutate(seeds[i % #seeds + 1], random)
    local ok, result = pcall(fn, text)
    if not ok then
      error(("text %d, %q: %s"):format(i, text, result), 0)
    end
    accepted = accepted + (result and 1 or 0)
  end
  return accepted
end

local function check_node(node)
  assert(math.type(node.line) == "integer" and node.line >= 1 and node.column >= 1)
  if node.kind == "scalar" then
    assert(type(node.value) == "string" and type(node.plain) == "boolean")
  elseif node.kind == "seq" then
    for _, item in ipairs(node.items) do
      check_node(item)
    end
  else
    assert(node.kind == "map")
    for _, pair in ipairs(node.pairs) do
      check_node(pair.key)
      check_node(pair.value)
    end
  end
end

describe("fuzz", function()
  it("json.decode: a value that survives encoding, or nil, message, code", function()
    local accepted = each_text(JSON_SEEDS, 1, function(text)
      local value, message, code = json.decode(text)
      if value == nil then
        assert(code == "JSON" and message:match "^line %d+, column %d+: ", message)
        return false
      end
      local written = json.encode(value, { sorted = true })
      assert(written == json.encode(json.decode(written), { sorted = true }), written)
      return true
    end)
    assert.is_true(accepted > RUNS / 50 and accepted < RUNS) -- both ways were taken
  end)

  it("yaml.parse: a tree with positions, or nil, message, code, line, column", function()
    local accepted = each_text(YAML_SEEDS, 2, function(text)
      local node, message, code, line, column = yaml.parse(text)
      if node == nil then
        assert(code == "YAML" or code == "EMPTY", code)
        assert(#message > 0 and line >= 1 and column >= 1)
        return false
      end
      check_node(node)
      return true
    end)
    assert.is_true(accepted > RUNS / 50 and accepted < RUNS)
  end)
end)
