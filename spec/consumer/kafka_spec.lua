-- The consumer on librdkafka's mock cluster: real protocol, real fetches. Index assignment, since
-- joining takes seconds there.
require "spec.helper"
local consumer = require "rouse.consumer"
local fake = require "spec.consumer.fake"
local kafka = require "rouse.kafka"
local task = require "rouse.task"

local function done() return "done" end

-- fn(mock, tools) in a task, with a cluster of its own; at the end no handle of the loop is left open.
local function with_mock(topics, fn)
  task.run(function()
    local mock = kafka.mock { brokers = 1, topics = topics }
    local properties = { ["bootstrap.servers"] = mock:bootstrap_servers() }
    local tools = { log = fake.log(), signals = fake.signals() }
    function tools.produce(topic, partition, count, headers)
      local producer = assert(kafka.producer { properties = properties })
      for i = 1, count do
        assert(producer:send { topic = topic, partition = partition, value = "v" .. i, headers = headers })
      end
      assert(producer:flush { timeout = 30 })
      assert(producer:close { timeout = 5 })
    end
    function tools.committed(group, topic, partition)
      local admin = assert(kafka.admin { properties = properties })
      local list = assert(admin:group_offsets {
        group = group, partitions = { { topic = topic, partition = partition } }, timeout = 30,
      })
      admin:close { timeout = 5 }
      return list[1].offset, list[1].metadata
    end
    function tools.run(script, env, options)
      script.consume = script.consume or {}
      local merged = { KAFKA_TOPIC = "payments", CONSUMER_GROUP = "payments-group", IDLE_TIMEOUT = "0",
        ROUSE_KAFKA = "security.protocol=plaintext;fetch.wait.max.ms=10;bootstrap.servers="
          .. mock:bootstrap_servers() }
      for name, value in pairs(env or {}) do merged[name] = value end
      options = options or {}
      return consumer.run { script = script, env = merged, signals = tools.signals, log = tools.log,
        drain = options.drain }
    end
    fn(mock, tools)
    mock:close()
  end)
end

local INDEX = { ROUSE_ASSIGN = "index", JOB_INDEX = "1", CE_JOBRUN = "payments-consumer-3" }

describe("consumer on the mock cluster", function()
  it("drains the partition of its index and commits as the run", function()
    with_mock({ { name = "payments", partitions = 3 } }, function(_, tools)
      tools.produce("payments", 1, 2000)
      tools.produce("payments", 2, 5)
      local seen = {}
      local exit = tools.run({
        handle = function(record)
          seen[#seen + 1] = record.partition .. "@" .. record.offset
          return "done"
        end,
      }, INDEX)
      assert.equal(0, exit)
      assert.equal(2000, #seen)
      assert.equal("1@0", seen[1])
      assert.equal("1@1999", seen[2000])
      assert.same({ 2000, "payments-consumer-3" }, { tools.committed("payments-group", "payments", 1) })
      assert.is_nil((tools.committed("payments-group", "payments", 2)))
    end)
  end)

  it("goes on where the last run stopped", function()
    with_mock({ { name = "payments", partitions = 2 } }, function(_, tools)
      tools.produce("payments", 1, 10)
      assert.equal(65, tools.run({
        consume = { retry = { first = 0, max = 0, tries = 1 } },
        handle = function(record) return record.offset < 6 and "done" or "retry" end,
      }, INDEX))
      local first
      assert.equal(0, tools.run({
        handle = function(record)
          first = first or record.offset
          return "done"
        end,
      }, INDEX))
      assert.equal(6, first)
      assert.equal(10, (tools.committed("payments-group", "payments", 1)))
    end)
  end)

  it("handles batches of one partition", function()
    with_mock({ { name = "payments", partitions = 2 } }, function(_, tools)
      tools.produce("payments", 1, 1000)
      local count = 0
      assert.equal(0, tools.run({
        consume = { batch = 100 },
        handle_batch = function(records)
          assert(#records >= 1 and #records <= 100)
          assert(records[1].offset == count)
          count = count + #records
          return "done"
        end,
      }, INDEX))
      assert.equal(1000, count)
      assert.equal(1000, (tools.committed("payments-group", "payments", 1)))
    end)
  end)

  it("writes dead letters to their topic before it finishes the record", function()
    local topics = { { name = "payments", partitions = 2 }, { name = "dead", partitions = 1 } }
    with_mock(topics, function(_, tools)
      tools.produce("payments", 1, 3)
      assert.equal(0, tools.run({
        consume = { dead = "dead" },
        handle = function(record)
          if record.offset == 1 then return "dead", "poison" end
          return "done"
        end,
      }, INDEX))
      local letters = {}
      assert.equal(0, tools.run({
        handle = function(record)
          letters[#letters + 1] = record
          return "done"
        end,
      }, { ROUSE_ASSIGN = "index", JOB_INDEX = "0", KAFKA_TOPIC = "dead", CONSUMER_GROUP = "dlq" }))
      assert.equal(1, #letters)
      assert.equal("v2", letters[1].value)
      local headers = {}
      for _, header in ipairs(letters[1].headers) do headers[header.name] = header.value end
      assert.equal("payments", headers["__connect.errors.topic"])
      assert.equal("1", headers["__connect.errors.offset"])
      assert.equal("poison", headers["__connect.errors.exception.message"])
      assert.equal(3, (tools.committed("payments-group", "payments", 1)))
    end)
  end)

  it("reads no headers where its script says so, but for dead letters", function()
    local topics = { { name = "payments", partitions = 2 }, { name = "dead", partitions = 1 } }
    with_mock(topics, function(_, tools)
      tools.produce("payments", 1, 1, { { name = "own", value = "1" } })
      local readable, first
      local function script(options)
        return { consume = options, handle = function(record)
          readable, first = pcall(function() return record.headers[1] end)
          return options.dead and "dead" or "done", "poison"
        end }
      end
      for group, want in pairs { unread = false, read = true } do
        assert.equal(0, tools.run(script { headers = want },
          { ROUSE_ASSIGN = "index", JOB_INDEX = "1", CONSUMER_GROUP = group }))
        assert.equal(want, readable)
      end
      assert.equal(0, tools.run(script { headers = false, dead = "dead" }, INDEX))
      assert.equal(0, tools.run(script {}, { ROUSE_ASSIGN = "index", JOB_INDEX = "0", KAFKA_TOPIC = "dead",
        CONSUMER_GROUP = "dlq" }))
      assert.same({ name = "own", value = "1" }, first)
    end)
  end)

  it("pauses behind a slow handler and loses nothing", function()
    with_mock({ { name = "payments", partitions = 2 } }, function(_, tools)
      tools.produce("payments", 1, 40000)
      local gate, expected = task.event(), 0
      task.spawn(function()
        task.sleep(0.5)
        gate:set()
      end)
      assert.equal(0, tools.run({
        handle = function(record)
          if record.offset == 10 then gate:wait() end
          assert(record.offset == expected)
          expected = expected + 1
          return "done"
        end,
      }, INDEX))
      assert.equal(40000, expected)
      assert.equal(40000, (tools.committed("payments-group", "payments", 1)))
    end)
  end)

  it("joins the group without an index", function()
    with_mock({ { name = "payments", partitions = 2 } }, function(_, tools)
      tools.produce("payments", 0, 5)
      tools.produce("payments", 1, 5)
      local count = 0
      assert.equal(0, tools.run({
        handle = function()
          count = count + 1
          return "done"
        end,
      }))
      assert.equal(10, count)
      assert.equal(5, (tools.committed("payments-group", "payments", 0)))
      assert.equal(5, (tools.committed("payments-group", "payments", 1)))
    end)
  end)

  it("stays where no broker answers, says so once, and ends on SIGTERM", function()
    with_mock({ { name = "payments", partitions = 2 } }, function(_, tools)
      task.spawn(function()
        local deadline = task.monotonic() + 30
        while not tools.log.find "no broker" and task.monotonic() < deadline do task.sleep(0.01) end
        task.sleep(0.5) -- for it to be said again
        tools.signals.send "TERM"
      end)
      assert.equal(0, tools.run({ handle = done }, {
        ROUSE_ASSIGN = "index", JOB_INDEX = "0",
        ROUSE_KAFKA = "security.protocol=plaintext;bootstrap.servers=localhost:1",
      }))
      local said = 0
      for _, line in ipairs(tools.log.lines) do
        if line.message:find("no broker", 1, true) then said = said + 1 end
      end
      assert.equal(1, said)
    end)
  end)

  it("exits 78 where the topic does not exist, by group and by index", function()
    with_mock({ { name = "shipping", partitions = 2 } }, function(_, tools)
      local runs = {}
      for i, env in ipairs { {}, INDEX } do
        runs[i] = task.spawn(tools.run, { handle = done }, env)
      end
      for _, run in ipairs(runs) do
        assert.equal(78, (run:join(60)))
      end
      assert.equal("payments", assert(tools.log.find "topic does not exist").fields.topic)
    end)
  end)

  it("exits 78 with librdkafka's own words on a property it does not know", function()
    with_mock({ { name = "payments", partitions = 2 } }, function(_, tools)
      assert.equal(78, tools.run({
        consume = { kafka = { ["fetch.wait.max.mss"] = 10 } }, handle = done,
      }, INDEX))
      assert.is_truthy(tools.log.find "fetch.wait.max.mss")
    end)
  end)
end)
