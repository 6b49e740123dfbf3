require "spec.helper"
local jobs = require "rouse.mock.jobs"

describe("a jobs file", function()
  it("gives jobs with command, environment and the rest", function()
    assert.same({
      ["payments-consumer"] = { command = { "sh", "-c", "exit 0" }, env = { A = "1", B = "x y" } },
      late = { command = { "true" }, mode = "daemon", retry_limit = 2, cwd = "/tmp" },
    }, jobs.parse([[
payments-consumer: {command: [sh, -c, "exit 0"], env: {A: 1, B: x y}}
late:
  command:
  - "true"
  mode: daemon
  retry_limit: 2
  cwd: /tmp
]], "jobs.yaml"))
    assert.same({}, jobs.parse("", "jobs.yaml"))
  end)

  it("gives all its mistakes at once, with their places", function()
    local result, mistakes = jobs.parse([[
Wrong_Name: {command: [a]}
empty: {}
list: [a]
more:
  command: run
  env: {1A: x, B: [y]}
  mode: cron
  retry_limit: 9
  comand: [a]
]], "jobs.yaml")
    assert.is_nil(result)
    assert.same({
      "jobs.yaml:1:1: not a job's name, expected lower-case letters, digits and -, at most 63",
      "jobs.yaml:2:8: the job has no command, expected command: [...]",
      "jobs.yaml:3:7: the job is not a map, expected {command: [...], env: {...}}",
      'jobs.yaml:5:12: command is not a list of strings, expected one like ["prog", "argument"]',
      "jobs.yaml:6:9: not a variable's name, expected letters, digits and _",
      "jobs.yaml:6:19: the value is not a string, expected a string",
      "jobs.yaml:7:9: mode is neither task nor daemon, expected one of them",
      "jobs.yaml:8:16: retry_limit is not a number, expected a number from 0 to 5",
      "jobs.yaml:9:3: unknown member 'comand', expected one of command, env, mode, retry_limit, cwd",
      "jobs.yaml:5:3: the job has no command, expected command: [...]",
    }, mistakes)
  end)

  it("that is no YAML map is refused with its place", function()
    local _, mistakes = jobs.parse("a: [", "jobs.yaml")
    assert.matches("^jobs.yaml:%d+:%d+: ", mistakes[1])
    _, mistakes = jobs.parse("[a]", "jobs.yaml")
    assert.matches("^jobs.yaml:1:1: the file is not a map", mistakes[1])
  end)
end)

describe("a topic's own job", function()
  it("is named after it, as far as a job's name allows", function()
    assert.equal("payments-consumer", jobs.name_of("payments"))
    assert.equal("my-orders-v2-consumer", jobs.name_of("My_orders.v2"))
    assert.equal("x-consumer", jobs.name_of("__x"))
    assert.equal("topic-consumer", jobs.name_of("_"))
    assert.equal(63, #jobs.name_of(("a"):rep(200)))
  end)

  it("is Rouse's consumer with an index per partition", function()
    assert.same({ command = { "/bin/rouse", "consumer" }, env = { KAFKA_TOPIC = "payments",
      CONSUMER_GROUP = "payments-group", ROUSE_ASSIGN = "index", IDLE_TIMEOUT = "5" } },
      jobs.consumer("payments", "/bin/rouse", 5))
  end)
end)

describe("the kafkadata of topics", function()
  local topics = { { name = "payments", partitions = 4 }, { name = "0x", partitions = 1 } }

  it("routes each to the job named after it, or to those that declare it", function()
    assert.equal('{payments: {partitions: 4, jobs: [payments-consumer]}, '
      .. '"0x": {partitions: 1, jobs: [0x-consumer]}}', jobs.kafkadata(topics, {}))
    assert.equal('{payments: {partitions: 4, jobs: [a, b]}, "0x": {partitions: 1, jobs: [0x-consumer]}}',
      jobs.kafkadata(topics, { b = { env = { KAFKA_TOPIC = "payments" } },
        a = { env = { KAFKA_TOPIC = "payments" } }, c = { env = {} }, d = {} }))
  end)

  it("is read by the kafkadata parser as what the seed's file says", function()
    local kafkadata = require "rouse.config.kafkadata"
    local routes = assert(kafkadata.parse(jobs.kafkadata({ topics[1],
      { name = "shipping", partitions = 3 } }, {}), { file = "kafkadata" }))
    assert.same({ "payments", 4, "payments-consumer" },
      { routes[1].topic, routes[1].partitions, routes[1].jobs[1].name })
    assert.same({ "shipping", 3, "shipping-consumer" },
      { routes[2].topic, routes[2].partitions, routes[2].jobs[1].name })
  end)
end)
