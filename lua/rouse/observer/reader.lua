--- Reads a unit's offsets: the group's commits first, then low and end offsets (read the other way round, a commit in between
--- would show as negative lag). What cannot be read is unknown, never zero.
local reader = {}

reader.TIMEOUT = 10 -- seconds

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
  local bounds
  bounds, message, code = offsets:bounds(parts)
  if not bounds then
    return nil, message, code
  end
  for i, read in ipairs(parts) do
    read.low, read.end_offset, read.error = bounds[i].low, bounds[i].end_offset, read.error or bounds[i].error
  end
  return parts
end

return reader
