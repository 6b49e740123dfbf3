-- Which offset of a partition may be committed: the one after the contiguous prefix of finished
-- records. A record that was finished before an earlier one does not move it, so that a commit
-- never passes a record whose outcome is unknown (C1).

local prefix = {}

---@class rouse.consumer.Prefix
---@field position integer|nil  next offset to consume, nil while nothing is finished
local methods = {}
local metatable = { __name = "rouse.consumer.prefix", __index = methods }

---A tracker for one partition of one assignment.
---@return rouse.consumer.Prefix
function prefix.new()
  return setmetatable({ offsets = {}, after = {}, head = 1, tail = 0, finished = {} }, metatable)
end

---Finishes a record that was never open, and all before it that are not. Called for each record, hence
---the direct assignment.
---@param offset integer
function methods:advance(offset)
  local tail = self.tail
  if self.head > tail then
    self.position = offset + 1
  else
    assert(offset > self.offsets[tail], "offsets must rise")
    self.after[tail] = offset + 1 -- where the position goes with the last open one
  end
end

---Opens a record; offsets must rise, gaps (compaction, transaction markers) are fine.
---@param offset integer
function methods:open(offset)
  local tail = self.tail
  assert(tail < self.head or offset >= (self.after[tail] or self.offsets[tail] + 1), "offsets must rise")
  self.offsets[tail + 1] = offset
  self.tail = tail + 1
end

---Finishes an open record, in any order.
---@param offset integer
---@return integer|nil position
function methods:finish(offset)
  local offsets, finished, after, head = self.offsets, self.finished, self.after, self.head
  finished[offset] = true
  while head <= self.tail and finished[offsets[head]] do
    self.position = after[head] or offsets[head] + 1
    finished[offsets[head]] = nil
    offsets[head], after[head] = nil, nil
    head = head + 1
  end
  if head > self.tail then
    head, self.tail = 1, 0
  end
  self.head = head
  return self.position
end

---How many records are open or finished ahead of the prefix.
---@return integer
function methods:pending()
  return self.tail - self.head + 1
end

return prefix
