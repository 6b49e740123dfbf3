--- What the engine makes of each event of lag mode (pure): the topics' partitions, rings, listings, offsets, answers. Claims
--- mode's are in rouse.wake.claiming. They are methods of the engine (rouse.wake), which takes stock after each of them: of the
--- units that it returns as moved, of all where it returns none. Moved is a unit whose phase, due time or dirt may be another.
local backoff = require "rouse.backoff"
local coverage = require "rouse.wake.coverage"
local doors = require "rouse.wake.doors"
local facts = require "rouse.wake.facts"
local reload = require "rouse.wake.reload"
local renewal = require "rouse.wake.renewal"
local runs = require "rouse.wake.runs"
local submit = require "rouse.wake.submit"
local watch = require "rouse.wake.watch"

local events = {}

-- A group whose coordinator is away gets another within seconds.
local AWAY <const> = { TIMEDOUT = true, _WAIT_COORD = true, _TRANSPORT = true }

function events.on_start(engine)
  for _, unit in ipairs(engine.units) do
    unit.dirty = true
  end
end

--- Something may have changed everywhere (reconnected), or { unread } can be read now that could not: that is evaluated.
function events.on_reevaluate(engine, event)
  for _, unit in ipairs(engine.units) do
    unit.dirty = unit.dirty or not event.unread or unit.unread ~= nil
  end
end

--- New routes or a new rule: { units, jobs, decide, rule_changed, renew }. The event tells what became of the units.
function events.on_reload(engine, event)
  event.outcome = reload.apply(engine, event)
end

function events.on_timer(engine)
  -- due units are found by advance()
end

--- The partitions of a topic as the cluster tells them; more may come later, also topics that a pattern matches now.
---@param event { topic: string, partitions: integer, reset: string?, units: table<string, boolean>? }
function events.on_partitions(engine, event)
  local moved = {}
  for _, unit in ipairs(engine.units) do
    if event.units and event.units[unit.id] and not unit.topics[event.topic] then
      unit.topics[event.topic] = { reset = event.reset or "earliest" }
    end
    if unit.topics[event.topic] then
      moved[#moved + 1] = unit
      local index = unit.index[event.topic] or {}
      unit.index[event.topic] = index
      for partition = 0, event.partitions - 1 do
        if not index[partition] then
          local part = facts.part(event.topic, partition)
          index[partition] = part
          unit.parts[#unit.parts + 1] = part
          table.insert(doors.of(engine, event.topic, partition).parts, part)
          unit.dirty = true
        end
      end
      table.sort(unit.parts, function(a, b)
        if a.topic ~= b.topic then
          return a.topic < b.topic
        end
        return a.partition < b.partition
      end)
    end
  end
  return moved
end

--- A topic is no longer there: { topic, keep }. Nothing is known of its partitions from now on; should it come back,
--- on_partitions takes it up. `keep` has the units whose routes name it; to those of a pattern it does not belong any more.
function events.on_gone(engine, event)
  for _, unit in ipairs(engine.units) do
    if unit.mode == "lag" and unit.topics[event.topic] then
      reload.drop(engine, unit, function(topic) return topic == event.topic end)
      unit.topics[event.topic] = event.keep[unit.id] and unit.topics[event.topic] or nil
      unit.dirty = #unit.parts > 0
    end
  end
end

--- The doorbell rang: with a record at `offset`, or with an `error` (the position is out of range). It is disarmed there.
function events.on_rung(engine, event)
  local door, moved = doors.of(engine, event.topic, event.partition), {}
  door.armed = nil
  engine.touched[door] = true
  for _, unit in ipairs(engine.units) do
    local part = unit.mode == "lag" and unit.index[event.topic] and unit.index[event.topic][event.partition]
    if part then
      part.want, part.probe, part.probe_until = nil, nil, nil
      if not event.error then
        facts.prove(part, event.offset)
      else
        facts.refuse(part, event.offset)
      end
      unit.dirty, unit.rang = true, true
      moved[#moved + 1] = unit
    end
  end
  return moved
end

--- A listing arrived: { target, runs, sent (clock) } or { target, error, message }.
function events.on_runs(engine, event)
  local target = engine.targets[event.target]
  target.inflight = false
  if not event.runs then
    target.failures = target.failures + 1
    for _, unit in ipairs(engine.units) do
      if unit.target == event.target and unit.phase == "listing" then
        unit.phase, unit.unlisted = "idle", true
        engine:look_in(unit, backoff.delay(target.failures, { first = 1, max = 60, random = engine.random }))
        engine:note(unit, "list_failed", { reason = event.message, error = event.error })
      end
    end
    return
  end
  target.failures = 0
  runs.take(engine, target, event)
  for _, unit in ipairs(engine.units) do
    if unit.target == event.target and unit.phase == "listing" then
      unit.unlisted = nil
      if unit.mode == "lag" then
        watch.listed(unit, #coverage.of(target.runs, unit, engine.jobs).runs > 0, engine.clock - event.sent)
        unit.phase = "reading"
        engine:effect { kind = "read", unit = unit.id }
      else
        engine:evaluate(unit)
      end
    end
  end
end

-- A reading told nothing: what was proven before it counts no more, as in facts.take.
local function forget_proofs(unit)
  for _, part in ipairs(unit.parts) do
    part.proof = nil
  end
end

--- Offsets arrived: { unit, parts = { { topic, partition, committed|false, low, end_offset, error } } } or { unit, error }.
function events.on_offsets(engine, event)
  local unit = engine.by_id[event.unit]
  if not unit then
    return reload.late(engine, event)
  end
  local refreshing = unit.phase == "refreshing"
  if event.error then
    unit.phase, unit.overtaken = "idle", nil
    unit.unread = event.error
    unit.read_failures = unit.read_failures + 1
    forget_proofs(unit)
    local most = AWAY[event.error] and watch.ACTIVE or 30
    engine:look_in(unit, backoff.delay(unit.read_failures, { first = 1, max = most, random = engine.random }))
    engine:note(unit, "read_failed", { reason = event.message, error = event.error })
    return { unit }
  end
  unit.read_failures = 0
  if unit.overtaken then
    unit.phase, unit.overtaken, unit.dirty = "idle", nil, true
    forget_proofs(unit)
    return { unit }
  end
  local busy = #coverage.of(engine.targets[unit.target].runs, unit, engine.jobs).runs > 0
  local failed
  for _, read in ipairs(event.parts) do
    local part = unit.index[read.topic] and unit.index[read.topic][read.partition]
    if part then
      failed = failed or read.error
      -- A commit that is gone: the low offset counts, and has to be read.
      unit.dirty = unit.dirty or (part.committed and read.committed == false and not read.low)
      local move = facts.take(part, read, unit.topics[read.topic].reset)
      if move then
        part.calm_commit = nil -- it is we who will move it, also when the answer to that is lost
      end
      if move and (refreshing or busy or renewal.holds(engine, unit)) then
        -- A run may be about to commit there, and ours would skip what it has not handled: list first, wait for its end.
        unit.dirty = unit.dirty or refreshing
      elseif move and not part.moving then
        part.moving = true
        engine:effect { kind = "commit", unit = unit.id, topic = part.topic, partition = part.partition,
          offset = part.end_offset, refused = part.refused or nil }
      end
      if not read.error and not move then
        watch.read(unit, part)
      end
    end
  end
  local recovered = unit.unread and not failed
  unit.unread = failed
  if refreshing then
    unit.dirty = unit.dirty or recovered or false
    unit.phase = "idle"
    doors.settle(engine, unit)
    engine:look_in(unit, failed and watch.ACTIVE or watch.IDLE)
    renewal.plan(engine, unit)
  elseif unit.phase == "reading" then
    engine:evaluate(unit)
  end
  return { unit }
end

--- The group's commit was moved to the end for `reset = latest`: { unit, topic, partition, offset | error }.
function events.on_committed(engine, event)
  local unit = engine.by_id[event.unit]
  local part = unit and unit.index[event.topic] and unit.index[event.topic][event.partition]
  if not part then
    return {}
  end
  part.moving = nil
  facts.overtake(unit)
  if event.error then
    part.error = event.error -- refused: the start stays unknown
    engine:look_in(unit, watch.ACTIVE)
    return { unit }
  end
  part.committed, part.start, part.refused = event.offset, event.offset, nil
  part.calm_commit = event.offset -- our own move, nobody else's
  unit.dirty = true
  return { unit }
end

--- A renewal of quiet offsets was answered: { unit, error?, message? }.
function events.on_renewed(engine, event)
  renewal.answered(engine, event)
end

--- The answer of a submit: { unit, name, run } or { unit, name, error, message, retry_after }.
function events.on_submitted(engine, event)
  local unit = engine.by_id[event.unit]
  if not unit then
    return reload.late(engine, event)
  end
  submit.answered(engine, unit, event)
  return { unit }
end

--- The answer of asking for a run by name: { unit, name, run } or { unit, name, error }.
function events.on_got(engine, event)
  local unit = engine.by_id[event.unit]
  if not unit then
    return reload.late(engine, event)
  end
  submit.asked(engine, unit, event)
  return { unit }
end

return events
