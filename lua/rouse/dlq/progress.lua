-- Which dead letters of a partition were replayed: all before an offset, and some stretches after it.
-- Kept in Kafka as a commit of a group of its own, the stretches as its metadata. Pure.

local progress = {}

-- Brokers keep so much metadata with a commit (offset.metadata.max.bytes).
local MOST <const> = 4096
local PREFIX <const> = "replayed"

---@class rouse.dlq.Progress
---@field low integer  everything before it is replayed
---@field ranges {first: integer, last: integer}[]  sorted, apart from each other and from low
local methods = {}
local metatable = { __name = "rouse.dlq.progress", __index = methods }

---Reads a commit. Metadata of somebody else counts as none.
---@param offset integer|nil  the committed offset
---@param metadata string|nil
---@return rouse.dlq.Progress
function progress.read(offset, metadata)
  local self = setmetatable({ low = offset or 0, ranges = {} }, metatable)
  local text = metadata and metadata:match("^" .. PREFIX .. "(.*)$")
  local at = self.low
  for gap, length in (text or ""):gmatch("%+(%d+)x(%d+)") do
    local first = at + math.tointeger(gap)
    at = first + math.tointeger(length)
    self.ranges[#self.ranges + 1] = { first = first, last = at - 1 }
  end
  return self
end

---@param offset integer
---@return boolean
function methods:has(offset)
  if offset < self.low then return true end
  for _, range in ipairs(self.ranges) do
    if offset <= range.last then return offset >= range.first end
  end
  return false
end

---Adds the offsets from first to last: replayed, or nothing is there.
---@param first integer
---@param last integer
function methods:add(first, last)
  if last < math.max(first, self.low) then return end
  local at = #self.ranges + 1
  while at > 1 and self.ranges[at - 1].first > first do at = at - 1 end
  table.insert(self.ranges, at, { first = first, last = last })
  self:join()
end

---Everything before the offset is replayed, or there is nothing.
---@param offset integer
function methods:raise(offset)
  if offset > self.low then
    self.low = offset
    self:join()
  end
end

function methods:join()
  local joined = {}
  for _, range in ipairs(self.ranges) do
    local before = joined[#joined]
    if range.first <= self.low then
      self.low = math.max(self.low, range.last + 1)
    elseif before and range.first <= before.last + 1 then
      before.last = math.max(before.last, range.last)
    else
      joined[#joined + 1] = range
    end
  end
  self.ranges = joined
end

---The commit that says so, or nil when there are too many stretches for one.
---@return integer|nil offset
---@return string metadata or the message
function methods:write()
  local parts, at = { PREFIX }, self.low
  for _, range in ipairs(self.ranges) do
    parts[#parts + 1] = ("+%dx%d"):format(range.first - at, range.last - range.first + 1)
    at = range.last + 1
  end
  local text = table.concat(parts)
  if #text > MOST then
    return nil, "too many separate stretches are replayed to be noted; replay what lies between them too"
  end
  return self.low, text
end

return progress
