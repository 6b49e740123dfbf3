--- Doors (pure): one per topic and partition, where the doorbell stands for all units together, and how far claims are done.
local claims = require "rouse.wake.claims"
local facts = require "rouse.wake.facts"
local places = require "rouse.places"

local doors = {}

--- The door of a partition.
function doors.of(self, topic, partition)
  local of_topic = self.doors[topic]
  local door = of_topic and of_topic[partition]
  if not door then
    door = { topic = topic, partition = partition, parts = {} }
    places.set(self.doors, door, door)
  end
  return door
end

--- Arms a partition at the smallest offset wanted, and says how far claims are done.
function doors.adjust(self, door)
  local want, owed
  for _, part in ipairs(door.parts) do
    if part.want and (not want or part.want < want) then
      want = part.want
    end
    local first = claims.first(part)
    if first and (not owed or first < owed) then
      owed = first
    end
  end
  for _, part in ipairs(door.parts) do
    if part.probe and want and part.probe > want then
      want = part.probe
    end
  end
  if want ~= door.armed then
    door.armed = want
    self:effect { kind = want and "arm" or "disarm", topic = door.topic, partition = door.partition, offset = want }
  end
  local done = owed or door.claimed
  if done and done ~= door.done then
    door.done = done
    self:effect { kind = "done", topic = door.topic, partition = door.partition, offset = done }
  end
end

local PROBE = 2 -- seconds within which a broker refuses a position

--- A commit beyond the end is one of a former topic, or lies in an open transaction: only the broker knows. Where another group's
--- smaller start would keep the doorbell from it, it is asked once.
local function probe(self, unit, part)
  local wanted = part.want and part.beyond and part.want == part.start and part.probed ~= part.start
  if wanted then
    part.probe_until = part.probe_until or self.clock + PROBE
    if self.clock >= part.probe_until then
      part.probed, wanted = part.start, false
    else
      unit.due = math.min(unit.due or part.probe_until, part.probe_until)
    end
  end
  part.probe = wanted and part.start or nil
  part.probe_until = wanted and part.probe_until or nil
end

-- Where a part waits for a record that changes something.
local function where(part)
  if part.covered or part.submitting or part.start == nil then
    return nil
  elseif part.error then
    return part.want -- once it has rung it stays silent, or it would ring again for as long as the reading fails
  elseif facts.has_work(part) then
    return part.ignored and part.proof < part.ignored and part.ignored or part.held or part.start
  end
  return part.start
end

--- Where the doorbell should stand for each part of the unit.
function doors.settle(self, unit)
  if unit.mode ~= "lag" then
    return
  end
  for _, part in ipairs(unit.parts) do
    local want, probed = part.want, part.probe
    part.want = where(part)
    probe(self, unit, part)
    if part.want ~= want or part.probe ~= probed then
      self.touched[doors.of(self, part.topic, part.partition)] = true
    end
  end
end

return doors
