-- Taking stock after an event: of the units that it has moved, not of all of them.
require "spec.helper"
local campaign = require "rouse.sim.campaign"
local schedule = require "rouse.sim.schedule"
local wake = require "rouse.wake"
local watch = require "rouse.wake.watch"
local world = require "spec.wake.world"

local Engine = getmetatable(wake.new { units = {} })

-- One group for each of the names, on one partition of a topic of the same name, committed at its end.
local function groups(...)
  local units, commits, counts = {}, {}, {}
  for _, name in ipairs { ... } do
    units[#units + 1] = { job = name, group = name, mode = "lag", assign = "index", spec = {},
      topics = { [name] = { reset = "earliest" } } }
    commits[name], counts[name] = { [0] = 100 }, 1
  end
  return world.new { units = units, commits = commits }, counts
end

-- Answers one group's reading at its own time.
local function answer(w, name, clock)
  w.now, w.clock = w.now + clock - w.clock, clock
  for i, effect in ipairs(w.effects) do
    if effect.kind == "read" and effect.unit == name .. "/" .. name then
      table.insert(w.effects, 1, table.remove(w.effects, i))
      return w:answer_read()
    end
  end
  error("no reading of " .. name)
end

local function readings(w)
  local names = {}
  for _, effect in ipairs(w.effects) do
    names[#names + 1] = effect.kind == "read" and effect.unit:match "^[^/]+" or nil
  end
  return names
end

local function tick(w)
  w.now, w.clock, w.call_at = w.now + w.call_at - w.clock, w.call_at, nil
  w:send { kind = "timer" }
end

-- A world whose groups were read at these times.
local function read_at(times)
  local w, counts = groups("a", "b", "c")
  w:start(counts)
  w.clock = -watch.IDLE
  for _, unit in ipairs(w.engine.units) do
    unit.due = w.clock
  end
  w.call_at = w.clock
  tick(w)
  for i, name in ipairs { "a", "b", "c" } do
    answer(w, name, times[i])
  end
  return w
end

describe("taking stock", function()
  it("reads idle groups together whose turns are near each other", function()
    local w = read_at { 0, watch.AHEAD, watch.AHEAD + 1 }
    tick(w)
    assert.equal(watch.IDLE, w.clock)
    assert.same({ "a", "b" }, readings(w))
    w:settle()
    tick(w)
    assert.equal(watch.IDLE + watch.AHEAD + 1, w.clock)
    assert.same({ "c" }, readings(w))
  end)

  it("looks no earlier at a group that waits for something else", function()
    local w = read_at { 0, 1, 2 }
    w.reading_error = "_TRANSPORT"
    w:send { kind = "rung", topic = "b", partition = 0, offset = 100 }
    w:settle()
    w.engine.by_id["b/b"].due = watch.IDLE + 1
    w.reading_error, w.call_at = nil, watch.IDLE
    tick(w)
    assert.same({ "a", "c" }, readings(w))
    assert.equal(watch.IDLE + 1, w.call_at)
  end)

  it("plans the look that is next of all, whoever was moved", function()
    local w = read_at { 0, 20, 40 }
    assert.equal(watch.IDLE, w.call_at)
    w:record("a", 0, 100)
    assert.equal(watch.IDLE + 20, w.call_at)
    w:answer_list()
    answer(w, "a", 41)
    local submit = w:take "submit"
    assert.equal("a", submit.job)
    assert.equal(watch.IDLE + 20, w.call_at)
    w:send { kind = "submitted", unit = submit.unit, name = submit.name, error = "THROTTLED", retry_after = 7 }
    assert.equal(48, w.call_at)
  end)

  it("misses nobody: after every event of many schedules nothing is left that is due", function()
    local handle, handled, narrow = Engine.handle, 0, 0
    local advance = Engine.advance
    local _ <close> = setmetatable({}, { __close = function() Engine.handle, Engine.advance = handle, advance end })
    function Engine.advance(engine, moved)
      narrow = narrow + (moved ~= engine.units and 1 or 0)
      return advance(engine, moved)
    end
    function Engine.handle(engine, event)
      local effects, call, first = handle(engine, event), nil, nil
      for _, effect in ipairs(effects) do
        call = effect.kind == "call" and effect.at or call
      end
      for _, unit in ipairs(engine.units) do
        if unit.phase == "idle" and #unit.parts > 0 then
          assert.is_false(unit.dirty or false, event.kind)
          assert.is_true(not unit.due or unit.due > engine.clock, event.kind)
          first = unit.due and math.min(first or unit.due, unit.due) or first
        end
        assert.is_true(unit.phase ~= "waiting" or engine.targets[unit.target].inflight, event.kind)
      end
      assert.equal(first, call, event.kind)
      for _, of_topic in pairs(engine.doors) do
        for _, door in pairs(of_topic) do
          local want
          for _, part in ipairs(door.parts) do
            want = part.want and math.min(want or part.want, part.want) or want
          end
          for _, part in ipairs(door.parts) do
            want = want and part.probe and math.max(want, part.probe) or want
          end
          assert.equal(want, door.armed, event.kind)
        end
      end
      handled = handled + 1
      return effects
    end
    for seed = 1, 100 do
      campaign.play(schedule.new(seed))
    end
    assert.is_true(handled > 10000)
    assert.is_true(narrow > handled / 3)
  end)
end)
