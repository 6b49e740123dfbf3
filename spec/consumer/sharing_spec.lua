require "spec.helper"
local fake = require "spec.consumer.fake"
local running = require "spec.consumer.running"
local task = require "rouse.task"

local DEADLINE, environment, run, await, done, join = running.DEADLINE, running.environment, running.run,
  running.await, running.done, running.join

describe("consumer: sharing partitions", function()
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
end)
