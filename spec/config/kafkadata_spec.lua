require "spec.helper"
local kafkadata = require "rouse.config.kafkadata"

-- Strips the two leading lines' worth of indentation that [[ ]] has here.
local function text_of(source)
  return (source:gsub("^\n", ""):gsub("%f[^\n%z]      ", ""))
end

local function problems(source)
  local list, found = kafkadata.parse(text_of(source), { file = "f" })
  assert.is_nil(list)
  return found
end

describe("kafkadata", function()
  it("reads the first observer's form", function()
    local file <close> = assert(io.open("resources/kafkadata"))
    local routes = assert(kafkadata.parse(file:read("a")))
    assert.same({
      { topic = "payments", pattern = false, partitions = 4, reset = "earliest", line = 1, column = 1,
        jobs = { { name = "payments-consumer", dedup_window = 0, idle_timeout = 60, line = 4, column = 5 } } },
      { topic = "shipping", pattern = false, partitions = 3, reset = "earliest", line = 5, column = 1,
        jobs = { { name = "shipping-consumer", dedup_window = 0, idle_timeout = 60, line = 8, column = 5 } } },
    }, routes)
  end)

  it("reads the second's form, and everything a job may say, in one file", function()
    local routes = assert(kafkadata.parse(text_of [[
      payments:
        partitions: 4
        jobs:
          - name: payments-consumer
            consumer_group: payments-group
      ^orders[.]:
        reset: latest
        jobs:
        - orders
        - {name: audit, group: 42, dedup_window: 0.5, max_instances: 3, assign: index,
           idle_timeout: 5, target: {kind: process, verbose: true}}
    ]]))
    assert.equal("^orders[.]", routes[1].topic)
    assert.is_true(routes[1].pattern)
    assert.equal("latest", routes[1].reset)
    assert.is_nil(routes[1].partitions)
    assert.equal("orders", routes[1].jobs[1].name)
    local audit = routes[1].jobs[2]
    audit.line, audit.column = nil, nil
    assert.same({ name = "audit", group = "42", dedup_window = 0.5, max_instances = 3, assign = "index",
      idle_timeout = 5, target = { kind = "process", verbose = true } }, audit)
    assert.equal("payments-group", routes[2].jobs[1].group)
    assert.is_nil(routes[2].jobs[1].consumer_group)
  end)

  it("takes group and consumer_group when they agree, and a target by its kind", function()
    local routes = assert(kafkadata.parse(
      "a: {jobs: [{name: b, group: g, consumer_group: g, target: process}]}"))
    assert.equal("g", routes[1].jobs[1].group)
    assert.same({ kind = "process" }, routes[1].jobs[1].target)
  end)

  it("reads anchors as what they stand for", function()
    local routes = assert(kafkadata.parse("a: &a {jobs: [x]}\nb: *a\n"))
    assert.equal("x", routes[2].jobs[1].name)
  end)

  it("reports all mistakes at once, in the order of their positions", function()
    assert.same({
      "f:2:15: partitions of payments is '4', expected a whole number of 1 or more without quotes",
      "f:3:3: payments has the unknown key 'partitons', expected partitions (one of jobs, partitions, reset)",
      "f:6:5: the job 'a' comes twice in payments, first in line 5, expected each job once",
      "f:7:12: name of a job of payments is 'B', expected a job name: 1 to 63 lower-case letters, "
        .. "digits and -, no - at either end",
      "f:7:29: dedup_window of a job of payments is -1, expected a number of 0 or more",
      "f:7:59: a job of payments has the group 'a' and the consumer_group 'b', expected one of them, "
        .. "or the same in both",
      "f:8:3: reset of payments is empty, expected earliest or latest",
      "f:9:1: 'bad topic' is not a topic's name, expected 1 to 249 letters, digits, '.', '_' and '-', "
        .. "or a pattern that starts with ^",
      "f:9:21: jobs of bad topic is 'x', expected a list of jobs, one `- NAME` a line",
      "f:10:1: 'payments' comes twice in the file, first in line 1, expected each once",
    }, problems [[
      payments:
        partitions: "4"
        partitons: 4
        jobs:
        - a
        - a
        - {name: B, dedup_window: -1, group: a, consumer_group: b}
        reset:
      'bad topic': {jobs: x}
      payments: {jobs: [y]}
    ]])
  end)

  local one = {
    [""] = "f:1:1: nothing in it, expected a map of topics",
    ["# only a comment\n"] = "f:1:1: nothing in it",
    ["~"] = "f:1:1: the file is empty, expected a map of topics",
    ["{}"] = "f:1:1: an empty map, expected a map of topics",
    ["- payments"] = "f:1:1: the file is a list, expected a map of topics",
    ["payments"] = "f:1:1: the file is 'payments', expected a map of topics",
    ["payments:\n"] = "f:1:1: payments is empty, expected a map with jobs",
    ["payments: payments-consumer"] = "f:1:11: payments is 'payments-consumer', expected a map with jobs",
    ["payments:\n  partitions: 4\n"] = "f:1:1: payments has no jobs, expected `jobs:` with a list",
    ["a: {jobs: }"] = "f:1:5: jobs of a is empty, expected a list of jobs",
    ["a: {jobs: []}"] = "f:1:11: jobs of a is an empty list, expected at least one job",
    ["a: {jobs: [[b]]}"] = "f:1:12: a job of a is a list, expected a job's name or a map with `name`",
    ["a:\n  jobs:\n  -\n"] = "a job of a is empty, expected a job's name",
    ["a: {jobs: [{group: g}]}"] = "f:1:12: a job of a has no name, expected `name: JOB`",
    ["a: {jobs: [-a]}"] = "f:1:12: a job of a is called '-a', expected a job name",
    ["a: {jobs: [b], partitions: 0}"] = "partitions of a is 0, expected a whole number of 1 or more",
    ["a: {jobs: [b], partitions: four}"] = "partitions of a is 'four', expected a whole number",
    ["a: {jobs: [b], partitions: 1.5}"] = "partitions of a is 1.5, expected a whole number",
    ["a: {jobs: [b], reset: newest}"] = "reset of a is 'newest', expected earliest or latest",
    ["a: {jobs: [{name: b, assign: random}]}"] = "assign of a job of a is 'random', expected group or index",
    ["a: {jobs: [{name: b, max_instances: 2000}]}"] = "is 2000, expected a whole number from 1 to 1000",
    ["a: {jobs: [{name: b, target: codengine}]}"] = "did you mean 'codeengine'?",
    ["a: {jobs: [{name: b, name: c}]}"] = "'name' comes twice in a job of a, first in line 1",
    ["? [a]\n: {jobs: [b]}"] = "f:1:3: a key of the file is a list, expected a name",
    ["'..': {jobs: [b]}"] = "'..' is not a topic's name",
    ["payments:\n\tjobs: [a]\n"] = "f:2:1: a tab in the indentation, expected spaces",
    ["payments:\n  jobs:\n - a\n  reset: x\n"] = "f:3:2: not YAML: did not find expected key",
    ["a: b: c"] = "f:1:5: not YAML: mapping values are not allowed in this context, expected one `KEY: VALUE`",
    ["a: {jobs: [b]}\n---\nc: {jobs: [d]}"] = "f:2:1: not YAML: ",
    ["a: {jobs: [b"] = "not YAML: ",
  }
  for source, expected in pairs(one) do
    it(("refuses %q"):format(source), function()
      local list, found = kafkadata.parse(source, { file = "f" })
      assert.is_nil(list)
      assert.equal(1, #found, table.concat(found, "\n"))
      assert.is_truthy(found[1]:find(expected, 1, true), found[1])
      assert.matches("^f:%d+:%d+: .+, expected .+", found[1])
    end)
  end

  it("refuses names that are too long", function()
    assert.matches("is called 'a", problems("a: {jobs: [" .. ("a"):rep(64) .. "]}")[1])
    assert.matches("is not a topic's name", problems(("a"):rep(250) .. ": {jobs: [b]}")[1])
    assert.is_table(kafkadata.parse(("a"):rep(249) .. ": {jobs: [" .. ("a"):rep(63) .. "]}"))
  end)

  it("compiles patterns", function()
    local function match(pattern)
      if pattern == "^(" then
        return nil, "Unmatched (", "PATTERN"
      end
      return false
    end
    local list, found = kafkadata.parse("^(: {jobs: [a]}\n^b: {jobs: [a]}", { match = match })
    assert.is_nil(list)
    assert.same({ "kafkadata:1:1: the pattern '^(' does not compile (Unmatched (), "
      .. "expected a POSIX extended regular expression" }, found)
  end)

  it("survives what no editor would write", function()
    local seed = "payments:\n  partitions: 4\n  jobs:\n  - {name: a, target: {kind: process}}\n"
    local state = 12345
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return state // 65536 % n + 1
    end
    local noise = { ":", "-", "[", "]", "{", "}", "\n", "\t", " ", "\0", "&a", "*a", "'", "!", "?", "~", "\xff" }
    for _ = 1, 2000 do
      local text = seed
      for _ = 1, random(4) do
        local at = random(#text)
        text = text:sub(1, at - 1) .. noise[random(#noise)] .. text:sub(at + random(3) - 1)
      end
      local list, found = kafkadata.parse(text, { file = "f" })
      assert.is_true(list ~= nil or #found > 0)
      for _, line in ipairs(found or {}) do
        assert.matches("^f:%d+:%d+: .+, expected .+", line)
      end
    end
  end)
end)
