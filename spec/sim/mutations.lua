-- Deliberate faults of the wake engine, by replacing functions of its modules. Each `break_it` returns what puts things
-- right again; `by` is the invariant that has to break.
local attempts = require "rouse.wake.attempts"
local coverage = require "rouse.wake.coverage"
local doors = require "rouse.wake.doors"
local facts = require "rouse.wake.facts"
local naming = require "rouse.wake.naming"
local reload = require "rouse.wake.reload"
local renewal = require "rouse.wake.renewal"
local runs = require "rouse.wake.runs"
local submit = require "rouse.wake.submit"
local wake = require "rouse.wake"

local Engine = getmetatable(wake.new { units = {} })

local function replace(module, name, make)
  local original = module[name]
  module[name] = make(original)
  return function() module[name] = original end
end

local mutations = {}

mutations["the offsets are read before the list, not after it"] = { by = "W2", break_it = function()
  return replace(facts, "take", function(take)
    return function(part, read, reset)
      local before = part.former or read
      part.former = read
      return take(part, before, reset)
    end
  end)
end }

mutations["a conflict counts as success"] = { by = "W6", break_it = function()
  return replace(submit, "answered", function(answered)
    return function(engine, unit, event)
      if event.error == "CONFLICT" then
        event.error, event.run = nil, { name = event.name, status = "pending" }
      end
      return answered(engine, unit, event)
    end
  end)
end }

mutations["the doorbell is armed at the end instead of the start"] = { by = "W1", break_it = function()
  return replace(doors, "settle", function(settle)
    return function(engine, unit)
      settle(engine, unit)
      for _, part in ipairs(unit.parts) do
        part.want = part.want and part.end_offset or nil
      end
    end
  end)
end }

mutations["the dedup window opens before the answer and stays open when the submit failed"] = { by = "W1",
  break_it = function()
    return replace(submit, "start", function(start)
      return function(engine, unit, ...)
        start(engine, unit, ...)
        unit.last_wake = engine.clock
      end
    end)
  end }

mutations["the newest run is removed like any other"] = { by = "W8", break_it = function()
  return replace(runs, "clean", function()
    return function(engine, target, name)
      for _, run in ipairs(target.runs) do
        if coverage.finished(run) and engine.clock - (engine.rested[run.name] or engine.clock) > 240 then
          engine:effect { kind = "remove", target = name, name = run.name }
        end
      end
    end
  end)
end }

mutations["finished runs are removed at once"] = { by = "W8", break_it = function()
  return replace(runs, "clean", function()
    return function(engine, target, name)
      for _, run in ipairs(target.runs) do
        if coverage.finished(run) and naming.number(run.job, run.name) then
          engine:effect { kind = "remove", target = name, name = run.name }
        end
      end
    end
  end)
end }

mutations["a partition that cannot be read has no lag"] = { by = "W1", break_it = function()
  return replace(Engine, "on_offsets", function(on_offsets)
    return function(engine, event)
      local unit = engine.by_id[event.unit]
      for _, read in ipairs(event.parts or {}) do
        local part = unit and unit.index[read.topic] and unit.index[read.topic][read.partition] or {}
        if read.error and part.end_offset then
          local stop = math.max(part.end_offset, (part.proof or 0) + 1)
          read.error, read.committed, read.low, read.end_offset = nil, stop, part.low, stop
        end
      end
      return on_offsets(engine, event)
    end
  end)
end }

mutations["a run covers what was wanted, whichever of its instances have ended"] = { by = "W1", break_it = function()
  return replace(coverage, "live", function()
    return function(run) return coverage.finished(run) and {} or run.indices end
  end)
end }

mutations["a proof survives the error ring and the low offset"] = { by = "W2", break_it = function()
  local one = replace(facts, "refuse", function(refuse)
    return function(part, position)
      local proof = part.proof
      refuse(part, position)
      part.proof = proof
    end
  end)
  local two = replace(facts, "take", function(take)
    return function(part, ...)
      local proof = part.proof
      local result = take(part, ...)
      part.proof = proof
      return result
    end
  end)
  return function() one() two() end
end }

mutations["a partition is held without a timer"] = { by = "W1", break_it = function()
  return replace(Engine, "hold", function(hold)
    return function(engine, unit, parts, code, fields)
      local due = unit.due
      hold(engine, unit, parts, code, fields)
      unit.due = due and engine.clock + 3600
    end
  end)
end }

mutations["the number is one above what this submitter gave last, not above the highest listed"] = { by = "W4",
  break_it = function()
    local given = setmetatable({}, { __mode = "k" })
    return replace(naming, "next", function()
      return function(job, list)
        given[list] = (given[list] or 0) + 1
        local number = #list * 7 + given[list] + math.tointeger(naming.hash(tostring(list)) % 5)
        return naming.prefix(job) .. number, number
      end
    end)
  end }

mutations["a ring during a submit is forgotten"] = { by = "W1", break_it = function()
  return replace(Engine, "on_rung", function(on_rung)
    return function(engine, event)
      for _, unit in ipairs(engine.units) do
        if unit.phase == "submitting" or unit.phase == "asking" then
          return
        end
      end
      return on_rung(engine, event)
    end
  end)
end }

mutations["one group instance covers the whole group"] = { by = "W1", break_it = function()
  return replace(coverage, "of", function(of)
    return function(...)
      local result = of(...)
      result.instances = result.instances > 0 and 1000 or 0
      return result
    end
  end)
end }

mutations["runs without progress are repeated ever more slowly, without a limit"] = { by = "W1", break_it = function()
  return replace(attempts, "delay", function()
    return function(attempt) return attempt > 1 and 5 * 4.0 ^ (attempt - 1) or 0 end
  end)
end }

mutations["submits for every partition, with work or without"] = { by = "W2", break_it = function()
  return replace(submit, "start", function(start)
    return function(engine, unit, _, _, verdict)
      verdict.instances = nil
      return start(engine, unit, unit.parts, unit.parts, verdict)
    end
  end)
end }

mutations["a commit that is gone is taken for one that has not moved"] = { by = "W1", break_it = function()
  return replace(facts, "take", function(take)
    return function(part, read, ...)
      read.committed = read.committed or part.committed
      return take(part, read, ...)
    end
  end)
end }

mutations["with a topic that is deleted the job's other topics are forgotten"] = { by = "W1", break_it = function()
  return replace(Engine, "on_gone", function(on_gone)
    return function(engine, event)
      on_gone(engine, event)
      for _, unit in ipairs(engine.units) do
        if unit.topics[event.topic] then
          reload.drop(engine, unit, function() return true end)
        end
      end
    end
  end)
end }

mutations["a job that comes back waits for the answer that came while it was gone"] = { by = "W1", break_it = function()
  return replace(reload, "late", function() return function() end end)
end }

mutations["a job that comes back is not evaluated"] = { by = "W1", break_it = function()
  return replace(reload, "apply", function(apply)
    return function(engine, event)
      local result = apply(engine, event)
      for _, id in ipairs(result.added) do
        engine.by_id[id].phase = "gone"
      end
      return result
    end
  end)
end }

-- ---- renewal of offsets ----

mutations["offsets are renewed as they were read the first time"] = { by = "renewal", break_it = function()
  return replace(renewal, "commits", function(commits)
    return function(engine, effect, list, took)
      local unit = engine.by_id[effect.unit]
      for _, item in ipairs(unit and list or {}) do
        local part = unit.index[item.topic] and unit.index[item.topic][item.partition] or {}
        part.first_read = part.first_read or item.offset
        item.offset = part.first_read
      end
      for _, part in ipairs(effect.partitions) do
        local kept = unit and unit.index[part.topic] and unit.index[part.topic][part.partition] or {}
        part.offset = kept.first_read
      end
      return commits(engine, effect, list, took)
    end
  end)
end }

mutations["offsets are renewed while a run is active"] = { by = "renewal", break_it = function()
  local within = false
  local restores = { replace(coverage, "of", function(of)
    return function(runs_listed, unit, jobs)
      return of(within and {} or runs_listed, unit, jobs)
    end
  end) }
  for _, name in ipairs { "look", "commits" } do
    restores[#restores + 1] = replace(renewal, name, function(original)
      return function(...)
        within = true
        local result = table.pack(original(...))
        within = false
        return table.unpack(result, 1, result.n)
      end
    end)
  end
  return function()
    for _, restore in ipairs(restores) do restore() end
  end
end }

mutations["a wake is submitted while the group's offsets are being renewed"] = { by = "renewal", break_it = function()
  return replace(renewal, "holds", function() return function() return false end end)
end }

mutations["offsets are renewed by a list of long ago"] = { by = "renewal", break_it = function()
  local within = false
  local one = replace(renewal, "is_due", function(is_due)
    return function(engine, unit) return within and is_due(engine, unit) end
  end)
  local two = replace(renewal, "plan", function(plan)
    return function(engine, unit)
      plan(engine, unit)
      if not within then -- a look at the commits is enough
        within = true
        renewal.look(engine, unit)
        within = false
      end
    end
  end)
  return function() one() two() end
end }

mutations["offsets are renewed once"] = { by = "renewal", break_it = function()
  return replace(renewal, "answered", function(answered)
    return function(engine, event)
      answered(engine, event)
      local unit = engine.by_id[event.unit]
      if unit then
        unit.renew_at = math.huge
      end
    end
  end)
end }

return mutations
