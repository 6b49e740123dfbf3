require "spec.helper"
local explore = require "rouse.sim.explore"
local doors = require "rouse.wake.doors"
local moves = require "rouse.sim.moves"
local mutations = require "spec.sim.mutations"
local parts = require "rouse.sim.parts"
local plain = require "spec.sim.plain"
local steps = require "rouse.sim.steps"
local worlds = require "spec.sim.worlds"

local function small(partitions, records, observers, crashes, faults, exits)
  return { partitions = partitions, records = records, observers = observers, assign = "index", crashes = crashes,
    faults = faults, exits = exits }
end

local function renewing(each)
  each.renewals = true
  return each
end

describe("every interleaving of a small world", function()
  for _, each in ipairs(worlds) do
    if each.quick then
      it("breaks no invariant: " .. worlds.describe(each), function()
        local result = explore.run(each, { seconds = 300 })
        assert.is_nil(result.violation, table.concat(result.trace or {}, "\n"))
        assert.is_true(result.complete)
        assert.is_true(result.states > 250)
      end)
    end
  end

  -- What is left out of the exploration must not be what a fault of the engine needs.
  for name, each in pairs {
    ["a ring during a submit is forgotten"] = small(2, 2, 1, 0, 0, 0),
    ["a conflict counts as success"] = small(1, 1, 2, 0, 0, 0),
    ["the number is one above what this submitter gave last, not above the highest listed"] = small(1, 1, 2, 0, 0, 0),
    ["a partition is held without a timer"] = small(1, 1, 1, 0, 0, 1),
    ["runs without progress are repeated ever more slowly, without a limit"] = small(1, 1, 1, 0, 0, 1),
    ["a proof survives the error ring and the low offset"] = small(1, 1, 1, 0, 0, 0),
    ["the doorbell is armed at the end instead of the start"] = small(1, 1, 1, 0, 0, 0),
    ["finished runs are removed at once"] = small(1, 1, 1, 0, 0, 0),
    ["submits for every partition, with work or without"] = small(2, 1, 1, 0, 0, 1),
    ["the offsets are read before the list, not after it"] = small(1, 1, 1, 0, 1, 0),
    ["offsets are renewed while a run is active"] = renewing(small(1, 1, 1, 0, 0, 0)),
    ["a wake is submitted while the group's offsets are being renewed"] = renewing(small(1, 2, 1, 0, 0, 0)),
  } do
    it("finds that " .. name .. ", whether moves are left out or not", function()
      local _ <close> = setmetatable({}, { __close = mutations[name].break_it() })
      for _, unreduced in ipairs { false, true } do
        local result = explore.run(each, { seconds = 60, unreduced = unreduced })
        assert.equal(mutations[name].by, result.violation and result.violation.invariant)
        assert.is_true(#result.trace > 0)
      end
      if each.observers == 1 and each.records == 1 then -- whole worlds take their time
        assert.equal(mutations[name].by, plain.run(each).violation.invariant)
      end
    end)
  end

  -- Worlds in parts, moves worked out once, states that count as one: all of that is to find what whole worlds would.
  for _, each in ipairs { small(1, 1, 1, 0, 0, 1), small(1, 0, 2, 1, 0, 0), small(1, 1, 1, 0, 1, 0),
    renewing(small(1, 1, 1, 0, 0, 0)), renewing(small(1, 1, 1, 1, 0, 0)) } do
    it("is that of whole worlds: " .. worlds.describe(each), function()
      local whole = plain.run(each)
      assert.is_nil(whole.violation)
      assert.equal(0, whole.different)
      assert.equal(whole.states, explore.run(each, { unreduced = true }).states)
      assert.is_true(explore.run(each).states <= whole.states)
    end)
  end

  it("does not let an observer's step look at another observer", function()
    local base, w = explore.start(small(1, 1, 2, 0, 0, 0)), explore.start(small(1, 1, 2, 0, 0, 0))
    local shared, observers = parts.split(w, 2)
    local alone = parts.join(shared, { observers[1] }, { {} }, base)
    assert.has_error(function() return alone.observers[2].fetches end,
      "a step of one observer looks at another's fetches")
  end)

  it("counts observers that have changed places once", function()
    local function world(first, second)
      local w = explore.start(small(1, 1, 2, 1, 0, 0))
      for _, id in ipairs { first, second } do
        for i, item in ipairs(w.queue) do
          if item.id == id and item.kind == "list" then
            w:step(table.remove(w.queue, i))
            break
          end
        end
      end
      steps.perform.crash(w, { observer = first })
      moves.settle(w)
      return (plain.pack(w, 2))
    end
    assert.equal(world(1, 2), world(2, 1))
  end)

  it("tells worlds apart in which one record, one commit or one answer differs", function()
    local function hash(change)
      local w = explore.start(small(2, 1, 2, 1, 0, 0))
      change(w)
      return (plain.pack(w, 2))
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
    local result = explore.run(small(1, 2, 1, 0, 0, 0), { seconds = 20 })
    assert.equal("W1", result.violation.invariant)
    local trace = table.concat(result.trace, "\n")
    assert.matches("a record on 0", trace)
    assert.matches("\n *%d+%.%d+  !! W1", trace) -- at its time since the beginning
  end)

  it("tells which of two observers did what", function()
    local name = "a conflict counts as success"
    local _ <close> = setmetatable({}, { __close = mutations[name].break_it() })
    local trace = table.concat(explore.run(small(1, 1, 2, 0, 0, 0)).trace, "\n")
    assert.matches("observer 1 submits j", trace)
    assert.matches("observer 2 submits j", trace)
  end)
end)
