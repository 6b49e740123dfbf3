--- What only a real coordinator shows of the consumer: members that come and go, refused commits, kills, markers.
local copies = require "spec.kafka.copies"
local kafka = require "rouse.kafka"
local support = require "spec.kafka.support"

local index, system = copies.index, copies.source

-- Logs where each record is, `delay` seconds after it came.
local SLOW = [[
local log, task = require "rouse.log", require "rouse.task"
return {
  consume = {},
  handle = function(record)
    task.sleep(%s)
    log.info("record", { partition = record.partition, offset = record.offset })
    return "done"
  end,
}
]]

local function consume(scope, sut, env, delay)
  local path = scope:file("script", SLOW:format(delay or "0"))
  return copies.consume(scope, sut, path, support.merge({ IDLE_TIMEOUT = "1" }, env))
end

-- How often each record was handled, by "partition/offset", and how many there were in all.
local function handled(...)
  local times, count = {}, 0
  for _, process in ipairs { ... } do
    for partition, offset in process:text():gmatch('"partition":(%d+),"offset":(%d+)') do
      local id = partition .. "/" .. offset
      times[id] = (times[id] or 0) + 1
      count = count + 1
    end
  end
  return times, count
end

local function expect_all(times, partitions, count, most)
  for partition = 0, partitions - 1 do
    for offset = 0, count - 1 do
      local n = times[partition .. "/" .. offset] or 0
      assert.is_true(n >= 1, ("record %d/%d was lost"):format(partition, offset))
      assert.is_true(n <= (most or math.huge),
        ("record %d/%d was handled %d times"):format(partition, offset, n))
    end
  end
end

local function progress(process, count, seconds)
  support.wait(count .. " records", seconds or 30, function()
    local _, n = handled(process)
    return n >= count
  end)
end

-- Somebody else in the group; what it reads it commits.
local function foreigner(scope, sut)
  return scope:spawn {
    command = { "kcat", "-b", support.brokers, "-G", sut.group, "-X", "auto.offset.reset=earliest",
      "-X", "session.timeout.ms=6000", "-f", '"partition":%p,"offset":%o\n', "-u", sut.topic },
    name = "kcat",
  }
end

describe("a consumer in a group", function()
  for _, strategy in ipairs { "range", "cooperative-sticky" } do
    it("hands partitions over and loses no record: " .. strategy,
      support.scoped(function(scope)
        local sut = system(scope, 4, 2000)
        local env = { ROUSE_KAFKA = "security.protocol=plaintext;partition.assignment.strategy=" .. strategy,
          IDLE_TIMEOUT = "3" }
        local first = consume(scope, sut, env, "0.005")
        progress(first, 100)
        local second = consume(scope, sut, env, "0.005")
        progress(second, 100)
        assert.equal(0, (first:terminate()))
        assert.equal(0, (second:finish(60)))
        -- A commit that meets the end of a cooperative rebalance is refused, and librdkafka then
        -- takes the assignment for lost: what was not committed is handled again.
        local lost = (first:text() .. second:text()):find("partitions lost", 1, true)
        expect_all(handled(first, second), 4, 2000, not lost and 1 or nil)
        assert.equal(0, (scope:left(sut.group, sut.topic)))
      end))
  end

  it("commits what it handled when it is told to end", support.scoped(function(scope)
    local sut = system(scope, 2, 2000)
    local consumer = consume(scope, sut, nil, "0.001")
    progress(consumer, 300)
    assert.equal(0, (consumer:terminate()))
    local _, count = handled(consumer)
    local left = scope:left(sut.group, sut.topic)
    assert.equal(4000, left + count)
  end))

  it("is still a member after its exit with an instance_id, and goes on under it", support.scoped(function(scope)
    local sut = system(scope, 1, 5)
    local admin <close> = assert(kafka.admin { properties = { ["bootstrap.servers"] = support.brokers } })
    local path = scope:file("script.lua", SLOW:gsub("consume = {}", 'consume = { instance_id = "one" }'):format("0"))
    local function run()
      local consumer = scope:spawn { command = { support.rouse, "run", path }, name = "consumer",
        env = support.merge(support.kafka "plaintext", { KAFKA_TOPIC = sut.topic, CONSUMER_GROUP = sut.group,
          IDLE_TIMEOUT = "1" }) }
      assert.equal(0, (consumer:finish(30)))
      return consumer
    end
    local function members()
      return assert(admin:describe_groups { groups = { sut.group }, timeout = 10 })[sut.group].members
    end
    local first = run()
    local before = members()
    assert.equal(1, #before)
    scope:produce { topic = sut.topic, partitions = { 0 }, count = 5 }
    local second = run()
    assert.equal(1, #members())
    expect_all(handled(first, second), 1, 10, 1)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("exits 78 where the topic does not exist", support.scoped(function(scope)
    for _, env in ipairs { {}, index(0) } do
      local sut = { topic = support.name "missing", group = support.name "group" }
      local consumer = consume(scope, sut, env)
      assert.equal(78, (consumer:finish(30)))
      assert.truthy(consumer:text():find("topic does not exist", 1, true), consumer:text())
    end
  end))
end)

describe("a consumer by index", function()
  it("starts without the delay of a join", support.scoped(function(scope)
    local sut = system(scope, 4, 10)
    local consumer = consume(scope, sut, index(2))
    assert.equal(0, (consumer:finish(30)))
    local times, count = handled(consumer)
    assert.equal(10, count)
    assert.equal(1, times["2/9"])
    local _, rows = scope:left(sut.group, sut.topic)
    for _, row in ipairs(rows) do
      assert.equal(row.partition == 2 and 10 or -1, row.committed)
    end
  end))

  it("joins the group where somebody is in it already", support.scoped(function(scope)
    local sut = system(scope, 2)
    local other = foreigner(scope, sut)
    support.wait("the other member", 30, function()
      return other:text():find("assigned", 1, true)
    end)
    local consumer = consume(scope, sut, index(0), "0")
    support.wait("the join", 30, function()
      return consumer:text():find("joining the group", 1, true)
        and consumer:text():find("partitions assigned", 1, true)
    end)
    scope:produce { topic = sut.topic, partitions = { 0, 1 }, count = 20 }
    assert.equal(0, (consumer:finish(60)))
    other:terminate()
    expect_all(handled(consumer, other), 2, 20)
  end))

  -- The way back: what is handled twice lies between the commit at which the index was given up and what had been
  -- handled by then.
  local function expect_explained(consumer, ...)
    local text = consumer:text()
    local line = text:match '[^\n]*"partition given up, joining the group"[^\n]*'
    local committed = tonumber(line:match '"committed":(%d+)')
    local reached = -1
    for offset in text:sub(1, text:find(line, 1, true)):gmatch '"partition":0,"offset":(%d+)' do
      reached = tonumber(offset)
    end
    for id, times in pairs((handled(consumer, ...))) do
      local partition, offset = id:match "(%d+)/(%d+)"
      -- the record that was in hand is logged after the line
      local explained = partition == "0" and tonumber(offset) >= committed and tonumber(offset) <= reached + 1
      assert.is_true(times == 1 or (explained and times == 2), ("%s was handled %d times, committed %d, reached %d")
        :format(id, times, committed, reached))
    end
  end

  it("goes on as a member where somebody joins in the middle and leaves again", support.scoped(function(scope)
    local sut = system(scope, 2, 1500)
    local consumer = consume(scope, sut, support.merge(index(0), { IDLE_TIMEOUT = "3" }), "0.002")
    progress(consumer, 300)
    local stop = scope:feed { topic = sut.topic, partitions = sut.partitions, count = 50 }
    local other = foreigner(scope, sut)
    support.wait("the join", 60, function()
      return consumer:text():find("partition given up, joining the group", 1, true)
        and consumer:text():find("partitions assigned", 1, true)
    end)
    local count = 1500 + stop() + 200
    -- both are members: each has its share, none of it twice
    scope:produce { topic = sut.topic, partitions = sut.partitions, count = 200 }
    support.wait("both to work", 60, function() return select(2, handled(consumer, other)) >= 2 * count end)
    assert.equal(0, (other:terminate()))
    scope:produce { topic = sut.topic, partitions = sut.partitions, count = 100 }
    assert.equal(0, (consumer:finish(60)))
    expect_all(handled(consumer, other), 2, count + 100, 2)
    expect_explained(consumer, other)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
    assert.truthy(consumer:text():find('"reason":"idle"', 1, true), consumer:text())
  end))

  it("notices who came and left between two of its commits", support.scoped(function(scope)
    local sut = system(scope, 1, 1500)
    local consumer = consume(scope, sut, index(0), "0.002")
    progress(consumer, 200)
    local stop = scope:feed { topic = sut.topic, partitions = { 0 }, count = 50 }
    local other = scope:spawn {
      command = { "kcat", "-b", support.brokers, "-G", sut.group, "-c", "50", "-X", "auto.offset.reset=earliest",
        "-f", '"partition":%p,"offset":%o\n', "-u", sut.topic },
      name = "kcat",
    }
    assert.equal(0, (other:finish(60)))
    local count = 1500 + stop()
    assert.equal(0, (consumer:finish(60)))
    expect_all(handled(consumer, other), 1, count, 2)
    expect_explained(consumer, other)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("goes on from its commit after a kill", support.scoped(function(scope)
    local sut = system(scope, 1, 3000)
    local all, committed = {}, 0
    for round = 1, 3 do
      local consumer = consume(scope, sut, index(0), "0.001")
      all[round] = consumer
      progress(consumer, 500)
      consumer.child:kill("KILL")
      consumer:finish()
      for id in pairs((handled(consumer))) do
        assert.is_true(tonumber(id:match("/(%d+)")) >= committed, id .. " was committed already")
      end
      local _, rows = scope:left(sut.group, sut.topic)
      committed = math.max(0, rows[1].committed)
    end
    all[4] = consume(scope, sut, index(0), "0")
    assert.equal(0, (all[4]:finish(60)))
    expect_all(handled(table.unpack(all)), 1, 3000)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("leaves to the other where two have one index", support.scoped(function(scope)
    local sut = system(scope, 1, 2000)
    local first = consume(scope, sut, index(0, "run-1"), "0.002")
    progress(first, 200)
    local stop = scope:feed { topic = sut.topic, partitions = { 0 }, count = 50 }
    local second = consume(scope, sut, index(0, "run-2"), "0.002")
    assert.equal(0, (first:finish(60)))
    local count = 2000 + stop()
    assert.truthy(first:text():find("run 'run-2' has taken the partition", 1, true), first:text())
    assert.equal(0, (second:finish(60)))
    expect_all(handled(first, second), 1, count, 2)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("exits when only markers are left, and is not kept busy by them", support.scoped(function(scope)
    local sut = system(scope, 1)
    local transact = scope:transactor(sut.topic, 0)
    for _, ending in ipairs { "commit", "abort" } do
      transact "begin"
      transact "put a"
      transact "put b"
      transact "flush"
      transact(ending)
    end
    local first = consume(scope, sut, index(0))
    assert.equal(0, (first:finish(30)))
    local _, count = handled(first)
    assert.equal(2, count)
    local second = consume(scope, sut, index(0))
    assert.equal(0, (second:finish(30)))
    _, count = handled(second)
    assert.equal(0, count)
  end))

  it("goes on after the broker was restarted", support.scoped(function(scope)
    local sut = system(scope, 1, 2000)
    local consumer = consume(scope, sut, index(0), "0.002")
    progress(consumer, 300)
    scope:restart_broker()
    assert.equal(0, (consumer:finish(90)))
    expect_all(handled(consumer), 1, 2000, 1)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end, 180))
end)
