require "spec.helper"
local task = require "rouse.task"
local working = require "spec.consumer.working"

local push, await = working.push, working.await

-- The same with parallel handlers.
local function with_lanes(options, fn)
  options.parallel = options.parallel or 4
  return working.run(options, fn)
end

-- Records from offset `first` on, one for each key; false: none.
local function records(first, keys)
  local list = {}
  for i, key in ipairs(keys) do
    list[i] = { topic = "payments", partition = 2, offset = first + i - 1, key = key or nil,
      value = "v" .. i }
  end
  return list
end

-- An error in a handler is a retry: what a handler finds wrong is kept, and fails the spec.
local wrong
local function expect(ok, what)
  if not ok then wrong = wrong or what end
end

describe("consumer.lanes", function()
  before_each(function() wrong = nil end)
  after_each(function() assert.is_nil(wrong) end)

  it("handles different keys at the same time, no more than parallel, each key in order", function()
    local now, most, at, seen, full = 0, 0, {}, {}, task.event()
    local p = with_lanes({
      parallel = 3,
      handle = function(record, ctx)
        expect(not at[record.key], "two records of a key at once")
        expect(ctx.attempt == 1 and ctx.group == "g" and ctx.now > 1e9, "ctx")
        at[record.key], now = true, now + 1
        most = math.max(most, now)
        if now == 3 then full:set() end
        full:wait()
        task.sleep(0.002)
        at[record.key], now = nil, now - 1
        seen[record.key] = (seen[record.key] or "") .. record.offset .. " "
        return "done"
      end,
    }, function(p)
      push(p, records(10, { "a", "b", "a", "c", "d", "a" }))
      push(p, records(20, { "e", "b", "a" }))
      await(function() return not p:busy() end)
    end)
    assert.equal(3, most)
    assert.same({ a = "10 12 15 22 ", b = "11 21 ", c = "13 ", d = "14 ", e = "20 " }, seen)
    assert.equal(23, p:position())
    assert.equal(0, p.queued)
    assert.equal(0, p.bytes)
  end)

  it("commits only the finished prefix", function()
    local gate, finished = task.event(), {}
    with_lanes({
      handle = function(record)
        if record.key == "slow" then gate:wait() end
        finished[#finished + 1] = record.offset
        return "done"
      end,
    }, function(p)
      push(p, records(0, { "a", "slow", "b", "slow", "c" }))
      await(function() return #finished == 3 end)
      assert.equal(1, p:position())
      assert.equal(2, p.queued)
      gate:set()
      await(function() return not p:busy() end)
      assert.equal(5, p:position())
    end)
  end)

  it("lets a retry hold up its key only, however many keys wait for one", function()
    local seen = {}
    local p, logged = with_lanes({
      parallel = 2, retry = { first = 60, max = 60, tries = 5 },
      handle = function(record)
        if record.key == "bad" or record.key == "worse" then return "retry", "busy" end
        seen[#seen + 1] = record.offset
        return "done"
      end,
    }, function(p)
      push(p, records(0, { "a", "bad", "worse", "b", "bad", "a" }))
      await(function() return #seen == 3 end)
      assert.equal(1, p:position())
      assert.is_true(p:busy())
    end)
    assert.same({ 0, 3, 5 }, seen)
    assert.equal(1, p:position())
    assert.equal(2, #logged)
  end)

  it("tries again, each lane by itself", function()
    local attempts = {}
    local p = with_lanes({
      parallel = 2,
      handle = function(record, ctx)
        attempts[#attempts + 1] = record.key .. record.offset .. "/" .. ctx.attempt
        return record.offset < 2 and ctx.attempt < 3 and "retry" or "done", "busy"
      end,
    }, function(p)
      push(p, records(0, { "a", "b", "a" }))
      await(function() return not p:busy() end)
    end)
    table.sort(attempts)
    assert.same({ "a0/1", "a0/2", "a0/3", "a2/1", "b1/1", "b1/2", "b1/3" }, attempts)
    assert.equal(3, p:position())
  end)

  it("gives a record without a key a lane of its own; an empty key is a key", function()
    local now, most, empty, full = 0, 0, 0, task.event()
    with_lanes({
      parallel = 10,
      handle = function(record)
        if record.key then
          empty = empty + 1
          expect(empty == 1, "two records with an empty key at once")
        end
        now = now + 1
        most = math.max(most, now)
        if now == 5 then full:set() end
        full:wait()
        task.sleep(0.002)
        now = now - 1
        if record.key then empty = empty - 1 end
        return "done"
      end,
    }, function(p)
      push(p, records(0, { false, false, "", false, "", false }))
      await(function() return not p:busy() end)
    end)
    assert.equal(5, most)
  end)

  it("takes the script's key", function()
    local order = {}
    with_lanes({
      parallel = 8, key = function(record) return record.offset % 2 end,
      handle = function(record)
        task.sleep(record.offset < 2 and 0.005 or 0)
        order[record.offset % 2] = (order[record.offset % 2] or "") .. record.offset
        return "done"
      end,
    }, function(p)
      push(p, records(0, { "a", "a", "a", "a", "b", "b" }))
      await(function() return not p:busy() end)
    end)
    assert.same({ [0] = "024", [1] = "135" }, order)
  end)

  it("has a bounded number of records under way behind an unfinished one", function()
    local gate, seen = task.event(), 0
    with_lanes({
      handle = function(record)
        if record.offset == 0 then gate:wait() end
        seen = seen + 1
        return "done"
      end,
    }, function(p)
      local keys = {}
      for i = 1, 3000 do keys[i] = "k" .. i end
      push(p, records(0, keys))
      await(function() return seen == 999 end)
      for _ = 1, 20 do task.sleep(0) end
      assert.equal(999, seen)
      assert.equal(1000, p.prefix:pending())
      gate:set()
      await(function() return not p:busy() end)
      assert.equal(3000, seen)
      assert.equal(3000, p:position())
      assert.equal(0, p.bytes)
    end)
  end)

  it("parks with what is finished before the record, and lets the other handlers end", function()
    local gate, ended, started = task.event(), false, 0
    local p, logged = with_lanes({
      parallel = 2,
      handle = function(record)
        started = started + 1
        if record.offset == 1 then error("no account") end
        if record.offset == 2 then
          gate:wait()
          ended = true
        end
        return "done"
      end,
    }, function(p, worker)
      push(p, records(0, { "a", "b", "c", "b", "d" }))
      await(function() return p.state == "parked" end)
      local before = started
      gate:set()
      worker:join(5)
      assert.is_true(ended)
      assert.equal(before, started)
    end)
    assert.equal(1, p:position())
    assert.equal(0, p.queued)
    assert.equal("partition parked", logged[#logged].message)
    assert.equal(1, logged[#logged].offset)
    assert.equal(3, logged[#logged].attempt)
  end)

  it("finishes a dead record when its dead letter is acknowledged, and tries that again", function()
    local buried, refuse = {}, 2
    local p = with_lanes({
      handle = function(record) return record.key == "x" and "dead" or "done", "poison" end,
      bury = function(record, reason, attempts)
        if refuse > 0 then
          refuse = refuse - 1
          return nil, "not enough replicas", "NOT_ENOUGH_REPLICAS"
        end
        buried[#buried + 1] = { record.offset, reason, attempts }
        return true
      end,
    }, function(p)
      push(p, records(0, { "a", "x", "b" }))
      await(function() return not p:busy() end)
    end)
    assert.same({ { 1, "poison", 1 } }, buried)
    assert.equal(3, p:position())
  end)

  for what, case in pairs {
    ["fails"] = { function() error "no such field" end, "no such field" },
    ["returns a table"] = { function() return {} end, "the function returned a table" },
    ["returns NaN"] = { function() return 0 / 0 end, "the function returned NaN" },
  } do
    it("holds up the partition where the key function " .. what .. ", and gives the record up", function()
      local seen, buried = {}, {}
      local p, logged = with_lanes({
        key = function(record)
          if record.offset == 1 then return case[1]() end
          return record.key
        end,
        handle = function(record)
          seen[#seen + 1] = record.offset
          return "done"
        end,
        bury = function(record, reason)
          buried[#buried + 1] = record.offset
          expect(reason:find("^key: .*" .. case[2]), reason)
          return true
        end,
      }, function(p)
        push(p, records(0, { "a", "b", "c" }))
        await(function() return not p:busy() end)
      end)
      assert.same({ 0, 2 }, seen)
      assert.same({ 1 }, buried)
      assert.equal(3, p:position())
      assert.equal(0, p.bytes)
      assert.equal("handler failed", logged[1].message)
    end)
  end

  it("parks where the key function fails and nothing takes dead letters", function()
    local p = with_lanes({
      key = function() error "broken" end, handle = function() return "done" end,
    }, function(p)
      push(p, records(7, { "a" }))
      await(function() return p.state == "parked" end)
    end)
    assert.is_nil(p:position())
  end)

  it("lets running handlers end on stop and starts no other", function()
    local gate, started, finished = task.event(), 0, 0
    local p = with_lanes({
      parallel = 3,
      handle = function()
        started = started + 1
        gate:wait()
        finished = finished + 1
        return "done"
      end,
    }, function(p)
      push(p, records(0, { "a", "b", "c", "d", "a" }))
      await(function() return started == 3 end)
      p:stop()
      assert.equal(3, p:in_hand())
      gate:set()
    end)
    assert.equal(3, started)
    assert.equal(3, finished)
    assert.equal(3, p:position())
    assert.equal("stopped", p.state)
  end)

  it("stops idle workers and lanes that wait for a retry", function()
    local p = with_lanes({
      retry = { first = 60, max = 60, tries = 5 },
      handle = function(record) return record.key == "a" and "retry" or "done" end,
    }, function(p)
      push(p, records(0, { "a", "b", "c", "d" }))
      await(function() return p.queued == 1 end)
    end)
    assert.equal("stopped", p.state)
    assert.is_nil(p:position())
  end)

  it("ends, without a complaint, when its task is cancelled in handlers", function()
    local started = 0
    local p, logged = with_lanes({
      ends = "cancelled",
      handle = function(record)
        started = started + 1
        if record.offset > 0 then task.sleep(60) end
        return "done"
      end,
    }, function(p, worker)
      push(p, records(0, { "a", "b", "c" }))
      await(function() return started == 3 and p:position() end)
      worker:cancel()
      worker:join(5)
    end)
    assert.same({}, logged)
    assert.equal(1, p:position())
  end)

  it("keeps every promise in random schedules", function()
    for seed = 1, 30 do
      math.randomseed(seed)
      local parallel, keys, order, times = math.random(2, 6), {}, {}, {}
      for i = 1, 200 do
        local n = math.random(1, 12)
        keys[i] = n > 10 and false or "k" .. n
      end
      local running, refused, all = {}, {}, records(100, keys)
      local p
      p = with_lanes({
        parallel = parallel, retry = { first = 0, max = 0.001, tries = 4 },
        handle = function(record)
          expect(not record.key or not running[record.key], "two records of a key at once")
          if record.key then running[record.key] = true end
          if math.random() < 0.3 then task.sleep(math.random() * 0.001) end
          if record.key then running[record.key] = nil end
          if math.random() < 0.1 then return "retry", "chance" end
          if math.random() < 0.02 then return "dead", "chance" end
          times[record.offset] = (times[record.offset] or 0) + 1
          local of_key = record.key and order[record.key] or -1
          expect(record.offset > of_key, "out of order")
          if record.key then order[record.key] = record.offset end
          return "done"
        end,
        bury = function(record)
          -- never as often as there are tries: that would park the partition
          if (refused[record.offset] or 0) < 2 and math.random() < 0.2 then
            refused[record.offset] = (refused[record.offset] or 0) + 1
            return nil, "chance", "CHANCE"
          end
          times[record.offset] = (times[record.offset] or 0) + 1
          return true
        end,
        on_change = function(part)
          local position = part:position() or 100
          for offset = 100, position - 1 do expect(times[offset] == 1, "position beyond the prefix") end
        end,
      }, function(part)
        local from = 1
        while from <= #all do
          local to = math.min(#all, from + math.random(1, 60))
          part:push(all, from, to, to - from + 1)
          from = to + 1
          task.sleep(0)
        end
        await(function() return not part:busy() end)
      end)
      assert.equal(300, p:position())
      for offset = 100, 299 do assert.equal(1, times[offset]) end
    end
  end)
end)
