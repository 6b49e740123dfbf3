--- Claims mode in the engine (pure): what records ask for, and when the records of a unit are done. The bookkeeping of one
--- part is rouse.wake.claims.
local claims = require "rouse.wake.claims"
local coverage = require "rouse.wake.coverage"
local doors = require "rouse.wake.doors"
local facts = require "rouse.wake.facts"

local claiming = { events = {} } -- events: methods of the engine

--- A claimed record asks for a wake of the unit's job. A key with an open window suppresses it until the window ends.
function claiming.claim(engine, unit, part, first, last, asked)
  local was = part.owed
  claims.add(part, first, last, engine.clock)
  unit.asked = unit.asked or { keys = {}, env = {} }
  local window = asked.dedup and (asked.window or unit.spec.dedup_window or 0) or 0
  local key = asked.dedup and unit.id .. "\0" .. asked.dedup
  local open_until = key and engine.windows[key]
  if open_until and open_until > engine.clock then
    if not was or was.not_before then
      part.owed.not_before = math.max(open_until, was and was.not_before or 0)
    end
    unit.due = math.min(unit.due or open_until, open_until)
    return
  end
  part.owed.not_before = nil
  if window > 0 then
    unit.asked.keys[key] = window
  end
  for name, value in pairs(asked.env or {}) do
    unit.asked.env[name] = value
  end
  unit.asked.reason = asked.reason or unit.asked.reason
  unit.dirty = true
end

--- After a listing: what covering runs made of the records they covered, and whether anything is owed now.
function claiming.review(engine, unit)
  local target = engine.targets[unit.target]
  unit.owing = nil
  for _, part in ipairs(unit.parts) do
    local outcome = claims.review(part, target.listed, target.sent, unit.spec.idle_timeout or 60, coverage.finished)
    if outcome == "done" then
      engine.touched[doors.of(engine, part.topic, part.partition)] = true
    end
    local owed = part.owed
    if owed and owed.not_before and owed.not_before > engine.clock then
      unit.due = math.min(unit.due or owed.not_before, owed.not_before)
    elseif owed and not owed.cover then
      unit.owing = true
    end
  end
end

--- Everything owed is covered by the runs that are active now.
function claiming.covered(_, unit)
  if unit.mode ~= "claims" or not unit.owing then
    return
  end
  for _, part in ipairs(unit.parts) do
    claims.cover(part, unit.running)
  end
end

function claiming.settle(engine, unit, accepted)
  for _, part in ipairs(unit.mode == "claims" and unit.parts or {}) do
    claims.settle(part, accepted)
    engine.touched[doors.of(engine, part.topic, part.partition)] = true
  end
end

-- ---- events ----

--- The part that owes a record; a script may wake a job for a record of a topic that is not the job's own.
local function claimed_part(engine, unit, topic, partition)
  local index = unit.index[topic] or {}
  unit.index[topic] = index
  if not index[partition] then
    local part = facts.part(topic, partition)
    part.foreign = true
    index[partition] = part
    unit.parts[#unit.parts + 1] = part
    table.insert(doors.of(engine, topic, partition).parts, part)
  end
  return index[partition]
end

--- Claims mode: records were claimed. { topic, partition, offset, last?, wakes = { { job, dedup, window, env, reason } } }.
function claiming.events.on_claimed(engine, event)
  local moved = {}
  for _, asked in ipairs(event.wakes) do
    for _, unit in ipairs(engine.units) do
      if asked.job == unit.job and unit.mode == "claims" then
        local part = claimed_part(engine, unit, event.topic, event.partition)
        claiming.claim(engine, unit, part, event.offset, event.last or event.offset, asked)
        moved[#moved + 1] = unit
      end
    end
  end
  local door = doors.of(engine, event.topic, event.partition)
  door.claimed = math.max(door.claimed or 0, (event.last or event.offset) + 1)
  engine.touched[door] = true
  return moved
end

--- Claims mode: the partition was given to somebody else; what was owed there is theirs now.
function claiming.events.on_released(engine, event)
  for _, unit in ipairs(engine.units) do
    local part = unit.mode == "claims" and unit.index[event.topic] and unit.index[event.topic][event.partition]
    if part then
      part.owed, part.riding = nil, nil
    end
  end
  local door = doors.of(engine, event.topic, event.partition)
  door.claimed, door.done = nil, nil
end

return claiming
