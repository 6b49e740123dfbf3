require "spec.helper"
local fake = require "spec.consumer.fake"
local running = require "spec.consumer.running"
local task = require "rouse.task"

local DEADLINE, environment, by_index, run, await, done, join = running.DEADLINE, running.environment, running.by_index,
  running.run, running.await, running.done, running.join

describe("consumer by index", function()
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
end)
