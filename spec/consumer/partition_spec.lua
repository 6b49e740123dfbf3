require "spec.helper"
local task = require "rouse.task"
local working = require "spec.consumer.working"

local with_partition, push, await, records = working.run, working.push, working.await, working.records

describe("consumer.partition", function()
  it("hands records to the handler in order and moves the prefix", function()
    local seen = {}
    local p = with_partition({
      handle = function(record, ctx)
        seen[#seen + 1] = record.offset
        assert(ctx.attempt == 1 and ctx.group == "g" and ctx.now > 1e9)
        return "done"
      end,
    }, function(p)
      push(p, records(10, 14))
      push(p, records(17, 19))
      await(function() return not p:busy() end)
    end)
    assert.same({ 10, 11, 12, 13, 14, 17, 18, 19 }, seen)
    assert.equal(20, p.prefix.position)
    assert.equal(0, p.queued)
    assert.equal(0, p.bytes)
  end)

  it("knows what is finished while a handler waits", function()
    with_partition({
      handle = function(record)
        if record.offset == 12 then task.sleep(3600) end
        return "done"
      end, ends = "cancelled",
    }, function(p, worker)
      push(p, records(10, 14))
      await(function() return p:position() == 12 end)
      worker:cancel()
      worker:join()
      assert.equal(12, p:position())
    end)
  end)

  it("tries a record again, in order, before the next one", function()
    local seen = {}
    local p, logged = with_partition({
      handle = function(record, ctx)
        seen[#seen + 1] = record.offset .. "/" .. ctx.attempt
        if record.offset == 1 and ctx.attempt < 3 then return "retry", "busy" end
        return "done"
      end,
    }, function(p)
      push(p, records(0, 2))
      await(function() return not p:busy() end)
    end)
    assert.same({ "0/1", "1/1", "1/2", "1/3", "2/1" }, seen)
    assert.equal(3, p.prefix.position)
    assert.equal(1, #logged)
    assert.equal("busy", logged[1].reason)
    assert.equal(1, logged[1].offset)
  end)

  it("parks after the last try and commits nothing beyond", function()
    local p, logged = with_partition({
      handle = function(record)
        if record.offset == 1 then error("no account") end
        return "done"
      end,
    }, function(p)
      push(p, records(0, 5))
      await(function() return p.state == "parked" end)
      push(p, records(6, 7))
      assert.is_false(p:busy())
    end)
    assert.equal(1, p.prefix.position)
    assert.equal(0, p.queued)
    assert.equal(2, #logged)
    assert.equal("handler failed", logged[1].message)
    assert.equal("ERROR", logged[1].code)
    assert.matches("partition_spec%.lua:%d+: no account", logged[1].reason)
    assert.equal("partition parked", logged[2].message)
    assert.equal(3, logged[2].attempt)
    assert.equal(2, logged[2].partition)
    assert.equal(1, logged[2].offset)
    for _, entry in ipairs(logged) do assert.is_nil(entry.value) end
  end)

  it("stops a handler that loops forever and one that answers nonsense", function()
    local p, logged = with_partition({
      retry = { first = 0.001, max = 0.001, tries = 1 },
      handle = function() while true do end end,
    }, function(p)
      push(p, records(0, 0))
      await(function() return p.state == "parked" end)
    end)
    assert.is_nil(p.prefix.position)
    assert.equal("CPU", logged[1].code)
    p, logged = with_partition({
      retry = { first = 0.001, max = 0.001, tries = 1 },
      handle = function() return "ok" end,
    }, function(q)
      push(q, records(0, 0))
      await(function() return q.state == "parked" end)
    end)
    assert.is_nil(p.prefix.position)
    assert.matches('returned "ok"', logged[1].reason)
  end)

  it("finishes a dead record when its dead letter is acknowledged", function()
    local buried, refuse = {}, 1
    local p, logged = with_partition({
      handle = function(record)
        if record.offset == 1 then return "dead", "poison" end
        return "done"
      end,
      bury = function(record, reason, attempts)
        if refuse > 0 then
          refuse = refuse - 1
          return nil, "not enough replicas", "NOT_ENOUGH_REPLICAS"
        end
        buried[#buried + 1] = { record.offset, reason, attempts }
        return true
      end,
    }, function(p)
      push(p, records(0, 2))
      await(function() return not p:busy() end)
    end)
    assert.same({ { 1, "poison", 1 } }, buried)
    assert.equal(3, p.prefix.position)
    assert.equal("dead letter not written", logged[1].message)
    assert.equal("NOT_ENOUGH_REPLICAS", logged[1].code)
  end)

  it("parks where dead letters cannot be written, and on dead without a topic for them", function()
    local p = with_partition({
      handle = function() return "dead", "poison" end,
      bury = function() return nil, "disk full", "KAFKA_STORAGE_ERROR" end,
    }, function(p)
      push(p, records(4, 5))
      await(function() return p.state == "parked" end)
    end)
    assert.is_nil(p.prefix.position)
    p = with_partition({ handle = function() return "dead" end }, function(q)
      push(q, records(4, 5))
      await(function() return q.state == "parked" end)
    end)
    assert.is_nil(p.prefix.position)
  end)

  it("lets a running handler end on stop and starts no other", function()
    local gate, started, finished = task.event(), 0, 0
    local p = with_partition({
      handle = function()
        started = started + 1
        gate:wait()
        finished = finished + 1
        return "done"
      end,
    }, function(p)
      push(p, records(0, 9))
      await(function() return started == 1 end)
      p:stop()
      gate:set()
    end)
    assert.equal(1, started)
    assert.equal(1, finished)
    assert.equal(1, p.prefix.position)
    assert.equal("stopped", p.state)
  end)

  it("cuts the wait for a retry short on stop", function()
    local p = with_partition({
      retry = { first = 60, max = 60, tries = 5 },
      handle = function() return "retry" end,
    }, function(p)
      push(p, records(0, 0))
      await(function() return p.waiting == "retry" end)
    end)
    assert.is_nil(p.prefix.position)
    assert.equal("stopped", p.state)
  end)

  it("ends, without a complaint, when its task is cancelled in a handler", function()
    local _, logged = with_partition({
      ends = "cancelled",
      handle = function() task.sleep(60) end,
    }, function(p, worker)
      push(p, records(0, 3))
      await(function() return p.ctx.now > 0 end)
      worker:cancel()
      worker:join(5)
    end)
    assert.same({}, logged)
  end)

  describe("with a batch handler", function()
    it("gives up to batch records in one call, across fetches", function()
      local sizes, offsets = {}, {}
      local p = with_partition({
        batch = 4,
        handle_batch = function(list)
          sizes[#sizes + 1] = #list
          for _, record in ipairs(list) do offsets[#offsets + 1] = record.offset end
          list[1] = nil
          return "done"
        end,
      }, function(p)
        push(p, records(0, 2))
        push(p, records(3, 9))
        await(function() return not p:busy() end)
      end)
      assert.same({ 4, 4, 2 }, sizes)
      assert.same({ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, offsets)
      assert.equal(10, p.prefix.position)
      assert.equal(0, p.queued)
      assert.equal(0, p.bytes)
    end)

    it("gives again only what asked for a retry, and commits the prefix", function()
      local calls, position = {}, {}
      local p
      p = with_partition({
        handle_batch = function(list, ctx)
          local got = {}
          for i, record in ipairs(list) do got[i] = record.offset end
          calls[#calls + 1] = table.concat(got, ",") .. "/" .. ctx.attempt
          if ctx.attempt == 1 then return { "done", "retry", "done", { "retry", "busy" } } end
          position[#position + 1] = p.prefix.position
          return "done"
        end,
      }, function(q)
        p = q
        push(q, records(0, 3))
        await(function() return not q:busy() end)
      end)
      assert.same({ "0,1,2,3/1", "1,3/2" }, calls)
      assert.same({ 1 }, position)
      assert.equal(4, p.prefix.position)
    end)

    it("parks before the first record that stays unfinished", function()
      local p, logged = with_partition({
        handle_batch = function(list)
          local each = {}
          for i, record in ipairs(list) do each[i] = record.offset == 2 and "retry" or "done" end
          return each
        end,
      }, function(p)
        push(p, records(0, 4))
        await(function() return p.state == "parked" end)
      end)
      assert.equal(2, p.prefix.position)
      assert.equal("partition parked", logged[#logged].message)
      assert.equal(2, logged[#logged].offset)
    end)
  end)
end)
