require "spec.helper"
local yaml = require "rouse.yaml"

-- One line per node: kind@line:column and what it holds.
local function show(node)
  local where = ("%d:%d"):format(node.line, node.column)
  if node.kind == "scalar" then
    return ("%s %s%s"):format(where, node.plain and "" or "quoted ", node.value)
  end
  local parts = {}
  for i, item in ipairs(node.items or {}) do
    parts[i] = show(item)
  end
  for i, pair in ipairs(node.pairs or {}) do
    parts[i] = show(pair.key) .. " = " .. show(pair.value)
  end
  return ("%s %s(%s)"):format(where, node.kind, table.concat(parts, ", "))
end

local function failure(text)
  local node, message, code, line, column = yaml.parse(text)
  assert.is_nil(node)
  return ("%s %d:%d %s"):format(code, line, column, message)
end

describe("yaml", function()
  it("gives every node its line and column, scalars as text", function()
    assert.equal("1:1 map(1:1 payments = 2:3 map(2:3 partitions = 2:15 4, " ..
      "3:3 jobs = 4:5 seq(4:7 a, 5:7 quoted 007)), 6:1 é = 6:4 ü)",
      show(assert(yaml.parse(
        "payments:\n  partitions: 4\n  jobs:\n    - a\n    - '007'\né: ü\n"))))
  end)

  it("tells plain scalars from quoted, literal and tagged ones", function()
    local node = assert(yaml.parse 'a: yes\nb: "yes"\nc: |\n  yes\nd: !!str 5\ne:\nf: !x 1\n')
    local plain = {}
    for i, pair in ipairs(node.pairs) do
      plain[i] = pair.value.plain
    end
    assert.same({ true, false, false, false, true, false }, plain)
    assert.equal("yes\n", node.pairs[3].value.value)
    assert.equal("", node.pairs[5].value.value)
    assert.equal("tag:yaml.org,2002:str", node.pairs[4].value.tag)
    assert.equal("!x", node.pairs[6].value.tag)
    assert.is_nil(node.pairs[1].value.tag)
  end)

  it("leaves duplicate keys for the caller to see", function()
    assert.equal("1:1 map(1:1 a = 1:4 1, 2:1 a = 2:4 2)", show(assert(yaml.parse "a: 1\na: 2")))
  end)

  it("resolves aliases, the newest anchor of a name", function()
    assert.equal("1:1 seq(1:3 1, 1:3 1, 3:3 2, 3:3 2)",
      show(assert(yaml.parse "- &x 1\n- *x\n- &x 2\n- *x\n")))
    assert.equal("YAML 1:4 alias without an anchor before it", failure "a: *x")
    assert.equal("YAML 1:5 alias of a node that contains it", failure "&x [*x]")
  end)

  it("refuses a bomb of aliases and deep nesting", function()
    local lines = { "a0: &a0 [x, x, x, x, x, x, x, x, x, x]" }
    for i = 1, 9 do
      local alias = "*a" .. i - 1
      lines[#lines + 1] = ("a%d: &a%d [%s]"):format(i, i, (alias .. ", "):rep(9) .. alias)
    end
    assert.matches("^YAML 5:%d+ too many nodes$", failure(table.concat(lines, "\n")))
    assert(yaml.parse(("["):rep(100) .. ("]"):rep(100)))
    assert.equal("YAML 1:101 nested too deeply", failure(("["):rep(101) .. ("]"):rep(101)))
    assert.matches("^YAML 1:1%d%d+ ", failure(("{"):rep(100000)))
  end)

  it("reports errors with their place", function()
    assert.equal("YAML 2:2 did not find expected ',' or ']' while parsing a flow sequence",
      failure "a: [1, 2\nb: 3")
    assert.matches("^YAML 3:%d+ .*tab", failure "a:\n  b: 1\n\tc: 2")
    assert.matches("^YAML 2:4 .*UTF%-8", failure "a: 1\nb: \xff")
    assert.matches("^YAML 1:4 control characters", failure "ä: \0")
    assert.equal("YAML 2:1 a second document begins here, expected one", failure "a: 1\n--- \nb: 2")
  end)

  it("knows an empty document from a wrong one", function()
    for _, text in ipairs { "", "  \n", "# only a comment\n", "---\n", "---\n...\n" } do
      local node, message, code = yaml.parse(text)
      assert.same({ n = 3, nil, "empty document", "EMPTY" }, table.pack(node, message, code))
    end
    assert.equal("quoted", assert(yaml.parse "''").plain and "plain" or "quoted")
  end)

  it("raises on misuse", function()
    assert.error_matches(function() yaml.parse() end, "string expected, got no value")
  end)
end)
