--- Reads a unit's offsets: the group's commits first, then low and end offsets (read the other way round, a commit in between
--- would show as negative lag). What cannot be read is unknown, never zero.
local task = require "rouse.task"

local reader = {}

reader.TIMEOUT = 10 -- seconds

local function key(part)
  return part.topic .. "/" .. part.partition
end

local function plain(parts)
  local list = {}
  for i, part in ipairs(parts) do
    list[i] = { topic = part.topic, partition = part.partition }
  end
  return list
end

--- Adds low or end offsets to reads; an error per partition is that partition's.
local function add(reads, name, list)
  for _, item in ipairs(list or {}) do
    local read = reads[key(item)]
    if read and item.error then
      read.error = read.error or item.error
    elseif read then
      read[name] = item.offset
    end
  end
end

--- Reads what an engine's `read` effect asks for.
---@param admin table the query handle
---@param offsets rouse.Offsets
---@param unit rouse.Unit
---@param commits_only boolean?
---@return table[]|nil parts for the engine's offsets event, string? message, string? code
function reader.read(admin, offsets, unit, commits_only)
  local partitions = plain(unit.parts)
  local committed, message, code = admin:group_offsets {
    group = unit.group, partitions = partitions, timeout = reader.TIMEOUT,
  }
  if not committed then
    return nil, message, code
  end
  local parts, reads = {}, {}
  for i, item in ipairs(committed) do
    local read = { topic = item.topic, partition = item.partition, error = item.error,
      committed = item.offset or false }
    parts[i], reads[key(item)] = read, read
  end
  if commits_only then
    return parts
  end
  local low = task.spawn(offsets.ask, offsets, "beginning", partitions)
  local ends, end_message, end_code = offsets:ask("end", partitions)
  local lows, low_message, low_code = low:join()
  if not ends or not lows then
    return nil, end_message or low_message, end_code or low_code
  end
  add(reads, "low", lows)
  add(reads, "end_offset", ends)
  return parts
end

return reader
