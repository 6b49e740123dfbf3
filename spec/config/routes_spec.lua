require "spec.helper"
local routes = require "rouse.config.routes"

describe("routes.from_table", function()
  it("gives what kafkadata gives, sorted by topic", function()
    assert.same({
      { topic = "^b", pattern = true, reset = "latest", jobs = {
        { name = "y", group = "g", dedup_window = 30, max_instances = 2, assign = "index",
          idle_timeout = 5, target = { kind = "process" } } } },
      { topic = "a", pattern = false, partitions = 4, reset = "earliest", jobs = {
        { name = "x", dedup_window = 0, idle_timeout = 60 } } },
    }, routes.from_table {
      a = { partitions = 4, jobs = { "x" } },
      ["^b"] = { reset = "latest", jobs = { { name = "y", group = "g", dedup_window = 30,
        max_instances = 2, assign = "index", idle_timeout = 5, target = "process" } } },
    })
  end)

  it("leaves the given table alone", function()
    local given = { a = { jobs = { { name = "x" } } } }
    routes.from_table(given)
    assert.same({ a = { jobs = { { name = "x" } } } }, given)
  end)

  for expected, map in pairs {
    ["routes is empty, expected at least one topic"] = {},
    ["routes: topic is 1, expected a topic's name"] = { { jobs = { "x" } } },
    ["routes: 'a b' is not a topic's name, expected 1 to 249"] = { ["a b"] = { jobs = { "x" } } },
    ['routes["a"] is true, expected a table'] = { a = true },
    ['routes["a"]: jobs is missing, expected a list of jobs'] = { a = {} },
    ['routes["a"]: jobs is \'x\', expected a list of jobs'] = { a = { jobs = "x" } },
    ['routes["a"]: jobs is empty, expected at least one job'] = { a = { jobs = {} } },
    ['routes["a"]: jobs has the key \'name\', expected an array of jobs'] = { a = { jobs = { name = "x" } } },
    ['routes["a"]: unknown key \'job\', did you mean \'jobs\'?'] = { a = { job = { "x" } } },
    ['routes["a"].jobs[2]: unknown key \'dedup\', did you mean \'dedup_window\'?'] =
      { a = { jobs = { "x", { name = "y", dedup = 1 } } } },
    ['routes["a"].jobs[1]: unknown key \'consumer_group\', did you mean \'group\'?'] =
      { a = { jobs = { { name = "y", consumer_group = "g" } } } },
    ['routes["a"].jobs[1]: name is \'X\', expected a job name'] = { a = { jobs = { "X" } } },
    ['routes["a"].jobs[1]: name is missing'] = { a = { jobs = { { group = "g" } } } },
    ['routes["a"].jobs[1] is 7, expected a job\'s name or a table'] = { a = { jobs = { 7 } } },
    ['routes["a"]: the job \'x\' is listed twice'] = { a = { jobs = { "x", { name = "x" } } } },
    ['routes["a"].jobs[1]: target is \'procces\', expected a target\'s kind'] =
      { a = { jobs = { { name = "x", target = "procces" } } } },
  } do
    it("refuses: " .. expected, function()
      local ok, message = pcall(function()
        local _ = routes.from_table(map)
      end)
      assert.is_false(ok)
      assert.is_truthy(message:find(expected, 1, true), message)
      assert.matches("^spec/config/routes_spec%.lua:%d+: ", message)
    end)
  end
end)

describe("routes.check_topic", function()
  it("tells topics from patterns", function()
    assert.is_false(routes.check_topic("a.b_c-D9"))
    assert.is_true(routes.check_topic("^a(b|c)$"))
  end)

  it("compiles patterns as librdkafka will", function()
    local pattern, problem, expected = routes.check_topic("^(")
    assert.is_nil(pattern)
    assert.matches("^the pattern '%^%(' does not compile %(%a", problem)
    assert.equal("a POSIX extended regular expression", expected)
  end)

  it("refuses what Kafka refuses", function()
    for _, topic in ipairs { "", ".", "..", "a/b", "a b", "ä", ("x"):rep(250) } do
      assert.is_nil(routes.check_topic(topic))
    end
  end)
end)
