--- Renewal of committed offsets (pure). A broker forgets those of a group that commits nothing for long, and the group's next
--- start would read its topics from the beginning: so they are committed again, as they are, where nobody of it is at work.
---
--- A commit is no compare-and-swap, and one that came late would take back what a consumer has committed since. Hence the order:
--- runs are listed, commits read, and both show quiet; commits are read again right before they are written, and what has moved
--- in between is left alone, for it is new. Until the answer is there nothing is submitted for the group. What remains is who is
--- in no list and commits between the second reading and the write: milliseconds, or as long as the group's coordinator is away.
local backoff = require "rouse.backoff"
local coverage = require "rouse.wake.coverage"
local facts = require "rouse.wake.facts"
local places = require "rouse.places"

local renewal = {}

renewal.DEFAULT = { first = 300, every = 86400 } -- Event Streams keeps offsets of quiet groups for 7 days
renewal.PATIENCE = 2 -- seconds that the second reading may take, more after failures: better late than expired

local RETRY <const> = { first = 60, max = 3600 } -- seconds after a renewal that failed
local BUSY <const> = 5 -- seconds after a look that found the group's submit under way

-- Seconds after a submit whose answer was lost and whose run was not found: a target may carry it out late.
local DOUBT <const> = 120

--- How often offsets are renewed, from a script's `renew_offsets`.
---@param choice boolean|number|nil
---@return { first: number, every: number }|nil
function renewal.choice(choice)
  if choice == false then
    return nil
  elseif type(choice) == "number" then
    return { first = choice, every = choice }
  end
  return renewal.DEFAULT
end

-- A commit that counts: not one that the broker refuses to fetch at, of a topic made anew say.
local function is_candidate(part)
  return part.committed and part.start == part.committed and not part.error and not part.moving
end

--- Tells of a partition whether a run serves it, by all that was listed.
---@return fun(topic: string, partition: integer): boolean
local function served(engine, unit)
  local covers = {}
  for _, target in pairs(engine.targets) do
    covers[#covers + 1] = coverage.of(target.runs, unit, engine.jobs)
  end
  return function(topic, partition)
    for _, cover in ipairs(covers) do
      if cover.instances > 0 or cover.index[topic] and cover.index[topic][partition] then
        return true -- while instances share the group it has members, and a broker forgets nothing of theirs
      end
    end
    return false
  end
end

--- Plans the look at which the unit's offsets are renewed.
function renewal.plan(engine, unit)
  local how = engine.renew
  if how and unit.mode == "lag" then
    unit.renew_at = unit.renew_at or engine.clock + how.first
    if engine.clock < unit.renew_at then
      engine:look_in(unit, unit.renew_at - engine.clock)
    end
  end
end

--- Whether the unit's offsets are to be renewed now; the next look needs the run list then.
function renewal.is_due(engine, unit)
  if not engine.renew or unit.mode ~= "lag" or engine.renewing[unit.id]
    or engine.clock < (unit.renew_at or math.huge) then
    return false
  end
  for _, part in ipairs(unit.parts) do
    if is_candidate(part) then
      return true
    end
  end
  return false
end

--- Seconds to wait because a run of the group may be there any moment; nil where none may.
local function expects_run(engine, group)
  local wait
  for _, units in ipairs { engine.by_id, engine.retired } do
    for _, unit in pairs(units) do
      local doubt = (unit.doubt_until or 0) - engine.clock
      if unit.group == group and (unit.phase == "submitting" or unit.phase == "asking") then
        return BUSY
      elseif unit.group == group and doubt > 0 then
        wait = math.max(wait or 0, doubt)
      end
    end
  end
  return wait
end

--- After an evaluation, whose list and reading are fresh: renews what is due, or plans it.
function renewal.look(engine, unit)
  renewal.plan(engine, unit)
  if unit.phase ~= "idle" or not renewal.is_due(engine, unit) then
    return
  end
  local wait = expects_run(engine, unit.group) -- of another job too
  if wait then
    unit.renew_at = math.max(unit.renew_at, engine.clock + wait)
    return engine:look_in(unit, wait)
  end
  local is_served, partitions = served(engine, unit), {}
  for _, part in ipairs(unit.parts) do
    if is_candidate(part) and not is_served(part.topic, part.partition) then
      partitions[#partitions + 1] = { topic = part.topic, partition = part.partition, offset = part.committed }
    end
  end
  if #partitions > 0 then
    engine.renewing[unit.id] = unit.group
    engine:effect { kind = "renew", unit = unit.id, group = unit.group, partitions = partitions,
      patience = renewal.PATIENCE * (1 + (unit.renew_failures or 0)) }
  end
end

--- A submit was lost, as far as anybody can tell now.
function renewal.doubt(engine, unit)
  unit.doubt_until = engine.renew and engine.clock + DOUBT or nil
end

--- Whether offsets of the unit's group are being renewed. If so, its answer has the unit evaluated.
function renewal.holds(engine, unit)
  for _, group in pairs(unit.mode == "lag" and engine.renewing or {}) do
    if group == unit.group then
      unit.awaits_renewal = true
      return true
    end
  end
  return false
end

--- Between the second reading and the write: what to write, and a code where that is not all.
---@param effect table the engine's `renew`
---@param list { topic: string, partition: integer, offset: integer?, error: string? }[] the commits as they are
---@param took number seconds that this reading took
---@return table[] commits, string? code, string? message
function renewal.commits(engine, effect, list, took)
  local unit, expected, commits, code = engine.by_id[effect.unit], {}, {}, nil
  if not unit then
    return commits -- a reload was quicker
  elseif took > effect.patience then
    return commits, "SLOW", ("the group's offsets took %.1f s to read"):format(took)
  end
  for _, part in ipairs(effect.partitions) do
    places.set(expected, part, part.offset)
  end
  local is_served = served(engine, unit)
  for _, item in ipairs(list) do
    code = code or item.error
    if not item.error and item.offset and item.offset == places.get(expected, item)
      and not is_served(item.topic, item.partition) then
      commits[#commits + 1] = item
    end
  end
  return commits, code
end

-- The group has members now: their own commits count, and while they are there nothing expires.
local MEMBERS = { UNKNOWN_MEMBER_ID = true, NON_EMPTY_GROUP = true }

--- The event that answers a `renew`. Members are no failure.
---@return table event, boolean members
function renewal.answer(effect, code, message)
  local members = MEMBERS[code] or false
  return { kind = "renewed", unit = effect.unit, error = not members and code or nil,
    message = not members and message or nil }, members
end

--- A renewal was answered: what waited for it goes on. One that failed is tried again soon, long before anything expires.
function renewal.answered(engine, event)
  local group, unit = engine.renewing[event.unit], engine.by_id[event.unit]
  engine.renewing[event.unit] = nil
  for _, other in ipairs(engine.units) do
    if group and other.group == group then
      other.awaits_renewal, other.dirty = nil, other.dirty or other.awaits_renewal
      if event.error then -- a write that was given up may still land; until then the client reads nothing of the group
        facts.overtake(other)
      end
    end
  end
  if not unit then
    return
  end
  local how = engine.renew or renewal.DEFAULT
  if not event.error then
    unit.renew_failures, unit.renew_failure, unit.renew_at = nil, nil, engine.clock + how.every
    return engine:look_in(unit, how.every)
  end
  unit.renew_failures, unit.renew_failure = (unit.renew_failures or 0) + 1, event.message or event.error
  local seconds = backoff.delay(unit.renew_failures, { first = RETRY.first, max = RETRY.max, random = engine.random })
  unit.renew_at = engine.clock + math.min(seconds, how.every)
  engine:look_in(unit, unit.renew_at - engine.clock)
  engine:effect { kind = "note", unit = unit.id, job = unit.job, group = unit.group, code = "not_renewed",
    fields = { error = event.error, reason = event.message, seconds = unit.renew_at - engine.clock } }
end

return renewal
