require "spec.helper"
local kafka = require "rouse.kafka"
local mocked = require "spec.mocked"
local process = require "rouse.process"
local task = require "rouse.task"

local with_mock, admin_of = mocked.run, mocked.admin

describe("kafka producer", function()
  it("reports each delivery", with_mock({ topics = { t = 2 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties() })
    local place = assert(producer:produce { topic = "t", partition = 1, value = "v", timeout = 30 })
    assert.same({ partition = 1, offset = 0 }, place)
    local _, message, code = producer:produce { topic = "t", partition = 9, value = "v", timeout = 30 }
    assert.equal("_UNKNOWN_PARTITION", code)
    assert.is_string(message)
    mock:fail { api = "Produce", errors = { "MSG_SIZE_TOO_LARGE" } }
    _, _, code = producer:produce { topic = "t", partition = 0, value = "v", timeout = 30 }
    assert.equal("MSG_SIZE_TOO_LARGE", code)
    assert.equal(0, producer:outstanding())
    assert.is_true(producer:close { timeout = 30 })
  end))

  it("delivers the first record of a topic without a second's delay", with_mock({ topics = { t = 1 } }, function(mock)
    -- librdkafka's delay is a whole second, each time; a machine that is slow is not so ten times in a row
    local quickest = math.huge
    for i = 1, 10 do
      local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 0 } })
      local start = task.monotonic()
      assert(producer:produce { topic = "t", value = "v" .. i, timeout = 30 })
      quickest = math.min(quickest, task.monotonic() - start)
      producer:close()
      if quickest < 0.6 then break end
    end
    assert(quickest < 0.6)
  end))

  it("sends without waiting, and says at the flush what was lost", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 1 } })
    for i = 1, 3000 do
      assert(producer:send { topic = "t", partition = 0, value = "v" .. i })
    end
    assert(producer:outstanding() > 0)
    assert.is_true(producer:flush { timeout = 30 })
    assert.equal(0, producer:outstanding())
    local admin = admin_of(mock)
    assert.equal(3000, admin:offsets { partitions = { { topic = "t", partition = 0 } }, timeout = 30 }[1].offset)
    mock:fail { api = "Produce", errors = { "TOPIC_AUTHORIZATION_FAILED" } }
    assert(producer:send { topic = "t", partition = 0, value = "x" })
    local _, message, code = producer:flush { timeout = 30 }
    assert.equal("TOPIC_AUTHORIZATION_FAILED", code)
    assert.matches("1 records were not delivered", message, 1, true)
    assert.is_true(producer:flush { timeout = 30 })
    admin:close()
    producer:close()
  end))

  it("delivers what is queued when it closes, or says that it did not", with_mock({ topics = { t = 1 } }, function(mock)
    local admin = admin_of(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 500 } })
    assert(producer:send { topic = "t", partition = 0, value = "v" })
    assert.is_true(producer:close { timeout = 30 })
    assert.equal(1, admin:offsets { partitions = { { topic = "t", partition = 0 } }, timeout = 30 }[1].offset)
    producer = assert(kafka.producer { properties = { ["bootstrap.servers"] = "127.0.0.1:1" } })
    assert(producer:send { topic = "t", partition = 0, value = "v" })
    local waiting = task.spawn(function()
      return producer:produce { topic = "t", value = "v" }
    end)
    task.sleep(0)
    local _, message, code = producer:close { timeout = 0.2 }
    assert.equal("TIMEDOUT", code)
    assert.equal("2 records were not delivered in time", message)
    assert.equal("CLOSED", select(3, waiting:join { timeout = 30 }))
    admin:close()
  end))

  it("waits for room in its queue, in order", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer {
      properties = mock:properties { ["linger.ms"] = 1, ["queue.buffering.max.messages"] = 10 },
    })
    for i = 1, 200 do
      assert(producer:send { topic = "t", partition = 0, key = "k" .. i, value = ("v"):rep(i),
        headers = { { name = "h", value = "\0" .. i }, { name = "h" } } })
    end
    local waiting = task.spawn(function() return producer:produce { topic = "t", partition = 0, value = "last" } end)
    assert.is_true(producer:flush { timeout = 30 })
    assert.equal(200, assert(waiting:join { timeout = 30 }).offset)
    local consumer = mocked.consumer(mock, "g")
    consumer:assign { { topic = "t", partition = 0, offset = "beginning" } }
    for i, record in ipairs(mocked.read(consumer, 200)) do
      if i > 200 then break end
      assert.equal("k" .. i, record.key)
      assert.equal(i, #record.value)
      assert.same({ { name = "h", value = "\0" .. i }, { name = "h" } }, record.headers)
    end
    consumer:close()
    producer:close()
  end))

  it("says that there is no room where nobody can wait, and takes back what is not waited for any more",
    with_mock({ topics = { t = 1 } }, function(mock)
      local producer = assert(kafka.producer {
        properties = { ["bootstrap.servers"] = "127.0.0.1:1", ["queue.buffering.max.messages"] = 1 },
      })
      assert(producer:send { topic = "t", value = "v" })
      local _, message, code = producer:send { topic = "t", value = "v", timeout = 0 }
      assert.equal("_QUEUE_FULL", code)
      assert.matches("topic t", message, 1, true)
      assert.equal("TIMEDOUT", select(3, producer:send { topic = "t", value = "v", timeout = 0.01 }))
      assert.equal("TIMEDOUT", select(3, producer:produce { topic = "t", value = "v", timeout = 0.01 }))
      local all = task.spawn(function() return producer:produce_all { { topic = "t", value = "v" } } end)
      task.sleep(0)
      _, message = producer:close { timeout = 0.05 }
      assert.equal("4 records were not delivered in time", message)
      assert.equal("CLOSED", select(3, all:join { timeout = 30 }))
      assert(mock)
    end))

  it("produces many and waits once", with_mock({ topics = { t = 2 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["queue.buffering.max.messages"] = 50 } })
    local records = {}
    for i = 1, 300 do records[i] = { topic = "t", partition = i % 2, value = "v" .. i } end
    local places = assert(producer:produce_all(records, { timeout = 30 }))
    assert.same({ topic = "t", partition = 1, offset = 0 }, places[1])
    assert.same({ topic = "t", partition = 0, offset = 149 }, places[300])
    assert.same({}, assert(producer:produce_all {}))
    local _, ok, message, code, each
    ok, message, code, each = producer:produce_all {
      { topic = "t", partition = 0, value = "v" }, { topic = "t", partition = 7, value = "v" },
      { topic = "t", partition = 0, value = ("x"):rep(1000001) } }
    assert.is_nil(ok)
    assert.is_string(code)
    assert.matches("2 of 3 records were not delivered", message, 1, true)
    assert.same({ 150, "_UNKNOWN_PARTITION", "MSG_SIZE_TOO_LARGE" },
      { each[1].offset, each[2].error, each[3].error })
    _, message, _, each = producer:produce_all { { topic = "t", value = ("x"):rep(1000001) } }
    assert.matches("1 of 1 records", message, 1, true)
    assert.equal("MSG_SIZE_TOO_LARGE", each[1].error)
    assert.error_matches(function() producer:produce_all { 1 } end, "item 1: a table expected, got number", 1, true)
    assert.equal(0, producer:outstanding())
    producer:close()
  end))

  it("is idempotent unless told otherwise", with_mock({ topics = { t = 1 } }, function(mock)
    local _, message, code = kafka.producer { properties = mock:properties { acks = 1 } }
    assert.equal("CONFIG", code)
    assert.matches("idempotence", message, 1, true)
    local producer = assert(kafka.producer { properties = mock:properties { acks = 1, ["enable.idempotence"] = false } })
    assert(producer:produce { topic = "t", value = "v", timeout = 30 })
    producer:close()
  end))

  it("names the topic that does not exist, in seconds", with_mock({ topics = { t = 1 } }, function(mock)
    mock:topic_error { topic = "nowhere", error = "UNKNOWN_TOPIC_OR_PART" }
    local producer = assert(kafka.producer { properties = mock:properties() })
    local _, message, code = producer:produce { topic = "nowhere", value = "v", timeout = 60 }
    assert.equal("UNKNOWN_TOPIC_OR_PART", code)
    assert.matches("topic nowhere", message, 1, true)
    _, message, code = producer:produce { topic = "t", value = ("x"):rep(2000000) }
    assert.equal("MSG_SIZE_TOO_LARGE", code)
    assert.matches("topic t: ", message, 1, true)
    producer:close()
  end))

  it("survives a report for a task that is gone", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties() })
    mock:rtt(1, 0.2)
    assert.equal("TIMEDOUT", select(3, producer:produce { topic = "t", value = "v", timeout = 0.05 }))
    collectgarbage()
    mock:rtt(1, 0)
    assert.is_true(producer:flush { timeout = 30 })
    producer:close()
  end))

  it("raises on what it cannot send", function()
    local producer = assert(kafka.producer { properties = { ["bootstrap.servers"] = "127.0.0.1:1" } })
    assert.error_matches(function()
      producer:send { value = "v" }
    end, "producer:send: option 'topic' is missing", 1, true)
    assert.error_matches(function()
      producer:send { topic = "t", value = 3 }
    end, "option 'value': string expected, got number", 1, true)
    assert.error_matches(function()
      producer:send { topic = "t", headers = { { value = "v" } } }
    end, "item 1 has no name", 1, true)
    assert.error_matches(function()
      producer:send { topic = "t", partitions = 1 }
    end, "did you mean 'partition'?", 1, true)
    task.run(function()
      assert(producer:close { timeout = 1 })
    end)
  end)

  it("commits and aborts transactions, and says what a failure means", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["transactional.id"] = "x" } })
    local _, _, code, means = producer:begin()
    assert.equal("_STATE", code)
    assert(means ~= "retriable")
    assert.is_true(producer:init_transactions { timeout = 30 })
    assert.is_true(producer:begin())
    assert(producer:send { topic = "t", partition = 0, value = "a" })
    assert.is_true(producer:send_offsets { offsets = { { topic = "in", partition = 0, offset = 1 } }, group = "g" })
    assert.is_true(producer:commit { timeout = 30 })
    assert.is_true(producer:begin())
    assert(producer:send { topic = "t", partition = 0, value = "b" })
    assert.is_true(producer:abort { timeout = 30 })
    assert.is_true(producer:flush { timeout = 30 }) -- what was aborted is nobody's loss

    assert.is_true(producer:begin())
    mock:fail { api = "Produce", errors = { "MSG_SIZE_TOO_LARGE" } }
    assert(producer:send { topic = "t", partition = 0, value = "c" })
    local message
    _, message, code, means = producer:commit { timeout = 30 }
    assert.equal("abortable", means)
    assert.equal("MSG_SIZE_TOO_LARGE", code)
    assert.matches("topic t", message, 1, true)
    assert.is_true(producer:abort { timeout = 30 })
    producer:close { timeout = 1 }

    producer = assert(kafka.producer { properties = mock:properties { ["transactional.id"] = "y" } })
    assert.is_true(producer:init_transactions { timeout = 30 })
    assert.is_true(producer:begin())
    mock:fail { api = "EndTxn", errors = { "INVALID_PRODUCER_EPOCH" } }
    assert(producer:send { topic = "t", partition = 0, value = "d" })
    _, _, code, means = producer:commit { timeout = 30 }
    assert.equal("fatal", means)
    assert.equal("_FENCED", code)
    producer:close { timeout = 1 }
  end))

  it("raises on offsets without a group, and on another's consumer", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["transactional.id"] = "x" } })
    local list = { { topic = "t", partition = 0, offset = 1 } }
    assert.error_matches(function() producer:send_offsets { offsets = list } end,
      "either 'consumer' or 'group' is needed", 1, true)
    assert.error_matches(function() producer:send_offsets { offsets = list, consumer = producer } end,
      "an open consumer expected", 1, true)
    local _, message, code, means = producer:send_offsets { offsets = list, group = "g" }
    assert.equal("_STATE", code)
    assert.is_string(message)
    assert.not_equal("retriable", means)
    producer:close()
  end))

  it("of a script that ends without a flush delivers what it holds, and says what it could not",
    with_mock({ topics = { t = 1 } }, function(mock)
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write [[
        local kafka = require "rouse.kafka"
        return function(ctx)
          local producer = assert(kafka.producer {
            properties = { ["bootstrap.servers"] = ctx.args[1], ["linger.ms"] = 200 } })
          for i = 1, 100 do assert(producer:send { topic = "t", partition = 0, value = "v" .. i }) end
        end]]
      file:close()
      local function run(brokers)
        local child <close> = assert(process.spawn { stderr = "pipe", command = {
          (os.getenv "ROUSE_BUILD" or "build") .. "/rouse", "run", path, brokers } })
        local text = ""
        for chunk in function() return child:read { stream = "stderr", timeout = 60 } end do text = text .. chunk end
        return assert(child:wait { timeout = 30 }).code, text
      end
      assert.equal(0, (run(mock:bootstrap_servers())))
      local admin = admin_of(mock)
      assert.equal(100, admin:offsets { partitions = { { topic = "t", partition = 0 } }, timeout = 30 }[1].offset)
      assert.matches("100 records were not delivered in time", select(2, run "127.0.0.1:1"), 1, true)
      os.remove(path)
      admin:close()
    end))
end)
