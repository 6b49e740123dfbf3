require "spec.helper"
local explore = require "rouse.sim.explore"
local doors = require "rouse.wake.doors"
local mutations = require "spec.sim.mutations"
local state = require "rouse.sim.state"
local steps = require "rouse.sim.steps"
local worlds = require "spec.sim.worlds"

describe("every interleaving of a small world", function()
  for _, small in ipairs(worlds) do
    if small.quick then
      it("breaks no invariant: " .. worlds.describe(small), function()
        local result = explore.run(small, { seconds = 300 })
        assert.is_nil(result.violation, table.concat(result.trace or {}, "\n"))
        assert.is_true(result.complete)
        assert.is_true(result.states > 250)
      end)
    end
  end

  -- What is left out of the exploration must not be what a fault of the engine needs.
  for name, small in pairs {
    ["a ring during a submit is forgotten"] = { partitions = 2, records = 2, observers = 1 },
    ["a conflict counts as success"] = { partitions = 1, records = 1, observers = 2 },
    ["a partition is held without a timer"] = { partitions = 1, records = 1, observers = 1 },
    ["a proof survives the error ring and the low offset"] = { partitions = 2, records = 1, observers = 1 },
    ["the doorbell is armed at the end instead of the start"] = { partitions = 1, records = 2, observers = 1 },
  } do
    it("finds that " .. name, function()
      local _ <close> = setmetatable({}, { __close = mutations[name].break_it() })
      small.assign, small.crashes, small.faults, small.exits = "index", 0, 0, 1
      local result = explore.run(small, { seconds = 60 })
      assert.equal(mutations[name].by, result.violation and result.violation.invariant)
      assert.is_true(#result.trace > 0)
    end)
  end

  it("counts observers that have changed places once", function()
    local function world(first, second)
      local w = explore.start { partitions = 1, records = 1, observers = 2, assign = "index", crashes = 1, faults = 0,
        exits = 0 }
      for _, id in ipairs { first, second } do
        for i, item in ipairs(w.queue) do
          if item.id == id and item.kind == "list" then
            w:step(table.remove(w.queue, i))
            break
          end
        end
      end
      steps.perform.crash(w, { observer = first })
      return state.hash(w)
    end
    assert.equal(world(1, 2), world(2, 1))
  end)

  it("tells worlds apart in which one record, one commit or one answer differs", function()
    local function hash(change)
      local w = explore.start { partitions = 2, records = 1, observers = 2, assign = "index", crashes = 1, faults = 0,
        exits = 0 }
      change(w)
      return state.hash(w)
    end
    local seen = {}
    for i, change in ipairs {
      function() end,
      function(w) w.cluster:produce("t", 0, 1) end,
      function(w) w.cluster:produce("t", 1, 1) end,
      function(w) w.cluster:commit("g", "t", 0, 0) end,
      function(w) w.left.crashes = 0 end,
      function(w) w:step(table.remove(w.queue, 1)) end,
      function(w) w.observers[1].engine.units[1].parts[1].proof = 0 end,
      function(w) w.observers[1].engine.units[1].parts[2].proof = 0 end,
      function(w) w.oracle.ledgers[2].proofs["j/g"]["t/0"] = 0 end,
      function(w) w.oracle.bounds:submitting(w, w.observers[1], w.oracle.units[1]) end,
      function(w) w.observers[2].engine.targets.codeengine.inflight = "other" end,
    } do
      local value = hash(change)
      assert.is_nil(seen[value], ("%d is like %s"):format(i, tostring(seen[value])))
      seen[value] = i
    end
  end)

  it("finds a fault that needs a certain order, and shows it", function()
    local settle = doors.settle
    local _ <close> = setmetatable({}, { __close = function() doors.settle = settle end })
    doors.settle = function(engine, unit) -- armed past what has been proven, not at the start
      settle(engine, unit)
      for _, part in ipairs(unit.parts) do
        part.want = part.want and math.max(part.want, part.end_offset or 0)
      end
    end
    local result = explore.run({ partitions = 1, records = 2, observers = 1, assign = "index", crashes = 0, faults = 0,
      exits = 0 }, { seconds = 20 })
    assert.equal("W1", result.violation.invariant)
    assert.matches("a record on 0", table.concat(result.trace, "\n"))
  end)
end)
