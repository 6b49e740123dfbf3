--- Doors (pure): one per topic and partition, where the doorbell stands for all units together, and how far claims are done.
local claims = require "rouse.wake.claims"
local facts = require "rouse.wake.facts"

local doors = {}

--- The door of a partition.
function doors.of(self, topic, partition)
  local key = topic .. "/" .. partition
  local door = self.doors[key]
  if not door then
    door = { topic = topic, partition = partition, parts = {} }
    self.doors[key] = door
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

--- Where the doorbell should stand for each part of the unit.
function doors.settle(self, unit)
  if unit.mode ~= "lag" then
    return
  end
  for _, part in ipairs(unit.parts) do
    if part.covered or part.submitting or part.start == nil then
      part.want = nil
    elseif part.ignored and facts.has_work(part) and part.proof < part.ignored then
      part.want = part.ignored
    elseif part.held and facts.has_work(part) then
      part.want = part.held
    else
      part.want = part.start
    end
    self.touched[doors.of(self, part.topic, part.partition)] = true
  end
end

return doors
