--- Reads a unit's offsets: the group's commits first, then low and end offsets (read the other way round, a commit in between
--- would show as negative lag). What cannot be read is unknown, never zero.
local places = require "rouse.places"
local task = require "rouse.task"

local reader = {}

reader.TIMEOUT = 10 -- seconds

--- Adds low or end offsets to reads; an error per partition is that partition's.
local function add(reads, name, list)
  for _, item in ipairs(list or {}) do
    local read = places.get(reads, item)
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
  local partitions = unit.parts -- a part names its place; the handle reads no more of it
  local parts, message, code = admin:group_offsets {
    group = unit.group, partitions = partitions, timeout = reader.TIMEOUT,
  }
  if not parts then
    return nil, message, code
  end
  for _, read in ipairs(parts) do
    read.committed, read.offset = read.offset or false, nil
  end
  if commits_only then
    return parts
  end
  local reads = {}
  for _, read in ipairs(parts) do
    places.set(reads, read, read)
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
