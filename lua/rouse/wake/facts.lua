--- What is known of one partition for one group, and where its work starts (pure). Unknown is not zero: a failed read keeps
--- what was known and is noted in `error`.
local facts = {}

---@class rouse.Part
---@field topic string
---@field partition integer
---@field committed integer|false|nil false: no commit; nil: not read yet
---@field start integer? where the group's work starts; nil: unknown
---@field low integer?
---@field end_offset integer?
---@field proof integer? offset of a consumable record that a ring has shown
---@field refused integer|false|nil the commit value at which the broker answered "offset out of range"
---@field error string? code of the last failed read
---@field want integer? where the doorbell should be armed for this part; nil: not at all

function facts.part(topic, partition)
  return { topic = topic, partition = partition }
end

--- Takes the answer of a read into a part.
---@param part rouse.Part
---@param read { committed: integer|false|nil, low: integer?, end_offset: integer?, error: string? }
---@param reset "earliest"|"latest"
---@return boolean commit_end whether the reset policy needs the group's commit moved to the end first
function facts.take(part, read, reset)
  part.error = read.error
  if read.error then
    part.proof = nil -- it would be older than what the next reading tells, of another topic of this name even
    return false
  end
  part.low = read.low or part.low
  part.end_offset = read.end_offset or part.end_offset
  if part.proof and ((part.low or 0) > part.proof or (read.end_offset or math.huge) <= part.proof) then
    part.proof = nil -- the record that proved work is gone, with the head of the log or with the whole topic
  end
  part.committed = read.committed
  local out_of_range = read.committed and part.refused == read.committed
    and not (read.end_offset and part.low and part.low <= read.committed and read.committed <= read.end_offset)
  if not out_of_range then
    part.refused = nil
  end
  if read.end_offset then
    part.beyond = read.committed and not out_of_range and read.committed > read.end_offset
    part.probed = part.beyond and part.probed -- see rouse.wake.doors
  end
  if read.committed and not out_of_range then
    part.start = read.committed
  elseif reset == "earliest" then
    part.start = part.low
  else
    part.start = nil
  end
  if part.tried and part.start and part.start ~= part.tried.start then
    part.tried = nil -- there was progress: what comes to this start again, in a topic made anew say, begins anew
  end
  return part.start == nil and reset ~= "earliest" and part.end_offset ~= nil
end

--- A write of ours to the offsets of a group was answered, or given up: a reading under way was sent before, and nobody knows
--- which of the two it will tell of. It is thrown away when it comes.
---@param unit rouse.Unit
function facts.overtake(unit)
  unit.overtaken = unit.phase == "reading" or unit.phase == "refreshing" or nil
end

--- A ring with a record: work from the start to there is proven.
function facts.prove(part, offset)
  part.proof = math.max(part.proof or offset, offset)
end

--- An error ring: the broker refuses the position. No proof survives it; where it is the start, that counts for this commit
--- value only.
function facts.refuse(part, position)
  part.proof = nil
  if part.start == position or part.start == nil then
    part.start = nil
    part.refused = part.committed or part.refused
  end
end

--- Whether a consumable record is known to exist at or past the start.
function facts.has_work(part)
  return part.start ~= nil and part.proof ~= nil and part.start <= part.proof
end

--- Records between start and end, for rules and people; nil when unknown.
function facts.lag(part)
  if not (part.start and part.low and part.end_offset) then
    return nil
  end
  return math.max(0, part.end_offset - math.max(part.start, part.low))
end

return facts
