require "spec.helper"
local fake = require "spec.consumer.fake"
local running = require "spec.consumer.running"
local task = require "rouse.task"

local DEADLINE, environment, by_index, run, await, done, join = running.DEADLINE, running.environment, running.by_index,
  running.run, running.await, running.done, running.join

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
