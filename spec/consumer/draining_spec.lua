require "spec.helper"
local fake = require "spec.consumer.fake"
local running = require "spec.consumer.running"
local task = require "rouse.task"

local DEADLINE, environment, by_index, run, await, join = running.DEADLINE, running.environment, running.by_index,
  running.run, running.await, running.join

-- Runs a consumer whose handler never ends with the third of five records; `tell` comes when it is there.
local function hung(tell, options)
  local cluster = fake.new { payments = 1 }
  cluster:produce("payments", 0, 5)
  local entered = 0
  local exit = run(cluster, {
    handle = function(record)
      entered = entered + 1
      if record.offset == 2 then task.sleep(3600) end
      return "done"
    end,
  }, by_index { IDLE_TIMEOUT = "3600" }, function(signals, log)
    await(function() return entered == 3 end)
    tell(signals, log)
    task.sleep(DEADLINE)
  end, options)
  return exit, cluster
end

describe("consumer: told to end", function()
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
    local exit, cluster = hung(function(signals)
      signals.send "TERM"
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
    local exit, cluster = hung(function(signals, log)
      signals.send "TERM"
      await(function() return log.find "ending" end)
      signals.send "INT"
    end, { commit_interval = 60 })
    assert.equal(130, exit)
    assert.equal(0, cluster:committed_offset("payments", 0))
  end)
end)
