require "spec.helper"
local kafka = require "rouse.kafka"
local mocked = require "spec.mocked"
local task = require "rouse.task"

local with_mock, admin_of, fill = mocked.run, mocked.admin, mocked.fill

describe("kafka admin", function()
  local function partitions(topic, count)
    local list = {}
    for i = 1, count do
      list[i] = { topic = topic, partition = i - 1 }
    end
    return list
  end

  local many = { brokers = 3, topics = { a = 6, b = 6 } }
  it("asks for many offsets at once, in the order given", with_mock(many, function(mock)
    fill(mock, "a", 2, 3)
    fill(mock, "b", 5, 4)
    local admin = admin_of(mock)
    local list = partitions("b", 6)
    table.move(partitions("a", 6), 1, 6, 7, list)
    local ends = assert(admin:offsets { partitions = list, timeout = 30 })
    assert.equal(12, #ends)
    for i, item in ipairs(ends) do
      assert.same({ list[i].topic, list[i].partition }, { item.topic, item.partition })
      assert.is_nil(item.error)
      local expected = (i == 6 and 4) or (i == 9 and 3) or 0
      assert.equal(expected, item.offset)
    end
    local last = { { topic = "b", partition = 5 } }
    assert.equal(0, admin:offsets { partitions = last, at = "beginning", timeout = 30 }[1].offset)
    assert.same({}, admin:offsets { partitions = {}, timeout = 30 })
    admin:close()
  end))

  it("says which partitions do not exist", with_mock({ topics = { t = 1 } }, function(mock)
    local admin = admin_of(mock)
    local list = assert(admin:offsets {
      partitions = { { topic = "t", partition = 3 }, { topic = "t", partition = 0 } }, timeout = 30,
    })
    assert.same({ "UNKNOWN_TOPIC_OR_PART" }, { list[1].error, list[1].offset })
    assert.same({ topic = "t", partition = 0, offset = 0 }, list[2])
    admin:close()
  end))

  it("follows a leader that moved", with_mock({ brokers = 3, topics = { t = 3 } }, function(mock)
    local admin = admin_of(mock)
    fill(mock, "t", 0, 2)
    assert.equal(2, admin:offsets { partitions = partitions("t", 3), timeout = 30 }[1].offset)
    for broker = 1, 3 do
      mock:set_leader { topic = "t", partition = 0, broker = broker }
      local list = assert(admin:offsets { partitions = partitions("t", 3), timeout = 30 })
      assert.is_nil(list[1].error)
      assert.equal(2, list[1].offset)
    end
    admin:close()
  end))

  it("answers for the brokers that live", with_mock({ brokers = 3, topics = { t = 3 } }, function(mock)
    local admin = admin_of(mock)
    for partition = 0, 2 do
      mock:set_leader { topic = "t", partition = partition, broker = partition + 1 }
      fill(mock, "t", partition, partition + 1)
    end
    assert.equal(3, #admin:offsets { partitions = partitions("t", 3), timeout = 30 })
    mock:broker_down(2)
    for _ = 1, 2 do
      local list = assert(admin:offsets { partitions = partitions("t", 3), timeout = 2 })
      assert.same({ 1, 3 }, { list[1].offset, list[3].offset })
      assert.is_nil(list[2].offset)
      assert.is_string(list[2].error)
    end
    mock:broker_up(2)
    local deadline = task.monotonic() + 30
    local list
    repeat
      list = assert(admin:offsets { partitions = partitions("t", 3), timeout = 2 })
    until not list[2].error or task.monotonic() > deadline
    assert.equal(2, list[2].offset)
    admin:close()
  end))

  it("keeps a topic's error to the topic", with_mock({ topics = { a = 1, b = 1 } }, function(mock)
    local admin = admin_of(mock)
    fill(mock, "b", 0, 2)
    local list = { { topic = "a", partition = 0 }, { topic = "b", partition = 0 } }
    assert(admin:offsets { partitions = list, timeout = 30 })
    local refused = "TOPIC_AUTHORIZATION_FAILED"
    mock:fail { api = "ListOffsets", errors = { refused, refused, refused } } -- all at once, the leader's, the topic's
    local answer = assert(admin:offsets { partitions = list, timeout = 30 })
    assert.equal("TOPIC_AUTHORIZATION_FAILED", answer[1].error)
    assert.equal(2, answer[2].offset)
    admin:close()
  end))

  it("describes the cluster without creating topics", with_mock({ brokers = 2, topics = { t = 3 } }, function(mock)
    local admin = admin_of(mock)
    for _ = 1, 2 do
      local metadata = assert(admin:metadata { topics = { "t", "nowhere" }, timeout = 30 })
      assert.equal(2, #metadata.brokers)
      assert.equal("127.0.0.1", metadata.brokers[1].host)
      assert.equal(3, #metadata.topics.t.partitions)
      assert.is_number(metadata.topics.t.partitions[1].leader)
      assert.same({ partitions = {}, error = "UNKNOWN_TOPIC_OR_PART" }, metadata.topics.nowhere)
    end
    local all = assert(admin:metadata { timeout = 30 })
    assert.is_table(all.topics.t)
    assert.is_nil(all.topics.nowhere)
    admin:close()
  end))

  it("reads and sets a group's commits", with_mock({ topics = { t = 3 } }, function(mock)
    local admin = admin_of(mock)
    local list = { { topic = "t", partition = 0, offset = 5 }, { topic = "t", partition = 2, offset = 7, metadata = "m" } }
    local set = assert(admin:alter_group_offsets { group = "g", partitions = list, timeout = 30 })
    assert.is_nil(set[1].error)
    local got = assert(admin:group_offsets { group = "g", partitions = partitions("t", 3), timeout = 30 })
    local by_partition = {}
    for _, item in ipairs(got) do
      by_partition[item.partition] = item
    end
    assert.equal(5, by_partition[0].offset)
    assert.is_nil(by_partition[1].offset)
    assert.same({ topic = "t", partition = 2, offset = 7, metadata = "m" }, by_partition[2])
    local none = assert(admin:group_offsets { group = "unknown", partitions = partitions("t", 1), timeout = 30 })
    assert.same({ { topic = "t", partition = 0 } }, none)
    mock:fail { api = "OffsetFetch", errors = { "GROUP_AUTHORIZATION_FAILED" } }
    assert.equal("GROUP_AUTHORIZATION_FAILED",
      select(3, admin:group_offsets { group = "g", partitions = partitions("t", 1), timeout = 30 }))
    -- The one that made librdkafka write through a null pointer in a handle without a group.
    mock:fail { api = "OffsetFetch", errors = { "NOT_COORDINATOR" } }
    assert.equal("NOT_COORDINATOR",
      select(3, admin:group_offsets { group = "g", partitions = partitions("t", 1), timeout = 30 }))
    admin:close()
  end))

  it("gives up on time, and survives the late answer", with_mock({ topics = { t = 1 } }, function(mock)
    local admin = admin_of(mock)
    assert(admin:metadata { timeout = 30 })
    mock:rtt(1, 1)
    assert.equal("TIMEDOUT", select(3, admin:metadata { timeout = 0.2 }))
    local asking = task.spawn(function()
      return admin:group_offsets { group = "g", partitions = partitions("t", 1), timeout = 30 }
    end)
    local offsets = task.spawn(function()
      return admin:offsets { partitions = partitions("t", 1), timeout = 30 }
    end)
    task.sleep(0.1)
    asking:cancel()
    offsets:cancel()
    collectgarbage()
    task.sleep(0.1)
    mock:rtt(1, 0)
    assert(admin:metadata { timeout = 30 })
    assert.is_true(admin:close { timeout = 30 })
  end))

  it("reports its errors", with_mock({}, function()
    local admin = assert(kafka.admin { properties = { ["bootstrap.servers"] = "127.0.0.1:1" } })
    local failure = select(3, admin:metadata { timeout = 0.5 })
    assert(failure == "TIMEDOUT" or failure == "_TRANSPORT", failure)
    local codes = {}
    while not codes._ALL_BROKERS_DOWN do
      local event = assert(admin:poll { timeout = 30 })
      assert.equal("error", event.kind)
      codes[event.code] = true
    end
    local polling = task.spawn(function()
      while true do
        local event, _, code = admin:poll()
        if not event then
          return code
        end
      end
    end)
    task.sleep(0)
    admin:close()
    assert.equal("CLOSED", (polling:join { timeout = 30 }))
  end))
end)
