require "spec.helper"
local check = require "rouse.cli.check"
local connect = require "rouse.cli.connect"
local task = require "rouse.task"

local KAFKADATA = "payments: {partitions: 4, jobs: [payments-consumer]}"

local function seed(changes)
  local env = {
    MESSAGEHUB_KAFKA_BROKERS_SASL = "localhost:9093", MESSAGEHUB_USER = "token",
    MESSAGEHUB_PASSWORD = "hunter2", IAM_API_KEY = "hunter3", CE_PROJECT_ID = "p", CE_REGION = "eu-de",
    kafkadata = KAFKADATA, ROUSE_ETC = "/nowhere",
  }
  for name, value in pairs(changes or {}) do
    env[name] = value or nil
  end
  return env
end

local function run(args, environ)
  local lines = {}
  local code = task.run(check.run, args, {
    environ = environ, write = function(line) lines[#lines + 1] = line end,
  })
  return code, lines
end

-- A file with this text for the time of one test.
local function file(text)
  local path = os.tmpname()
  local handle = assert(io.open(path, "w"))
  handle:write(text)
  handle:close()
  finally(function() os.remove(path) end)
  return path
end

local function has(lines, wanted)
  for _, line in ipairs(lines) do
    if line:find(wanted, 1, true) then
      return true
    end
  end
  error(("no line with %q in:\n%s"):format(wanted, table.concat(lines, "\n")), 2)
end

describe("rouse check", function()
  it("is content with the seed's environment and kafkadata", function()
    local code, lines = run({}, seed())
    assert.equal(0, code)
    has(lines, "is an observer")
    has(lines, "ok: the environment is complete for an observer")
    has(lines, "ok: 1 topic with 1 job")
    for _, line in ipairs(lines) do
      assert.matches("^ok: ", line)
    end
  end)

  it("reports what lacks in the environment and in kafkadata together", function()
    local code, lines = run({}, seed { CE_PROJECT_ID = "", IAM_API_KEY = false,
      kafkadata = "payments:\n  partitons: 4\n" })
    assert.equal(78, code)
    has(lines, "error: CE_PROJECT_ID is not set: ")
    has(lines, "error: IAM_API_KEY is not set: ")
    has(lines, "error: kafkadata:1:1: payments has no jobs")
    has(lines, "error: kafkadata:2:3: payments has the unknown key 'partitons', expected partitions")
    assert.is_nil(table.concat(lines):find("hunter"))
  end)

  it("says with file and line why a script does not load", function()
    local path = file "return {\n  observe = {},\n  decid = print,\n}"
    local code, lines = run({ script = path }, seed())
    assert.equal(78, code)
    assert.same({ "error: " .. path .. ":3: the script's table: unknown key 'decid', did you mean 'decide'?" },
      lines)
  end)

  it("checks what a consumer needs", function()
    local path = file "return { consume = { topics = 'payments' }, handle = function() end }"
    local code, lines = run({ script = path }, seed())
    assert.equal(78, code)
    has(lines, path .. " is a consumer")
    has(lines, "error: CONSUMER_GROUP is not set: ")
    assert.equal(0, (run({ script = path }, seed { CONSUMER_GROUP = "g", kafkadata = false, IAM_API_KEY = false })))
  end)

  it("needs nothing for a free-form script", function()
    local code, lines = run({ script = file "return function() end" }, {})
    assert.equal(0, code)
    has(lines, "is a free-form agent")
  end)

  it("looks at the script alone where that is asked for, its routes included", function()
    local path = file [[return { observe = { routes = {
      a = { jobs = { { name = "x", dedup_window = 5 } } }, b = { jobs = { { name = "x", dedup_window = 6 } } },
    } } }]]
    local code, lines = run({ script = path, script_only = true }, { ROUSE_KAFKADTA = "x" })
    assert.equal(0, code)
    assert.same({ "ok: " .. path .. " is an observer", "ok: 2 topics with 2 jobs",
      "warning: job x has dedup_window 5 for a and 6 for b, expected the same" }, lines)
    code, lines = run({ script = file "return { observe = {} }", script_only = true }, {})
    assert.equal(0, code)
    assert.equal(1, #lines)
    assert.equal(78, (run({ script = file "return { observ = {} }", script_only = true }, {})))
  end)

  it("recognizes misspelled variables", function()
    local code, lines = run({}, seed { ROUSE_KAFKADTA = "x" })
    assert.equal(0, code)
    has(lines, "warning: ROUSE_KAFKADTA is not a variable of Rouse, did you mean ROUSE_KAFKADATA?")
  end)

  it("warns of settings that differ where a job has several topics", function()
    local code, lines = run({}, seed {
      kafkadata = "a: {jobs: [{name: x, dedup_window: 5}]}\nb: {jobs: [x]}" })
    assert.equal(0, code)
    has(lines, "warning: job x has dedup_window 5 for a and 0 for b, expected the same")
  end)

  it("does not connect before the configuration is right", function()
    local code, lines = run({ connect = true }, seed { CE_PROJECT_ID = false })
    assert.equal(78, code)
    has(lines, "warning: nothing was asked of the broker and the API")
  end)
end)

describe("rouse check --connect", function()
  local lines, findings
  before_each(function()
    lines = {}
    findings = check.findings(function(line) lines[#lines + 1] = line end)
  end)

  -- An admin handle that knows these topics.
  local function admin(topics, events)
    return {
      metadata = function()
        task.sleep(0)
        if not topics then
          return nil, "timed out", "TIMEDOUT"
        end
        return { brokers = { { id = 1 } }, topics = topics }
      end,
      poll = function()
        local event = events and table.remove(events, 1)
        if event then
          return event
        end
        return nil, "closed", "CLOSED"
      end,
    }
  end

  local function match(pattern, name)
    return name:find(pattern) ~= nil
  end

  it("compares topics and partitions with the cluster's", function()
    task.run(connect.kafka, findings, admin { a = { partitions = { {}, {} } }, b = { partitions = { {} } },
      c = { partitions = {}, error = "UNKNOWN_TOPIC_OR_PART" } }, {
      { topic = "a", partitions = 2 }, { topic = "b", partitions = 3 }, { topic = "c" }, { topic = "d" },
      { topic = "^[ab]", pattern = true }, { topic = "^x", pattern = true },
    }, match, "h:1")
    assert.same({ "ok: Kafka answers (1 broker)", "ok: topic a has 2 partitions",
      "warning: topic b has 1 partitions, the route says 3; the cluster counts",
      "error: topic c does not exist (UNKNOWN_TOPIC_OR_PART)", "error: topic d does not exist",
      "ok: the pattern ^[ab] matches a, b", "warning: the pattern ^x matches no topic now" }, lines)
    assert.equal(1, findings.code)
  end)

  it("asks a cluster", function()
    task.run(function()
      local kafka = require "rouse.kafka"
      local mock = assert(kafka.mock { topics = { { name = "payments", partitions = 4 } } })
      local client = assert(kafka.admin { properties = {
        ["bootstrap.servers"] = mock:bootstrap_servers(), ["group.id"] = "check" } })
      connect.kafka(findings, client, { { topic = "payments", partitions = 4 },
        { topic = "^pay", pattern = true }, { topic = "shipping" } }, kafka.match, "mock")
      assert(client:close { timeout = 5 })
      mock:close()
    end)
    assert.same({ "ok: Kafka answers (1 broker)", "ok: topic payments has 4 partitions",
      "ok: the pattern ^pay matches payments", "error: topic shipping does not exist" }, lines)
  end)

  it("goes through Kafka, IAM and Code Engine with the environment as it is there", function()
    task.run(function()
      local kafka = assert(require "rouse.kafka".mock { topics = {
        { name = "payments", partitions = 4 }, { name = "shipping", partitions = 3 } } })
      local engine = require "rouse.mock.codeengine".new { jobs = {
        ["payments-consumer"] = { env = { CONSUMER_GROUP = "payments-group" } } } }
      assert(engine:start())
      local environ = seed {
        MESSAGEHUB_KAFKA_BROKERS_SASL = kafka:bootstrap_servers(), ROUSE_KAFKA = "security.protocol=plaintext",
        CE_API_BASE_URL = engine:url(), IBMCLOUD_IAM_API_ENDPOINT = engine:url(), IAM_API_KEY = "mock-api-key",
        CE_PROJECT_ID = engine.site.project,
        kafkadata = KAFKADATA .. "\nshipping: {jobs: [shipping-consumer]}",
      }
      local function connected()
        lines = {}
        return check.run({ connect = true }, { environ = environ, write = function(line)
          lines[#lines + 1] = line
        end })
      end
      assert.equal(1, connected())
      has(lines, "ok: topic shipping has 3 partitions")
      has(lines, "ok: job payments-consumer exists (task mode)")
      has(lines, "error: job shipping-consumer does not exist in the project")
      environ.IAM_API_KEY = "not-the-key"
      assert.equal(1, connected())
      has(lines, "error: job payments-consumer cannot be looked up: iam: http 400")
      assert.is_nil(table.concat(lines):find("not-the-key", 1, true))
      engine:close()
      kafka:close()
    end)
  end)

  it("says why Kafka does not answer", function()
    task.run(connect.kafka, findings, admin(nil, {
      { kind = "error", code = "_AUTHENTICATION", message = "Invalid username or password" },
      { kind = "error", code = "_ALL_BROKERS_DOWN", message = "1/1 brokers are down" },
    }), {}, match, "h:1")
    assert.same({ "error: Kafka at h:1 does not answer: Invalid username or password" }, lines)
    assert.equal(1, findings.code)
  end)

  local function jobs_of(definitions, job, claims)
    local asked = 0
    local target = { job = function(_, name)
      asked = asked + 1
      if definitions[name] then
        return definitions[name]
      end
      return nil, "get job " .. name .. ": http 404", "NOT_FOUND"
    end }
    local routes = { { topic = "payments", jobs = { job } }, { topic = "shipping", jobs = { job } } }
    connect.jobs(findings, target, routes, { claims = claims, uses = function() return true end })
    return asked
  end

  it("looks for each job once", function()
    assert.equal(1, jobs_of({}, { name = "x", group = "g" }))
    assert.same({ "error: job x does not exist in the project" }, lines)
    assert.equal(1, findings.code)
  end)

  it("warns where a group could be named, finished runs vanish, or the topic is another", function()
    jobs_of({ x = { mode = "daemon", env = { CE_REMOVE_COMPLETED_JOBS = "IMMEDIATELY", KAFKA_TOPIC = "payments" } } },
      { name = "x" })
    assert.equal("ok: job x exists (daemon mode)", lines[1])
    has(lines, "warning: job x has CE_REMOVE_COMPLETED_JOBS=IMMEDIATELY: its finished runs vanish")
    has(lines, "warning: job x names no consumer group, so the messages of payments are claimed")
    has(lines, "warning: job x has KAFKA_TOPIC=payments, its route is shipping")
    assert.equal(0, findings.code)
  end)

  it("does not warn of a group where none is needed", function()
    jobs_of({ x = { env = { CONSUMER_GROUP = "g" } } }, { name = "x" })
    assert.same({ "ok: job x exists (task mode)" }, lines)
    lines = {}
    findings.write = function(line) lines[#lines + 1] = line end
    jobs_of({ x = { env = {} } }, { name = "x" }, true)
    assert.same({ "ok: job x exists (task mode)" }, lines)
  end)

  it("stops asking when the API does not answer", function()
    local asked = 0
    local target = { job = function()
      asked = asked + 1
      return nil, "get job: connection refused", "UNAVAILABLE"
    end }
    connect.jobs(findings, target, { { topic = "a", jobs = { { name = "x" }, { name = "y" } } } },
      { uses = function() return true end })
    assert.equal(1, asked)
    assert.same({ "error: job x cannot be looked up: get job: connection refused" }, lines)
  end)
end)
