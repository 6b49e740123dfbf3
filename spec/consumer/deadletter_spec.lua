require "spec.helper"
local consumer = require "rouse.consumer"
local deadletter = require "rouse.consumer.deadletter"
local fake = require "spec.consumer.fake"
local task = require "rouse.task"

local record = { topic = "payments", partition = 3, offset = 77, key = "k\0", value = "v\0\xff",
  timestamp = 1700000000.25, timestamp_type = "create",
  headers = { { name = "trace", value = "1" }, { name = "trace", value = "2" }, { name = "none" } } }

local function header(letter, name)
  for _, item in ipairs(letter.headers) do
    if item.name == name then return item.value end
  end
end

describe("consumer.deadletter", function()
  it("keeps the record as it came and says where it comes from", function()
    local letter = deadletter.letter(record, { topic = "dead", group = "g", reason = "poison",
      attempts = 4, index = 3 })
    assert.equal("dead", letter.topic)
    assert.equal(record.key, letter.key)
    assert.equal(record.value, letter.value)
    assert.equal(record.timestamp, letter.timestamp)
    assert.same({ record.headers[1], record.headers[2], record.headers[3] },
      { letter.headers[1], letter.headers[2], letter.headers[3] })
    assert.equal("payments", header(letter, "__connect.errors.topic"))
    assert.equal("3", header(letter, "__connect.errors.partition"))
    assert.equal("77", header(letter, "__connect.errors.offset"))
    assert.equal("g", header(letter, "__connect.errors.connector.name"))
    assert.equal("poison", header(letter, "__connect.errors.exception.message"))
    assert.equal("4", header(letter, "rouse.attempts"))
    assert.equal("g", header(letter, "rouse.group"))
    assert.equal(3, #record.headers)
  end)

  it("is read back as it was written, also a second time", function()
    local first = deadletter.letter(record, { topic = "dead", group = "g", reason = "poison", attempts = 4,
      index = 3, now = 1700000001.5 })
    local said = deadletter.read(first)
    assert.same(record.headers, said.headers)
    assert.same({ "payments", 3, 77, "g", "poison", 4, 1700000001.5 },
      { said.topic, said.partition, said.offset, said.group, said.reason, said.attempts, said.time })
    local second = deadletter.letter({ topic = "dead", partition = 0, offset = 5, headers = first.headers },
      { topic = "deader", group = "h", reason = "again", attempts = 1 })
    local again = deadletter.read(second)
    assert.same({ "dead", "h", "again" }, { again.topic, again.group, again.reason })
    assert.same(first.headers, again.headers)
  end)

  it("reads what Kafka Connect wrote, and knows what is no dead letter", function()
    local connect = deadletter.read { headers = { { name = "own", value = "1" },
      { name = "__connect.errors.topic", value = "t" }, { name = "__connect.errors.partition", value = "2" },
      { name = "__connect.errors.offset", value = "9" }, { name = "__connect.errors.connector.name", value = "sink" },
      { name = "__connect.errors.exception.message" } } }
    assert.same({ "t", 2, 9, "sink" }, { connect.topic, connect.partition, connect.offset, connect.group })
    assert.is_nil(connect.reason)
    assert.same({ { name = "own", value = "1" } }, connect.headers)
    for _, headers in ipairs { {}, { { name = "rouse.attempts", value = "1" } } } do
      local none = deadletter.read { headers = headers }
      assert.is_nil(none.topic)
      assert.same(headers, none.headers)
    end
  end)

  it("keeps a tombstone a tombstone, and cuts a long reason", function()
    local letter = deadletter.letter({ topic = "t", partition = 0, offset = 0 },
      { topic = "dead", group = "g", reason = ("x"):rep(100000), attempts = 1 })
    assert.is_nil(letter.value)
    assert.is_nil(letter.key)
    assert.is_true(#header(letter, "__connect.errors.exception.message") <= 1000)
  end)

  it("is finished only with the delivery report", function()
    local answers = { { nil, "timed out", "_MSG_TIMED_OUT" }, { { partition = 0, offset = 9 } } }
    local bury = deadletter.writer({
      produce = function() return table.unpack(table.remove(answers, 1), 1, 3) end,
    }, { topic = "dead", group = "g" })
    local ok, message, code = bury(record, "r", 1)
    assert.is_nil(ok)
    assert.equal("timed out", message)
    assert.equal("_MSG_TIMED_OUT", code)
    assert.is_true(bury(record, "r", 1))
  end)
end)

-- A consumer by index on a cluster in memory, to its end.
local function run(cluster, script, policy)
  local log, exit = fake.log(), nil
  script.consume = { dead = "payments-dead", retry = policy or { first = 0.001, max = 0.001, tries = 3 } }
  task.run(function()
    local ok, message = task.within(60, function()
      exit = consumer.run {
        script = script, kafka = cluster:module(), log = log, signals = fake.signals(),
        env = { KAFKA_TOPIC = "payments", CONSUMER_GROUP = "g", IDLE_TIMEOUT = "0", ROUSE_ASSIGN = "index",
          JOB_INDEX = "0", ROUSE_KAFKA = "security.protocol=plaintext;bootstrap.servers=localhost:1" },
      }
      return true
    end)
    assert(ok, message)
  end)
  return exit, log
end

local function dead(at)
  return { handle = function(each)
    if each.offset == at then return "dead", "poison" end
    return "done"
  end }
end

describe("a consumer with a topic for dead letters", function()
  it("exits 78 where that does not exist, before it commits or handles anything", function()
    local cluster, handled = fake.new { payments = 1 }, 0
    cluster:produce("payments", 0, 3)
    local exit, log = run(cluster, { handle = function() handled = handled + 1 return "done" end })
    assert.equal(78, exit)
    assert.equal("payments-dead", assert(log.find "topic for dead letters does not exist").fields.topic)
    assert.same({}, cluster.history)
    assert.equal(0, handled)
  end)

  it("waits for brokers that do not answer yet", function()
    local cluster = fake.new { payments = 1, ["payments-dead"] = 1 }
    cluster:produce("payments", 0, 3)
    cluster:fail("metadata", "_TRANSPORT", 2)
    assert.equal(0, (run(cluster, dead(1))))
    assert.equal(1, #cluster.letters)
  end)

  it("exits 77 where access to it is refused", function()
    local cluster = fake.new { payments = 1, ["payments-dead"] = 1 }
    cluster:fail("metadata", "TOPIC_AUTHORIZATION_FAILED", 1)
    assert.equal(77, (run(cluster, dead(1))))
    assert.same({}, cluster.history)
  end)

  for _, code in ipairs { "_MSG_TIMED_OUT", "MSG_SIZE_TOO_LARGE", "POLICY_VIOLATION" } do
    it("tries again, then parks the partition at the record: " .. code, function()
      local cluster = fake.new { payments = 1, ["payments-dead"] = 1 }
      cluster:produce("payments", 0, 3)
      cluster:fail("produce", code, 3)
      local exit, log = run(cluster, dead(1))
      assert.equal(65, exit)
      assert.equal(3, cluster.calls.produce)
      assert.equal(1, cluster:committed_offset("payments", 0))
      assert.equal(code, log.find "dead letter not written".fields.code)
      assert.matches("dead letter not written", log.find "partition parked".fields.reason, 1, true)
      assert.is_nil(cluster.letters)
    end)
  end
end)
