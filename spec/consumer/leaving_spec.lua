require "spec.helper"
local fake = require "spec.consumer.fake"
local running = require "spec.consumer.running"
local task = require "rouse.task"

local DEADLINE, environment, by_index, run, await, done, join = running.DEADLINE, running.environment, running.by_index,
  running.run, running.await, running.done, running.join

describe("consumer: leaving", function()
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
end)
