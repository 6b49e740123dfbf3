--- What commits tell between evaluations (pure): a group that somebody else serves, a run that makes no progress while there is
--- work, and offsets of quiet groups that have to be renewed before they expire.
local backoff = require "rouse.backoff"
local facts = require "rouse.wake.facts"

local watch = {}

watch.ACTIVE = 5 -- seconds between evaluations while a run is active
watch.IDLE = 60 -- seconds between readings of an idle group's commits
watch.COMMIT_INTERVAL = 10 -- seconds within which a consumer that lives has committed
watch.STUCK = 900 -- seconds without a commit, while a run is active and there is work
watch.RENEW = { first = 300, every = 86400 } -- Event Streams keeps offsets of quiet groups for 7 days

--- A run of a job was seen to have ended: every unit that shares a group with it has to know when it looks.
function watch.ended(engine, job)
  for _, unit in ipairs(engine.units) do
    for _, other in ipairs(unit.job == job and engine.units or {}) do
      other.newly = other.newly or other.group == unit.group
    end
  end
end

watch.SOON = 2 -- seconds: where runs vanish when they end, none that was created after a listing was sent has gone by then

--- A listing was taken in. In calm, no run of ours is active or has ended since this unit looked the last time: it was somebody
--- else then who moved a commit between two earlier readings in calm, for a run of ours that did it was there before this listing
--- was sent, and would show. A listing so slow that a run may have come and vanished meanwhile tells nothing.
---@param unit rouse.Unit
---@param active boolean
---@param age number seconds since the listing was sent
function watch.listed(unit, active, age)
  unit.calm, unit.newly = not active and not unit.newly and age <= watch.SOON, nil
  for _, part in ipairs(unit.parts) do
    part.served = part.served or unit.calm and part.moved or nil
    part.moved = nil
    if not unit.calm then
      part.calm_commit = nil -- also when the reading that follows fails
    end
  end
end

--- A part was read, after a listing or not: a commit that moved forward between two readings in calm is for the next listing to
--- judge. Set back or gone is nobody's work: an operator wants the records again, or the topic is a new one.
function watch.read(unit, part)
  if not unit.calm or part.moving then -- or it is we who move it
    return
  end
  part.moved = part.moved or part.calm_commit ~= nil and (part.committed or -1) > (part.calm_commit or -1) or nil
  part.calm_commit = part.committed
end

--- Seconds that an open part of a group served by somebody else still waits for its commit to stand still; 0: submit.
function watch.still(part, clock)
  if not part.served then
    return 0
  end
  if part.still_commit ~= part.committed then
    part.still_commit, part.still_since = part.committed, clock
  end
  return math.max(0, part.still_since + watch.COMMIT_INTERVAL - clock)
end

--- Nothing waits on the part, or its wake is on its way.
function watch.quiet(part)
  part.still_commit, part.still_since = nil, nil
end

--- After an evaluation: parts that are covered, have work and do not move. Told once per standstill.
function watch.progress(engine, unit)
  for _, part in ipairs(unit.parts) do
    if not (part.covered and facts.has_work(part)) or part.stuck_commit ~= part.committed then
      part.stuck_commit, part.stuck_since, part.stuck = part.committed, engine.clock, nil
    elseif not part.stuck and engine.clock - part.stuck_since >= watch.STUCK then
      part.stuck = true
      engine:effect { kind = "note", unit = unit.id, job = unit.job, group = unit.group, code = "stuck", fields = {
        topic = part.topic, partition = part.partition, committed = part.committed or nil,
        seconds = engine.clock - part.stuck_since,
      } }
    end
  end
end

local RETRY <const> = { first = 60, max = 3600 } -- seconds after a renewal that failed

--- Renews the offsets of a group in time before the broker forgets them: those of partitions that no run of ours can commit for.
--- While instances share a group it has members, and a broker forgets nothing of theirs.
function watch.renew(engine, unit)
  local how = engine.renew
  if not how or unit.mode ~= "lag" then
    return
  end
  unit.renew_at = unit.renew_at or engine.clock + how.first
  if engine.clock < unit.renew_at then
    return engine:look_in(unit, unit.renew_at - engine.clock)
  elseif unit.renewing or (unit.shared or 0) > 0 or unit.phase ~= "idle" then
    return
  end
  local partitions = {}
  for _, part in ipairs(unit.parts) do
    if part.committed and not part.error and not part.indexed and not part.moving then
      partitions[#partitions + 1] = { topic = part.topic, partition = part.partition }
    end
  end
  if #partitions == 0 then
    return
  end
  unit.renewing = true
  engine:effect { kind = "renew", unit = unit.id, group = unit.group, partitions = partitions }
end

--- A renewal was answered; one that failed is tried again soon, long before anything expires.
function watch.renewed(engine, unit, event)
  local how = engine.renew or watch.RENEW
  unit.renewing = nil
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

return watch
