--- What commits tell between evaluations (pure): a group that somebody else serves, and a run that makes no progress while there
--- is work.
local facts = require "rouse.wake.facts"

local watch = {}

watch.ACTIVE = 5 -- seconds between evaluations while a run is active
watch.IDLE = 60 -- seconds between readings of an idle group's commits
watch.AHEAD = 10 -- seconds that such a reading may be early, to go with another group's: answers that come together cost half
watch.COMMIT_INTERVAL = 10 -- seconds within which a consumer that lives has committed
watch.STUCK = 900 -- seconds without a commit, while a run is active and there is work

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

return watch
