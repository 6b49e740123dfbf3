--- Taking over new routes and a new rule between two events (pure). A unit that is still there keeps what it knows: partitions
--- with proofs, attempts, waits, windows. One that is gone is disarmed; its runs are not touched. New ones start.
local doors = require "rouse.wake.doors"

local reload = {}

-- Where a setting stands in its file is no setting.
local PLACE <const> = { line = true, column = true }

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if not PLACE[key] and not same(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if not PLACE[key] and a[key] == nil then
      return false
    end
  end
  return true
end

--- Whether two values without cycles are the same; lines and columns do not count.
reload.same = same

local function leave(engine, part)
  local door = doors.of(engine, part.topic, part.partition)
  for i, other in ipairs(door.parts) do
    if other == part then
      table.remove(door.parts, i)
      break
    end
  end
  engine.touched[door] = true
end

--- Forgets the partitions of topics that `gone` names.
function reload.drop(engine, unit, gone)
  local kept = {}
  for _, part in ipairs(unit.parts) do
    if gone(part.topic) then
      leave(engine, part)
      unit.index[part.topic] = nil
    else
      kept[#kept + 1] = part
    end
  end
  unit.parts = kept
end

local ANSWERS <const> = { reading = "offsets", refreshing = "offsets", submitting = "submitted", asking = "got" }

--- A unit whose answer is still on its way is kept aside until it arrives: another of the same name would be given it.
local function retire(engine, unit)
  reload.drop(engine, unit, function() return true end)
  engine.by_id[unit.id] = nil
  if ANSWERS[unit.phase] then
    engine.retired[unit.id] = unit
  end
end

--- An answer for a unit that is gone.
---@return rouse.Unit[] moved none of those that are there
function reload.late(engine, event)
  local unit = engine.retired[event.unit]
  if unit and ANSWERS[unit.phase] == event.kind then
    engine.retired[event.unit] = nil
  end
  return {}
end

--- Another target takes over where nothing is under way at the one before.
function reload.retarget(unit)
  if unit.next_target and (unit.phase == "idle" or unit.phase == "waiting" or unit.phase == "listing") then
    unit.target, unit.next_target = unit.next_target, nil
    unit.phase, unit.dirty = "idle", true
  end
end

local function update(engine, unit, given, rule_changed)
  local topics = given.topics
  if unit.mode ~= given.mode then -- the offsets of one mode mean nothing in the other
    reload.drop(engine, unit, function() return true end)
    unit.mode, unit.group = given.mode, given.group
  end
  reload.drop(engine, unit, function(topic) return unit.topics[topic] and not topics[topic] end)
  if rule_changed or not same(unit.spec, given.spec or {}) then
    unit.wait_until = nil -- what the rule said, it said about something else
    if unit.asked then
      unit.asked.env = {}
    end
    for _, part in ipairs(unit.parts) do
      part.ignored = nil
    end
  end
  unit.topics, unit.spec, unit.assign = topics, given.spec or {}, given.assign or "group"
  unit.next_target = given.target ~= unit.target and given.target or nil
  reload.retarget(unit)
end

--- Takes over what a "reload" event brings: { units, jobs (definitions of new jobs), decide, rule_changed, renew }.
---@return { added: string[], kept: string[], removed: string[] } ids of units
function reload.apply(engine, event)
  local before, result = engine.by_id, { added = {}, kept = {}, removed = {} }
  local old = engine.units
  engine.units, engine.by_id = {}, {}
  for name, env in pairs(event.jobs or {}) do
    engine.jobs[name] = env
  end
  engine.decide, engine.renew = event.decide or engine.decide, event.renew
  for _, given in ipairs(event.units) do
    given.target = given.target or "codeengine"
    local id = given.job .. "/" .. (given.group or "claims")
    local unit = before[id] or engine.retired[id]
    result[before[id] and "kept" or "added"][#result[before[id] and "kept" or "added"] + 1] = id
    engine.retired[id] = nil
    if unit then
      engine.units[#engine.units + 1], engine.by_id[id] = unit, unit
      engine:target_of(given.target)
      update(engine, unit, given, event.rule_changed)
    else
      unit = engine:add(given)
    end
    unit.dirty = true
  end
  for _, unit in ipairs(old) do
    if not engine.by_id[unit.id] then
      retire(engine, unit)
      result.removed[#result.removed + 1] = unit.id
    end
  end
  return result
end

return reload
