require "spec.helper"
local json = require "rouse.json"
local kafka = require "rouse.kafka"
local log = require "rouse.log"
local mocked = require "spec.mocked"
local task = require "rouse.task"

-- The fields of a record in a plain table.
local function copy(record)
  local fields = {}
  for name, value in pairs(record) do fields[name] = value end
  return fields
end

local with_mock, consumer_of, admin_of = mocked.run, mocked.consumer, mocked.admin
local fill, read = mocked.fill, mocked.read

describe("kafka handles", function()
  local properties = { ["group.id"] = "g", ["bootstrap.servers"] = "127.0.0.1:1" }

  it("leave properties to librdkafka and pass its text on", function()
    local consumer, message, code = kafka.consumer { properties = { ["group.id"] = "g", ["fetch.wait.ms"] = 3 } }
    assert.is_nil(consumer)
    assert.equal("No such configuration property: \"fetch.wait.ms\", did you mean 'fetch.wait.max.ms'?", message)
    assert.equal("CONFIG", code)
    for written, meant in pairs {
      ["sesion.timeout.ms"] = ", did you mean 'session.timeout.ms'?", ["sasl.user"] = ", did you mean 'sasl.username'?",
      ["qqq"] = "",
    } do
      for _, open in ipairs { kafka.consumer, kafka.producer, kafka.admin } do
        _, message = open { properties = { ["group.id"] = "g", [written] = "1" } }
        assert.equal(('No such configuration property: "%s"%s'):format(written, meant), message)
      end
    end
    assert.same({ nil, "CONFIG" }, { kafka.producer { properties = { acks = "some" } }, (select(3,
      kafka.producer { properties = { acks = "some" } })) })
    local _, conflict = kafka.consumer {
      properties = { ["group.id"] = "g", ["fetch.max.bytes"] = 1000, ["message.max.bytes"] = 2000 },
    }
    assert.matches("fetch.max.bytes", conflict, 1, true)
  end)

  it("need a group.id to consume", function()
    local consumer, message, code = kafka.consumer { properties = {} }
    assert.is_nil(consumer)
    assert.matches("group.id is required", message, 1, true)
    assert.equal("CONFIG", code)
  end)

  it("raise on unknown options and wrong types", function()
    assert.error_matches(function()
      kafka.consumer { propertys = properties }
    end, "kafka.consumer: unknown option 'propertys', did you mean 'properties'?", 1, true)
    assert.error_matches(function()
      kafka.admin { properties = { ["bootstrap.servers"] = {} } }
    end, "'bootstrap.servers': string, number or boolean expected, got table", 1, true)
    assert.error_matches(function()
      kafka.producer {}
    end, "option 'properties': table expected", 1, true)
  end)

  it("say where a list is wrong", function()
    task.run(function()
      local consumer = assert(kafka.consumer { properties = properties })
      local function refused(list, text)
        assert.error_matches(function()
          consumer:assign(list)
        end, text, 1, true)
      end
      refused({ { topic = "t", partition = 0 }, { topic = "t" } }, "item 2: partition: an integer from 0 expected")
      refused({ { partition = 0 } }, "item 1: topic: string expected, got nil")
      refused({ { topic = "t", partition = 0, offset = -3 } }, "item 1: offset: an integer from 0")
      refused({ "t" }, "item 1: table expected, got string")
      assert.is_true(consumer:close { timeout = 30 })
    end)
  end)

  it("refuse use after close, close twice, and do not wait outside a task", function()
    local admin = assert(kafka.admin { properties = { ["bootstrap.servers"] = "127.0.0.1:1" } })
    assert.error_matches(function()
      admin:metadata()
    end, "admin:metadata", 1, true)
    task.run(function()
      assert.is_true(admin:close { timeout = 30 })
      assert.is_true(admin:close { timeout = 30 })
      assert.error_matches(function()
        admin:metadata()
      end, "rouse.admin is closed", 1, true)
    end)
  end)

  it("close in the background when the collector takes them", function()
    task.run(function()
      local before = task.handles()
      assert(kafka.consumer { properties = properties })
      assert(task.handles() > before)
      collectgarbage()
      local deadline = task.monotonic() + 30
      while task.handles() > before and task.monotonic() < deadline do
        task.sleep(0.01)
      end
      assert.equal(before, (task.handles()))
    end)
  end)

  it("match topics as librdkafka does", function()
    assert.is_true(kafka.match("^pay.*s$", "payments"))
    assert.is_false(kafka.match("^pay.*s$", "payment"))
    assert.equal("PATTERN", select(3, kafka.match("^(", "x")))
    assert.matches("^%d+%.%d+", kafka.version())
  end)
end)

describe("kafka consumer", function()
  it("returns records as they were produced", with_mock({ topics = { t = 2 } }, function(mock)
    local binary = "\0\1\255 value"
    local places = mock:produce {
      { topic = "t", partition = 1, key = "k\0k", value = binary, timestamp = 1700000000.25,
        headers = { { name = "a", value = "1" }, { name = "a", value = "" }, { name = "none" } } },
      { topic = "t", partition = 1, value = "" },
      { topic = "t", partition = 1, key = "tombstone" },
    }
    assert.same({ { partition = 1, offset = 0 }, { partition = 1, offset = 1 }, { partition = 1, offset = 2 } }, places)
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 1, offset = "beginning" } })
    local records = read(consumer, 3)
    assert.same({
      topic = "t", partition = 1, offset = 0, key = "k\0k", value = binary,
      timestamp = 1700000000.25, timestamp_type = "create",
      headers = { { name = "a", value = "1" }, { name = "a", value = "" }, { name = "none" } },
    }, copy(records[1]))
    assert.equal("integer", math.type(records[1].offset))
    assert.is_nil(records[1].leader_epoch) -- the mock cluster does not tell
    assert.equal("", records[2].value)
    assert.is_nil(records[2].key)
    assert.equal(0, #records[2].headers)
    assert.error_matches(function()
      records[2].headers[1] = {}
    end, "cannot be changed", 1, true)
    assert.is_nil(records[3].value)
    assert.equal("tombstone", records[3].key)
    assert.is_true(consumer:close { timeout = 30 })
  end))

  -- Records of every kind beside each other, in every compression.
  it("tells which of a batch's records have headers", with_mock({ topics = { t = 4 } }, function(mock)
    local texts = { false, "", "x", ("y"):rep(70), ("z"):rep(1100) }
    local headers = { {}, {}, { { name = "h", value = "1" } }, {}, { { name = "a", value = "" }, { name = "b" } } }
    local want, kinds = {}, #texts * #texts * #headers
    for i = 0, 2 * kinds - 1 do
      local key, value = texts[i % 5 + 1], texts[i // 5 % 5 + 1]
      want[i] = { key = key or nil, value = value or nil, headers = headers[(i // 25 + i // kinds * (i % 5)) % 5 + 1] }
    end
    for number, codec in ipairs { "none", "gzip", "snappy", "lz4" } do
      local partition = number - 1
      local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 20,
        ["compression.codec"] = codec, ["batch.num.messages"] = 100 } })
      for i = 0, #want do
        assert(producer:send { topic = "t", partition = partition, key = want[i].key, value = want[i].value,
          headers = want[i].headers })
      end
      assert.is_true(producer:flush { timeout = 30 })
      producer:close()
      local consumer = consumer_of(mock)
      assert(consumer:assign { { topic = "t", partition = partition, offset = "beginning" } })
      local records = read(consumer, #want + 1)
      assert.equal(#want + 1, #records)
      for i, record in ipairs(records) do
        assert.same(want[i - 1], { key = record.key, value = record.value, headers = table.move(record.headers, 1,
          #record.headers, 1, {}) }, codec .. " " .. i)
      end
      consumer:close()
    end
  end))

  it("leaves headers unread where it is told to", with_mock({ topics = { t = 1 } }, function(mock)
    mock:produce {
      { topic = "t", partition = 0, key = "k", value = "v", timestamp = 1, headers = { { name = "h", value = "1" } } },
      { topic = "t", partition = 0, value = ("y"):rep(3000) },
    }
    local consumer = assert(kafka.consumer { properties = mock:consumer_properties(), headers = false })
    assert(consumer:assign { { topic = "t", partition = 0, offset = "beginning" } })
    local records = read(consumer, 2)
    for _, record in ipairs(records) do
      assert.error_matches(function() return record.headers end, "headers are not read with headers = false", 1, true)
      assert.is_nil(copy(record).headers)
    end
    assert.same({ topic = "t", partition = 0, offset = 0, key = "k", value = "v", timestamp = 1.0,
      timestamp_type = "create" }, copy(records[1]))
    assert.equal(("y"):rep(3000), records[2].value)
    assert.is_true(consumer:close { timeout = 30 })
    assert.error_matches(function()
      kafka.consumer { properties = mock:consumer_properties(), headers = "no" }
    end, "option 'headers': boolean expected, got string", 1, true)
  end))

  it("has records that read as tables and cannot be changed", with_mock({ topics = { t = 1 } }, function(mock)
    local large = ("x"):rep(3000)
    mock:produce {
      { topic = "t", partition = 0, key = "k", value = large, headers = { { name = "h", value = "after the value" } } },
      { topic = "t", partition = 0, value = '"small"', timestamp = 1 },
      { topic = "t", partition = 0, key = "k", value = ("y"):rep(1024), headers = { { name = "h", value = "1" } } },
    }
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = "beginning" } })
    local records = read(consumer, 3)
    assert(consumer:close { timeout = 30 })
    collectgarbage() -- they outlive consumer and poll
    local first, second, third = table.unpack(records)
    assert.equal(large, first.value)
    assert.equal("k", first.key)
    assert.same({ { name = "h", value = "after the value" } }, first.headers)
    assert.equal(("y"):rep(1024), third.value)
    assert.equal("1", third.headers[1].value)
    assert.is_nil(first.valeu)
    assert.is_nil(first[1])
    assert.equal("record t/0@1", tostring(second))
    assert.equal('{"headers":{},"offset":1,"partition":0,"timestamp":1.0,"timestamp_type":"create","topic":"t",'
      .. [["value":"\"small\""}]], json.encode(second, { sorted = true }))
    assert.error_matches(function() second.value = "other" end, "a record cannot be changed: 'value' is set", 1, true)
    assert.is_false(getmetatable(second))
    assert.equal(second, log.place(second))
    assert.is_nil(copy(second).key)
  end))

  it("says which partition its records are of", with_mock({ topics = { t = 2, u = 1 } }, function(mock)
    fill(mock, "t", 0, 2)
    fill(mock, "t", 1, 3)
    fill(mock, "u", 0, 1)
    local consumer = consumer_of(mock)
    assert(consumer:assign {
      { topic = "t", partition = 0, offset = 0 }, { topic = "t", partition = 1, offset = 0 },
      { topic = "u", partition = 0, offset = 0 },
    })
    local seen, count = {}, 0
    while count < 6 do
      local event = assert(consumer:poll { timeout = 30 })
      local at = 1
      for _, slice in ipairs(event.slices) do
        assert.equal(at, slice.first)
        for i = slice.first, slice.last do
          local record = event.records[i]
          assert.equal(slice.topic .. slice.partition, record.topic .. record.partition)
          seen[slice.topic .. slice.partition] = (seen[slice.topic .. slice.partition] or 0) + 1
        end
        assert.equal(2 * (slice.last - slice.first + 1), slice.bytes) -- "v1", "v2", ...
        at = slice.last + 1
      end
      assert.equal(at, #event.records + 1)
      count = count + #event.records
    end
    assert.same({ t0 = 2, t1 = 3, u0 = 1 }, seen)
    consumer:close { timeout = 30 }
  end))

  it("bounds an event by records and by bytes", with_mock({ topics = { t = 1 } }, function(mock)
    fill(mock, "t", 0, 10, ("x"):rep(1000))
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    read(consumer, 1, { max = 1 })
    local event = assert(consumer:poll { max = 3, timeout = 30 })
    assert(#event.records <= 3)
    assert(consumer:seek { { topic = "t", partition = 0, offset = 0 } })
    local seen = 0
    while seen < 10 do
      event = assert(consumer:poll { max_bytes = 2500, timeout = 30 })
      assert(#event.records <= 2)
      assert.equal(seen, event.records[1].offset)
      seen = seen + #event.records
    end
    consumer:close()
  end))

  it("waits no longer than told, and for one task at a time", with_mock({ topics = { t = 1 } }, function(mock)
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    local start = task.monotonic()
    assert.same({ nil, "timed out", "TIMEDOUT" }, { consumer:poll { timeout = 0.05 } })
    assert(task.monotonic() - start < 10)
    local other = task.spawn(function()
      return consumer:poll()
    end)
    task.sleep(0)
    assert.error_matches(function()
      consumer:poll { timeout = 0 }
    end, "another task is polling", 1, true)
    consumer:close()
    assert.same({ nil, "the consumer was closed", "CLOSED" }, { other:join { timeout = 30 } })
  end))

  it("lets other tasks run while there is always something to read", with_mock({ topics = { t = 1 } }, function(mock)
    fill(mock, "t", 0, 500)
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    assert(consumer:poll { max = 1, timeout = 30 })
    local turns = 0
    local other = task.spawn(function()
      while true do
        task.sleep(0)
        turns = turns + 1
      end
    end)
    for _ = 1, 20 do
      assert(consumer:poll { max = 1, timeout = 30 })
      local busy = task.monotonic() + 0.003
      repeat until task.monotonic() > busy
    end
    assert.is_true(turns >= 5)
    assert.equal("records", assert(consumer:poll { timeout = 0 }).kind) -- what is there is found without waiting
    other:cancel()
    consumer:close()
  end))

  it("loses nothing when a poll is cancelled", with_mock({ topics = { t = 1 } }, function(mock)
    fill(mock, "t", 0, 50)
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    local seen = 0
    local deadline = task.monotonic() + 30
    while seen < 50 and task.monotonic() < deadline do
      local got
      local poller = task.spawn(function()
        local event = consumer:poll { max = 7 }
        got = #event.records
        assert.equal(seen, event.records[1].offset)
      end)
      if seen % 2 == 0 then
        task.sleep(0) -- the poll has its event, the task is not resumed yet
        poller:cancel()
      end
      poller:join { timeout = 1 }
      poller:cancel()
      seen = seen + (got or 0)
      if got == nil then
        seen = seen + #assert(consumer:poll { max = 3, timeout = 30 }).records
      end
    end
    assert.equal(50, seen)
    consumer:close()
  end))

  it("drops what it read of partitions that are taken away", with_mock({ topics = { t = 2 } }, function(mock)
    fill(mock, "t", 0, 5)
    fill(mock, "t", 1, 5)
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    assert.equal(1, #assert(consumer:poll { max_bytes = 1, timeout = 30 }).records) -- four more are read
    assert(consumer:incremental_unassign { { topic = "t", partition = 0 } })
    assert.same({}, consumer:assignment())
    assert(consumer:incremental_assign { { topic = "t", partition = 1, offset = 3 } })
    local records = read(consumer, 2)
    assert.same({ 1, 3, 1, 4 }, { records[1].partition, records[1].offset, records[2].partition, records[2].offset })
    assert.equal("TIMEDOUT", select(3, consumer:poll { timeout = 0.1 }))
    consumer:close()
  end))

  it("pauses, resumes and seeks", with_mock({ topics = { t = 1 } }, function(mock)
    fill(mock, "t", 0, 3)
    local place = { { topic = "t", partition = 0 } }
    local consumer = consumer_of(mock)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    read(consumer, 3)
    assert.equal(3, consumer:position(place)[1].offset)
    assert(consumer:pause(place))
    fill(mock, "t", 0, 1)
    assert.equal("TIMEDOUT", select(3, consumer:poll { timeout = 0.2 }))
    assert(consumer:resume(place))
    assert.equal(3, read(consumer, 1)[1].offset)
    assert(consumer:seek { { topic = "t", partition = 0, offset = 1 } })
    assert.equal(1, read(consumer, 3)[1].offset)
    local _, message, code = consumer:seek { { topic = "other", partition = 7, offset = 1 } }
    assert.equal("_UNKNOWN_PARTITION", code)
    assert.matches("other [7]", message, 1, true)
    consumer:close()
  end))

  it("stores, commits and reads commits", with_mock({ topics = { t = 2 } }, function(mock)
    local consumer = consumer_of(mock, "g")
    local both = { { topic = "t", partition = 0 }, { topic = "t", partition = 1 } }
    assert.is_nil(assert(consumer:committed(both, { timeout = 30 }))[1].offset)
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 }, { topic = "t", partition = 1, offset = 0 } })
    assert.same({}, consumer:commit(nil, { timeout = 30 }))
    assert(consumer:store { { topic = "t", partition = 1, offset = 7 } })
    local list = assert(consumer:commit(nil, { timeout = 30 }))
    assert.same({ { topic = "t", partition = 1, offset = 7 } }, list)
    assert(consumer:commit({ { topic = "t", partition = 0, offset = 3, metadata = "run-1" } }, { timeout = 30 }))
    local committed = assert(consumer:committed(both, { timeout = 30 }))
    assert.same({ 3, "run-1", 7 }, { committed[1].offset, committed[1].metadata, committed[2].offset })
    mock:fail { api = "OffsetCommit", errors = { "GROUP_AUTHORIZATION_FAILED" } }
    local _, _, code = consumer:commit({ { topic = "t", partition = 0, offset = 4 } }, { timeout = 30 })
    assert.equal("GROUP_AUTHORIZATION_FAILED", code)
    assert(consumer:assign {})
    assert.equal("_STATE", select(3, consumer:store { { topic = "t", partition = 0, offset = 1 } }))
    consumer:close()
  end))

  it("reports the end of a partition when asked to", with_mock({ topics = { t = 1 } }, function(mock)
    fill(mock, "t", 0, 2)
    local consumer = consumer_of(mock, "g", { ["enable.partition.eof"] = true })
    assert(consumer:assign { { topic = "t", partition = 0, offset = 0 } })
    read(consumer, 2)
    assert.same({ kind = "eof", topic = "t", partition = 0, offset = 2 }, consumer:poll { timeout = 30 })
    consumer:close()
  end))

  it("reports brokers that cannot be reached", with_mock({}, function()
    local consumer = assert(kafka.consumer { properties = { ["group.id"] = "g", ["bootstrap.servers"] = "127.0.0.1:1" } })
    local codes = {}
    while not codes._ALL_BROKERS_DOWN do
      local event = assert(consumer:poll { timeout = 30 })
      assert.equal("error", event.kind)
      assert.is_false(event.fatal)
      codes[event.code] = event.message
    end
    assert.is_true(consumer:close { timeout = 30 })
  end))

  it("joins a group, lets the script answer, and leaves", with_mock({ topics = { t = 2 }, deadline = 120 }, function(mock)
    fill(mock, "t", 0, 1)
    local consumer = consumer_of(mock, "joining")
    assert(consumer:subscribe { "t" })
    local event = assert(consumer:poll { timeout = 60 })
    assert.equal("assign", event.kind)
    assert.equal("EAGER", event.protocol)
    assert.is_false(event.lost)
    assert.equal(2, #event.partitions)
    assert.equal("TIMEDOUT", select(3, consumer:poll { timeout = 0.3 })) -- nothing comes before the answer
    assert.same({}, consumer:assignment())
    assert(consumer:assign(event.partitions))
    assert.equal("v1", read(consumer, 1)[1].value)
    assert(consumer:commit({ { topic = "t", partition = 0, offset = 1 } }, { timeout = 30 }))
    assert(consumer:subscribe {})
    event = assert(consumer:poll { timeout = 30 })
    assert.equal("revoke", event.kind)
    assert.is_true(consumer:close { timeout = 20 }) -- the revocation is not answered: closing does
  end))

  it("closes within its deadline when the coordinator is gone", with_mock({ topics = { t = 1 } }, function(mock)
    local consumer = consumer_of(mock, "gone", { ["session.timeout.ms"] = 45000 })
    assert(consumer:subscribe { "t" })
    local joined = assert(consumer:poll { timeout = 60 })
    assert(consumer:assign(joined.partitions))
    mock:broker_down(1)
    local start = task.monotonic()
    consumer:close { timeout = 1 }
    assert(task.monotonic() - start < 20)
  end))
end)

describe("kafka doorbell", function()
  local function doorbell_of(mock)
    return consumer_of(mock, "doorbell", {
      ["auto.offset.reset"] = "error", ["fetch.message.max.bytes"] = 4096, ["isolation.level"] = "read_committed",
    })
  end

  it("rings for a record at or past the armed offset, once, and can be armed again", with_mock({ topics = { t = 3 } },
    function(mock)
      fill(mock, "t", 0, 5)
      local doorbell, admin = doorbell_of(mock), admin_of(mock)
      local list = { { topic = "t", partition = 0 }, { topic = "t", partition = 1 }, { topic = "t", partition = 2 } }
      local ends = assert(admin:offsets { partitions = list, timeout = 30 })
      assert.same({ 5, 0, 0 }, { ends[1].offset, ends[2].offset, ends[3].offset })
      assert(doorbell:incremental_assign(ends))
      assert.equal("TIMEDOUT", select(3, doorbell:poll { timeout = 0.1 }))
      for round = 1, 20 do
        local partition = round % 3
        local place = fill(mock, "t", partition, 3)[1]
        local event = assert(doorbell:poll { timeout = 30, max = 1 })
        assert.equal(partition, event.records[1].partition)
        assert.equal(place.offset, event.records[1].offset)
        local armed = { { topic = "t", partition = partition } }
        assert(doorbell:incremental_unassign(armed))
        local at = assert(admin:offsets { partitions = armed, timeout = 30 })
        assert.equal(place.offset + 3, at[1].offset)
        assert(doorbell:incremental_assign(at))
      end
      assert.equal("TIMEDOUT", select(3, doorbell:poll { timeout = 0.1 }))
      doorbell:close()
      admin:close()
    end))

  it("rings at once for a backlog", with_mock({ topics = { t = 1 } }, function(mock)
    fill(mock, "t", 0, 5)
    local doorbell = doorbell_of(mock)
    assert(doorbell:incremental_assign { { topic = "t", partition = 0, offset = 2 } })
    assert.equal(2, assert(doorbell:poll { timeout = 30, max = 1 }).records[1].offset)
    doorbell:close()
  end))

  it("rings with an error where the offset does not exist", with_mock({ topics = { t = 2 } }, function(mock)
    fill(mock, "t", 1, 2)
    local doorbell = doorbell_of(mock)
    assert(doorbell:incremental_assign { { topic = "t", partition = 1, offset = 100 } })
    local event = assert(doorbell:poll { timeout = 30 })
    assert.equal("error", event.kind)
    assert.equal("_AUTO_OFFSET_RESET", event.code)
    assert.equal("t", event.topic)
    assert.equal(1, event.partition)
    assert.is_false(event.fatal)
    assert(doorbell:incremental_unassign { { topic = "t", partition = 1 } })
    assert(doorbell:incremental_assign { { topic = "t", partition = 1, offset = 2 } })
    fill(mock, "t", 1, 1)
    assert.equal(2, assert(doorbell:poll { timeout = 30 }).records[1].offset)
    doorbell:close()
  end))
end)
