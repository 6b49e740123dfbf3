require "spec.helper"
local consumer = require "rouse.consumer"
local fake = require "spec.consumer.fake"
local task = require "rouse.task"

local DEADLINE = 60

local function environment(more)
  local env = { KAFKA_TOPIC = "payments", CONSUMER_GROUP = "payments-group", IDLE_TIMEOUT = "0",
    ROUSE_KAFKA = "security.protocol=plaintext;bootstrap.servers=localhost:1" }
  for name, value in pairs(more or {}) do env[name] = value or nil end
  return env
end

local function by_index(more)
  local env = environment { ROUSE_ASSIGN = "index", JOB_INDEX = "0", CE_JOBRUN = "run-7" }
  for name, value in pairs(more or {}) do env[name] = value end
  return env
end

-- Runs a script against a fake cluster to its end; `during` runs beside it.
local function run(cluster, script, env, during, options)
  local log, signals = fake.log(), fake.signals()
  script.consume = script.consume or {}
  script.consume.retry = script.consume.retry or { first = 0.001, max = 0.001, tries = 3 }
  options = options or {}
  local exit
  task.run(function()
    local deadline = task.spawn(function()
      task.sleep(DEADLINE)
      error(("the consumer did not end in %d s"):format(DEADLINE))
    end)
    local kafka = cluster:module()
    local beside = during and task.spawn(during, signals, log)
    exit = consumer.run {
      script = script, env = env, signals = signals, kafka = kafka, log = log,
      drain = options.drain, commit_interval = options.commit_interval, collector = options.collector,
    }
    if beside then beside:cancel() end
    deadline:cancel()
  end)
  return exit, log
end

local function await(cond)
  local deadline = task.monotonic() + DEADLINE / 2
  while not cond() do
    assert(task.monotonic() < deadline, "what was waited for did not happen")
    task.sleep(0.001)
  end
end

local function done() return "done" end

-- A group's first assignment, as the coordinator would send it.
local function join(cluster, protocol)
  cluster.events = {}
  cluster.on_subscribe = function(topics)
    local list = {}
    for _, topic in ipairs(topics) do
      for number = 0, #cluster.logs[topic] do
        list[#list + 1] = { topic = topic, partition = number }
      end
    end
    cluster:event { kind = "assign", partitions = list, protocol = protocol or "EAGER" }
  end
end

describe("consumer", function()
  it("drains its partitions as a member, commits, leaves, exits 0", function()
    local cluster = fake.new { payments = 2 }
    join(cluster)
    cluster:produce("payments", 0, 1200)
    cluster:produce("payments", 1, 3)
    local seen = {}
    local exit, log = run(cluster, {
      handle = function(record)
        seen[record.partition] = (seen[record.partition] or 0) + 1
        assert(record.offset == seen[record.partition] - 1)
        return "done"
      end,
    }, environment())
    assert.equal(0, exit)
    assert.same({ [0] = 1200, [1] = 3 }, seen)
    assert.equal(1200, cluster:committed_offset("payments", 0))
    assert.equal(3, cluster:committed_offset("payments", 1))
    assert.same({ "consumer", "admin" }, cluster.closed)
    assert.same({ "payments" }, cluster.subscribed)
    assert.is_truthy(log.find "consuming")
  end)

  it("tells the collector of all records, and that it may look when hardly one waits", function()
    local cluster = fake.new { payments = 2 }
    join(cluster)
    cluster:produce("payments", 0, 1200)
    cluster:produce("payments", 1, 3)
    local noted, handled, looks = 0, 0, 0
    local exit = run(cluster, {
      handle = function(record)
        if record.offset == 700 then task.sleep(0.05) end
        handled = handled + 1
        return "done"
      end,
    }, environment { IDLE_TIMEOUT = "0.2" }, function()
      await(function() return handled == 1203 end)
      cluster:produce("payments", 1, 2)
    end, { collector = {
      note = function(_, count, bytes)
        noted = noted + count
        assert(bytes > 0)
      end,
      tidy = function()
        looks = looks + 1
        assert(noted - handled <= 32, noted - handled)
      end,
    } })
    assert.equal(0, exit)
    assert.equal(1205, noted)
    assert.is_true(looks > 0)
  end)

  it("asks for as many records at once as half of what may wait for a partition", function()
    for partitions, expected in pairs { [1] = 2000, [16] = 512, [64] = 500 } do
      local cluster = fake.new { payments = partitions }
      join(cluster)
      assert.equal(0, (run(cluster, { handle = done }, environment())))
      assert.equal(expected, cluster.polled)
    end
  end)

  it("takes the partition of its index without joining, and claims it first", function()
    local cluster = fake.new { payments = 4 }
    cluster:produce("payments", 3, 10)
    cluster.commits["payments/3"] = { offset = 4 }
    local first
    local exit = run(cluster, {
      handle = function(record)
        first = first or record.offset
        return "done"
      end,
    }, by_index { JOB_INDEX = "3" })
    assert.equal(0, exit)
    assert.is_nil(cluster.subscribed)
    assert.equal(4, first)
    assert.same({ "payments/3@4", "payments/3@10" }, cluster.history)
    assert.equal("run-7", cluster.commits["payments/3"].metadata)
  end)

  it("starts an uncommitted index at the reset policy's offset", function()
    for reset, expected in pairs { earliest = 10, latest = 0 } do
      local cluster = fake.new { payments = 1 }
      cluster:produce("payments", 0, 10)
      local count = 0
      local exit = run(cluster, {
        handle = function()
          count = count + 1
          return "done"
        end,
      }, by_index { ROUSE_RESET = reset })
      assert.equal(0, exit)
      assert.equal(expected, count)
      assert.equal(10, cluster:committed_offset("payments", 0))
    end
  end)

  it("joins the group where its claim is refused", function()
    local cluster = fake.new { payments = 1 }
    join(cluster)
    cluster:produce("payments", 0, 5)
    cluster:fail("commit", "UNKNOWN_MEMBER_ID")
    local exit, log = run(cluster, { handle = done }, by_index())
    assert.equal(0, exit)
    assert.same({ "payments" }, cluster.subscribed)
    assert.same({ "payments/0@5" }, cluster.history)
    assert.is_truthy(log.find "joining the group")
  end)

  it("joins the group without JOB_INDEX", function()
    local cluster = fake.new { payments = 1 }
    join(cluster)
    cluster:produce("payments", 0, 5)
    local env = by_index()
    env.JOB_INDEX = nil
    local exit, log = run(cluster, { handle = done }, env)
    assert.equal(0, exit)
    assert.equal(5, cluster:committed_offset("payments", 0))
    assert.equal("JOB_INDEX is not set", log.find("consuming").fields.reason)
  end)

  it("exits 78 for an index beyond the partitions, with nothing committed", function()
    local cluster = fake.new { payments = 2 }
    local exit, log = run(cluster, { handle = done }, by_index { JOB_INDEX = "2" })
    assert.equal(78, exit)
    assert.is_truthy(log.find "JOB_INDEX is 2, but topic payments has 2 partitions")
    assert.same({}, cluster.history)
  end)

  it("takes a partition that its broker hears of a moment later", function()
    local cluster = fake.new { payments = 2 }
    local exit, log = run(cluster, { handle = done }, by_index { JOB_INDEX = "2" }, function()
      await(function() return cluster.calls.metadata end)
      cluster.logs.payments[2] = { next = 0, records = {} }
      cluster:produce("payments", 2, 4)
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(4, cluster:committed_offset("payments", 2))
    assert.is_truthy(log.find "partition not there yet")
  end)

  it("stops where another run has taken its partition", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 3)
    local exit, log = run(cluster, {
      handle = function(record)
        if record.offset == 1 then
          cluster.commits["payments/0"] = { offset = 1, metadata = "run-8" }
        end
        return "done"
      end,
    }, by_index())
    assert.equal(0, exit)
    assert.same({ offset = 1, metadata = "run-8" }, cluster.commits["payments/0"])
    assert.equal("TAKEN", log.find("partition given up").fields.code)
  end)

  -- What the group's coordinator gives to who joins: partition 0.
  local function as_member(cluster)
    cluster.on_subscribe = function()
      cluster:event { kind = "assign", protocol = "EAGER",
        partitions = { { topic = "payments", partition = 0 } } }
    end
  end

  it("becomes a member where somebody joins in the middle, and goes on at the group's commit", function()
    local cluster = fake.new { payments = 1 }
    as_member(cluster)
    cluster:produce("payments", 0, 200)
    local seen, refused_at = {}, nil
    local exit, log = run(cluster, {
      handle = function(record)
        if record.offset == 50 and not refused_at then
          refused_at = #seen
          cluster:fail("commit", "UNKNOWN_MEMBER_ID")
          await(function() return cluster.faults.commit.times == 0 end)
          -- the other one has consumed a bit and left
          cluster.commits["payments/0"] = { offset = 60, metadata = "" }
        end
        seen[#seen + 1] = record.offset
        return "done"
      end,
    }, by_index(), nil, { commit_interval = 0.01 })
    assert.equal(0, exit)
    assert.same({ "payments" }, cluster.subscribed)
    assert.is_false(cluster.held)
    -- the record under way ended, none was begun after it
    assert.equal(50, seen[refused_at + 1])
    assert.equal(60, seen[refused_at + 2])
    assert.equal(51 + 140, #seen)
    assert.equal(200, cluster:committed_offset("payments", 0))
    local fields = log.find("partition given up, joining the group").fields
    assert.equal(0, fields.partition)
    assert.equal(tonumber(cluster.history[#cluster.history - 1]:match "@(%d+)"), fields.committed)
    assert.equal("idle", log.find("ending").fields.reason)
  end)

  for what, case in pairs {
    ["a member came, committed and left between two commits"] = function(cluster)
      cluster.commits["payments/0"] = { offset = 3, metadata = "" }
    end,
    ["the run's commit is gone"] = function(cluster) cluster.commits["payments/0"] = nil end,
  } do
    it("joins the group where " .. what, function()
      local cluster = fake.new { payments = 1 }
      as_member(cluster)
      cluster:produce("payments", 0, 10)
      local exit, log = run(cluster, {
        handle = function(record)
          if record.offset == 9 and not cluster.subscribed then case(cluster) end
          return "done"
        end,
      }, by_index(), nil, { commit_interval = 60 })
      assert.equal(0, exit)
      assert.same({ "payments" }, cluster.subscribed)
      assert.equal(10, cluster:committed_offset("payments", 0))
      assert.is_truthy(log.find "joining the group")
    end)
  end

  it("leaves to an instance of the same index and run that is ahead", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 10)
    local exit, log = run(cluster, {
      handle = function(record)
        if record.offset == 4 then cluster.commits["payments/0"] = { offset = 8, metadata = "run-7" } end
        return "done"
      end,
    }, by_index(), nil, { commit_interval = 60 })
    assert.equal(0, exit)
    assert.is_nil(cluster.subscribed)
    assert.same({ offset = 8, metadata = "run-7" }, cluster.commits["payments/0"])
    assert.equal("TAKEN", log.find("partition given up").fields.code)
  end)

  it("does not join when it is told to end while it loses its index", function()
    local cluster = fake.new { payments = 1 }
    as_member(cluster)
    cluster:produce("payments", 0, 10)
    local entered = 0
    local exit, log = run(cluster, {
      handle = function()
        entered = entered + 1
        task.sleep(0.02)
        return "done"
      end,
    }, by_index { IDLE_TIMEOUT = "3600" }, function(signals)
      await(function() return entered == 2 end)
      cluster:fail("commit", "UNKNOWN_MEMBER_ID")
      signals.send "TERM"
      task.sleep(DEADLINE)
    end, { commit_interval = 60 })
    assert.equal(0, exit)
    assert.is_nil(cluster.subscribed)
    assert.equal(0, cluster:committed_offset("payments", 0))
    assert.equal("REFUSED", log.find("partition given up").fields.code)
  end)

  it("knows its own commit again when the answer was lost", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 3)
    local exit = run(cluster, {
      handle = function(record)
        if record.offset == 1 then cluster:fail("commit", "LOST") end
        return "done"
      end,
    }, by_index())
    assert.equal(0, exit)
    assert.equal(3, cluster:committed_offset("payments", 0))
  end)

  for way, env in pairs { index = by_index, group = environment } do
    it("tries a commit again that no broker has taken, by " .. way, function()
      local cluster = fake.new { payments = 1 }
      if way == "group" then join(cluster) end
      cluster:produce("payments", 0, 30)
      local exit, log = run(cluster, {
        handle = function(record)
          if record.offset == 10 then
            cluster:fail("commit", "_TRANSPORT", 3)
            await(function() return cluster.faults.commit.times == 0 end)
            await(function() return cluster:committed_offset("payments", 0) == 10 end)
          end
          return "done"
        end,
      }, env(), nil, { commit_interval = 0.01 })
      assert.equal(0, exit)
      assert.equal(30, cluster:committed_offset("payments", 0))
      assert.equal("refused", log.find("commit failed, trying again").fields.reason)
      assert.is_nil(log.find "partition given up")
    end)
  end

  it("looks at the end offsets before it leaves", function()
    local cluster = fake.new { payments = 1 }
    local count, looked = 0, false
    cluster:produce("payments", 0, 1)
    local module = cluster.module
    cluster.module = function(self)
      local kafka = module(self)
      local open = kafka.admin
      kafka.admin = function(options)
        local admin = open(options)
        local offsets = getmetatable(admin).__index.offsets
        admin.offsets = function(this, how)
          if how.at == "end" and not looked then
            looked = true
            -- a record arrives in the very moment of leaving
            cluster.logs.payments[0].records[2] = { topic = "payments", partition = 0, offset = 1 }
            cluster.logs.payments[0].next = 2
          end
          return offsets(this, how)
        end
        return admin
      end
      return kafka
    end
    local exit = run(cluster, {
      handle = function()
        count = count + 1
        return "done"
      end,
    }, by_index(), function()
      await(function() return looked end)
      cluster.wake:set()
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(2, count)
    assert.equal(2, cluster:committed_offset("payments", 0))
  end)

  it("does not wait for a transaction's marker at the end", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 2)
    cluster:mark("payments", 0)
    assert.equal(0, (run(cluster, { handle = done }, by_index())))
    assert.equal(2, cluster:committed_offset("payments", 0))
  end)

  it("stays while the last look fails", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 2)
    cluster:fail("offsets", "_TIMED_OUT", 2)
    local exit = run(cluster, { handle = done }, by_index { ROUSE_RESET = "earliest" })
    assert.equal(0, exit)
    assert.is_true(cluster.calls.offsets >= 3)
    assert.equal(2, cluster:committed_offset("payments", 0))
  end)

  it("ends when its topic was deleted meanwhile", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 2)
    local exit = run(cluster, {
      handle = function(record)
        cluster.deleted = record.offset == 1
        return "done"
      end,
    }, by_index())
    assert.equal(0, exit)
    assert.is_true(cluster.calls.offsets >= 20)
  end)

  it("parks a partition, goes on with the others, exits 65", function()
    for mode, expected in pairs { task = 65, daemon = 0 } do
      local cluster = fake.new { payments = 2 }
      join(cluster)
      cluster:produce("payments", 0, 10)
      cluster:produce("payments", 1, 10)
      local exit, log = run(cluster, {
        handle = function(record)
          if record.partition == 0 and record.offset == 4 then error("cannot") end
          return "done"
        end,
      }, environment { JOB_MODE = mode })
      assert.equal(expected, exit)
      assert.equal(4, cluster:committed_offset("payments", 0))
      assert.equal(10, cluster:committed_offset("payments", 1))
      local line = log.find "partition parked"
      assert.equal("error", line.level)
      assert.equal(4, line.fields.offset)
    end
  end)

  it("ends at once when every partition is parked", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 10)
    local exit = run(cluster, { handle = function() return "dead", "no" end },
      by_index { IDLE_TIMEOUT = "3600" })
    assert.equal(65, exit)
    assert.equal(0, cluster:committed_offset("payments", 0))
  end)

  it("writes dead letters and finishes their records", function()
    local cluster = fake.new { payments = 1, ["payments-dead"] = 1 }
    cluster:produce("payments", 0, 3)
    cluster:fail("produce", "NOT_ENOUGH_REPLICAS", 1)
    local exit = run(cluster, {
      consume = { dead = "payments-dead" },
      handle = function(record)
        if record.offset == 1 then return "dead", "poison" end
        return "done"
      end,
    }, by_index())
    assert.equal(0, exit)
    assert.equal(3, cluster:committed_offset("payments", 0))
    assert.equal(1, #cluster.letters)
    assert.equal("payments-dead", cluster.letters[1].topic)
    assert.equal("v1", cluster.letters[1].value)
    assert.same({ "producer", "consumer", "admin" }, cluster.closed)
  end)

  it("does not let a slow handler hold up other partitions, and pauses behind it", function()
    local cluster = fake.new { payments = 2 }
    join(cluster)
    cluster:produce("payments", 0, 40000)
    cluster:produce("payments", 1, 100)
    local gate, others = task.event(), 0
    local most = 0
    local exit = run(cluster, {
      handle = function(record)
        if record.partition == 0 and record.offset == 0 then gate:wait() end
        if record.partition == 1 then others = others + 1 end
        return "done"
      end,
    }, environment(), function()
      await(function() return others == 100 and (cluster.pauses or 0) > 0 end)
      most = others
      gate:set()
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(100, most)
    assert.equal(40000, cluster:committed_offset("payments", 0))
  end)

  it("handles different keys at once with parallel, through a rebalance and a drain", function()
    local cluster = fake.new { payments = 2 }
    join(cluster)
    for i = 0, 199 do
      cluster:produce("payments", i % 2, 1)
      local list = cluster.logs.payments[i % 2].records
      list[#list].key = "k" .. (i // 2 % 10)
    end
    local now, most, times, gate = 0, 0, {}, task.event()
    local exit = run(cluster, {
      consume = { parallel = 5 },
      handle = function(record, ctx)
        now = now + 1
        most = math.max(most, now)
        if record.partition == 0 and record.offset == 3 then gate:wait() end
        task.sleep(0)
        now = now - 1
        if record.offset % 40 == 7 and ctx.attempt == 1 then return "retry", "once" end
        local id = record.partition .. "/" .. record.offset
        times[id] = (times[id] or 0) + 1
        return "done"
      end,
    }, environment { IDLE_TIMEOUT = "0.1" }, function(signals)
      await(function() return times["0/90"] and times["1/99"] end)
      -- what is finished ahead of an unfinished record is not committed
      cluster:event { kind = "revoke", partitions = { { topic = "payments", partition = 0 } },
        protocol = "COOPERATIVE", lost = false }
      gate:set()
      await(function() return cluster:committed_offset("payments", 0) end)
      assert.is_true(cluster:committed_offset("payments", 0) >= 4)
      cluster:event { kind = "assign", partitions = { { topic = "payments", partition = 0 } },
        protocol = "COOPERATIVE" }
      await(function() return cluster:committed_offset("payments", 0) == 100 end)
      signals.send "TERM"
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(10, most)
    for number = 0, 1 do
      assert.equal(100, cluster:committed_offset("payments", number))
      for offset = 0, 99 do assert.is_true((times[number .. "/" .. offset] or 0) >= 1) end
    end
  end)

  it("commits while it works, and never beyond what is finished", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 6)
    local exit = run(cluster, {
      handle = function(record)
        if record.offset == 3 then
          await(function() return cluster:committed_offset("payments", 0) == 3 end)
        end
        return "done"
      end,
    }, by_index(), nil, { commit_interval = 0.01 })
    assert.equal(0, exit)
    assert.equal(6, cluster:committed_offset("payments", 0))
  end)

  for _, protocol in ipairs { "EAGER", "COOPERATIVE" } do
    it("drains and commits a revoked partition before giving it back: " .. protocol, function()
      local cluster = fake.new { payments = 2 }
      join(cluster, protocol)
      cluster:produce("payments", 0, 3)
      cluster:produce("payments", 1, 3)
      local gate, entered, at_revoke = task.event(), false, nil
      local exit = run(cluster, {
        handle = function(record)
          if record.partition == 0 and record.offset == 1 then
            entered = true
            gate:wait()
          end
          return "done"
        end,
      }, environment(), function()
        await(function() return entered end)
        local list = { { topic = "payments", partition = 0 } }
        if protocol == "EAGER" then list[2] = { topic = "payments", partition = 1 } end
        cluster:event { kind = "revoke", partitions = list, protocol = protocol, lost = false }
        task.sleep(0.05)
        gate:set()
        await(function() return cluster:committed_offset("payments", 0) end)
        at_revoke = cluster:committed_offset("payments", 0)
        cluster:event { kind = "assign", protocol = protocol,
          partitions = protocol == "EAGER" and { { topic = "payments", partition = 1 } } or {} }
        task.sleep(DEADLINE)
      end)
      assert.equal(0, exit)
      assert.equal(2, at_revoke)
      assert.equal(2, cluster:committed_offset("payments", 0))
      assert.equal(3, cluster:committed_offset("payments", 1))
    end)
  end

  it("commits nothing for a lost partition and handles no more of it", function()
    local cluster = fake.new { payments = 1 }
    join(cluster)
    cluster:produce("payments", 0, 5)
    local seen = 0
    local exit = run(cluster, {
      handle = function()
        seen = seen + 1
        if seen == 2 then task.sleep(60) end
        return "done"
      end,
    }, environment { IDLE_TIMEOUT = "0.05" }, function()
      await(function() return seen == 2 end)
      cluster:event { kind = "revoke", partitions = { { topic = "payments", partition = 0 } },
        protocol = "EAGER", lost = true }
      cluster:event { kind = "assign", partitions = {}, protocol = "EAGER" }
      task.sleep(DEADLINE)
    end, { commit_interval = 60 })
    assert.equal(0, exit)
    assert.equal(2, seen)
    assert.same({}, cluster.history)
  end)

  it("does not take the middle of a rebalance for idleness", function()
    local cluster = fake.new { payments = 1 }
    join(cluster)
    cluster:produce("payments", 0, 3)
    local seen, gate = 0, task.event()
    local exit = run(cluster, {
      handle = function()
        seen = seen + 1
        if seen == 3 then gate:wait() end
        return "done"
      end,
    }, environment { IDLE_TIMEOUT = "0.02" }, function()
      await(function() return seen == 3 end)
      local mine = { { topic = "payments", partition = 0 } }
      cluster:event { kind = "revoke", partitions = mine, protocol = "EAGER", lost = false }
      gate:set()
      await(function() return cluster:committed_offset("payments", 0) == 3 end)
      cluster:produce("payments", 0, 2)
      task.sleep(0.3) -- the others take their time
      cluster:event { kind = "assign", partitions = mine, protocol = "EAGER" }
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(5, seen)
    assert.equal(5, cluster:committed_offset("payments", 0))
  end)

  it("waits for its share where a cooperative rebalance has given it nothing yet", function()
    local cluster = fake.new { payments = 1 }
    cluster.events = {}
    cluster:produce("payments", 0, 3)
    cluster.on_subscribe = function()
      cluster:event { kind = "assign", partitions = {}, protocol = "COOPERATIVE" }
    end
    local exit = run(cluster, { handle = done }, environment(), function()
      await(function() return cluster.subscribed end)
      task.sleep(0.2) -- the other one gives it back
      cluster:event { kind = "assign", partitions = { { topic = "payments", partition = 0 } },
        protocol = "COOPERATIVE" }
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(3, cluster:committed_offset("payments", 0))
  end)

  it("gives handlers of revoked partitions less than the group waits for its members", function()
    local cluster = fake.new { payments = 1 }
    join(cluster)
    cluster:produce("payments", 0, 5)
    local seen, mine = 0, { { topic = "payments", partition = 0 } }
    local exit, log = run(cluster, {
      handle = function()
        seen = seen + 1
        if seen == 3 then task.sleep(60) end
        return "done"
      end,
    }, environment {
      ROUSE_KAFKA = "security.protocol=plaintext;bootstrap.servers=localhost:1;max.poll.interval.ms=200",
    }, function()
      await(function() return seen == 3 end)
      cluster:event { kind = "revoke", partitions = mine, protocol = "EAGER", lost = false }
      cluster:event { kind = "assign", partitions = mine, protocol = "EAGER" }
      task.sleep(DEADLINE)
    end, { commit_interval = 60 })
    assert.equal(0, exit)
    assert.equal(0.1, log.find("handler stopped in the middle").fields.waited)
    assert.same({ "payments/0@2", "payments/0@5" }, cluster.history)
    assert.equal(2 + 1 + 3, seen)
  end)

  for _, code in ipairs { "REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID" } do
    it("goes on after a commit that the group refuses with " .. code, function()
      local cluster = fake.new { payments = 1 }
      join(cluster)
      cluster:produce("payments", 0, 5)
      cluster:fail("commit", code, 2)
      local exit, log = run(cluster, { handle = done }, environment())
      assert.equal(0, exit)
      assert.equal(5, cluster:committed_offset("payments", 0))
      assert.equal("info", log.find("commit refused").level)
      -- the last one, of a consumer that is told to end
      cluster = fake.new { payments = 1 }
      join(cluster)
      cluster:produce("payments", 0, 5)
      local seen = 0
      exit = run(cluster, {
        handle = function()
          seen = seen + 1
          return "done"
        end,
      }, environment { IDLE_TIMEOUT = "3600" }, function(signals)
        await(function() return seen == 5 end)
        cluster:fail("commit", code, 2)
        signals.send "TERM"
        task.sleep(DEADLINE)
      end, { commit_interval = 60 })
      assert.equal(0, exit)
      assert.equal(5, cluster:committed_offset("payments", 0))
    end)
  end

  it("lets running handlers end on SIGTERM, commits, exits 0", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 5)
    local entered, finished, gate = 0, 0, task.event()
    local exit, log = run(cluster, {
      handle = function(record)
        entered = entered + 1
        if record.offset == 1 then gate:wait() end
        finished = finished + 1
        return "done"
      end,
    }, by_index { IDLE_TIMEOUT = "3600" }, function(signals, log)
      await(function() return entered == 2 end)
      signals.send "TERM"
      await(function() return log.find "ending" end)
      gate:set()
      task.sleep(DEADLINE)
    end)
    assert.equal(0, exit)
    assert.equal(2, entered)
    assert.equal(2, finished)
    assert.equal(2, cluster:committed_offset("payments", 0))
    assert.equal("TERM", log.find("ending").fields.reason)
  end)

  it("exits 75 when a handler does not end within the drain deadline", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 5)
    local entered = 0
    local exit = run(cluster, {
      handle = function(record)
        entered = entered + 1
        if record.offset == 2 then task.sleep(3600) end
        return "done"
      end,
    }, by_index { IDLE_TIMEOUT = "3600" }, function(signals)
      await(function() return entered == 3 end)
      signals.send "TERM"
      task.sleep(DEADLINE)
    end, { drain = 0.1 })
    assert.equal(75, exit)
    assert.equal(2, cluster:committed_offset("payments", 0))
  end)

  it("counts down while handlers end", function()
    local cluster = fake.new { payments = 2 }
    join(cluster)
    cluster:produce("payments", 0, 5)
    cluster:produce("payments", 1, 5)
    local gate, entered = task.event(), 0
    local exit, log = run(cluster, {
      consume = { parallel = 3 },
      handle = function()
        entered = entered + 1
        gate:wait()
        return "done"
      end,
    }, environment { IDLE_TIMEOUT = "3600" }, function(signals, log)
      await(function() return entered == 6 end)
      signals.send "TERM"
      await(function() return log.find "draining" end)
      gate:set()
      task.sleep(DEADLINE)
    end, { drain = 9 })
    assert.equal(0, exit)
    assert.same({ records = 6, partitions = 2, seconds = 9 },
      log.find("draining: 6 records in hand on 2 partitions, 9 s left").fields)
    assert.equal(3, cluster:committed_offset("payments", 0))
  end)

  it("ends at once, without a commit, on the second signal", function()
    local cluster = fake.new { payments = 1 }
    cluster:produce("payments", 0, 5)
    local entered = 0
    local exit = run(cluster, {
      handle = function(record)
        entered = entered + 1
        if record.offset == 2 then task.sleep(3600) end
        return "done"
      end,
    }, by_index { IDLE_TIMEOUT = "3600" }, function(signals)
      await(function() return entered == 3 end)
      signals.send "TERM"
      task.sleep(0.01)
      signals.send "INT"
      task.sleep(DEADLINE)
    end, { commit_interval = 60 })
    assert.equal(130, exit)
    assert.equal(0, cluster:committed_offset("payments", 0))
  end)

  describe("at a faulty start", function()
    it("exits 77 when the credentials are refused, without the secret", function()
      local cluster = fake.new { payments = 1 }
      cluster:fail("metadata", "_TRANSPORT", 1000)
      local env = by_index { ROUSE_KAFKA = "bootstrap.servers=localhost:1",
        MESSAGEHUB_USER = "token", MESSAGEHUB_PASSWORD = "hush-hush" }
      local exit, log = run(cluster, { handle = done }, env, function()
        cluster:event { kind = "error", code = "_AUTHENTICATION", message = "Invalid credentials" }
        task.sleep(DEADLINE)
      end)
      assert.equal(77, exit)
      local line = log.find "Kafka refused the credentials"
      assert.equal("token", line.fields.user)
      assert.equal("PLAIN", line.fields.mechanism)
      for _, entry in ipairs(log.lines) do
        for _, value in pairs(entry.fields) do
          assert.is_nil(tostring(value):find("hush-hush", 1, true))
        end
      end
    end)

    it("tries again when credentials that once worked are refused", function()
      local cluster = fake.new { payments = 1 }
      cluster:produce("payments", 0, 1)
      local seen = 0
      local exit = run(cluster, {
        handle = function()
          seen = seen + 1
          return "done"
        end,
      }, by_index { IDLE_TIMEOUT = "0.1" }, function()
        await(function() return seen == 1 end)
        cluster:event { kind = "error", code = "_AUTHENTICATION", message = "expired" }
        task.sleep(DEADLINE)
      end)
      assert.equal(0, exit)
    end)

    it("says once that no broker is reachable, and stays", function()
      local cluster = fake.new { payments = 1 }
      cluster:produce("payments", 0, 1)
      cluster:fail("metadata", "_TRANSPORT", 3)
      local exit, log = run(cluster, { handle = done }, by_index(), function()
        cluster:event { kind = "error", code = "_ALL_BROKERS_DOWN", message = "1/1 down" }
        cluster:event { kind = "error", code = "_ALL_BROKERS_DOWN", message = "1/1 down" }
        task.sleep(DEADLINE)
      end)
      assert.equal(0, exit)
      local said = 0
      for _, line in ipairs(log.lines) do
        if line.message:find("no broker is reachable", 1, true) then said = said + 1 end
      end
      assert.equal(1, said)
      assert.is_truthy(log.find "reachable again")
    end)

    it("exits 78 listing what the environment lacks, and for librdkafka's refusal", function()
      local cluster = fake.new { payments = 1 }
      local exit, log = run(cluster, { handle = done },
        { ROUSE_KAFKA = "security.protocol=plaintext" })
      assert.equal(78, exit)
      assert.is_truthy(log.find "KAFKA_TOPIC is not set")
      assert.is_truthy(log.find "CONSUMER_GROUP is not set")
      cluster.refuse_properties = true
      exit, log = run(cluster, { handle = done }, by_index())
      assert.equal(78, exit)
      assert.is_truthy(log.find "No such configuration property")
    end)

    it("holds a daemon instead of ending at once, until a signal", function()
      local cluster = fake.new { payments = 1 }
      local env = by_index { JOB_INDEX = "9", JOB_MODE = "daemon" }
      local exit, log = run(cluster, { handle = done }, env, function(signals, log)
        await(function() return log.find "JOB_INDEX is 9" end)
        signals.send "TERM"
        task.sleep(DEADLINE)
      end)
      assert.equal(143, exit)
      assert.equal("error", log.find("JOB_INDEX is 9").level)
    end)
  end)
end)
