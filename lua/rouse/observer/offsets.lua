--- Low and end offsets for everybody who asks at about the same time, in one question: what is asked while one is out goes with
--- the next. Who asks alone does not wait. What failed the last time is asked apart from the rest, which must not wait for a
--- broker that is away.
local task = require "rouse.task"

local Offsets = { __name = "rouse.offsets" }
Offsets.__index = Offsets

local offsets = {}

offsets.HOLD = 0.2 -- seconds that a question waits for one that is out, at most

---@class rouse.Offsets
---@field out table<string, table> lane → the question that was sent last and has no answer yet
---@field next table<string, table> lane → the one that gathers partitions
---@field ill table<string, boolean> partitions whose last answer was an error

---@param admin table the query handle
---@param timeout number seconds for each question
---@return rouse.Offsets
function offsets.new(admin, timeout)
  return setmetatable({ admin = admin, timeout = timeout, out = {}, next = {}, ill = {} }, Offsets)
end

local function key(item)
  return item.topic .. "/" .. item.partition
end

--- Sends a question and shares its answer; never raises, or those who wait would wait for ever.
function Offsets:send(question, lane)
  local before = self.out[lane]
  if before then
    before.done:wait(offsets.HOLD)
  end
  self.next[lane], self.out[lane] = nil, question
  local called, list, message, code = pcall(self.admin.offsets, self.admin,
    { partitions = question.partitions, at = question.at, timeout = self.timeout })
  if not called then
    list, message, code = nil, tostring(list), "BUG"
  end
  question.message, question.code = message, code
  for _, item in ipairs(list or {}) do
    question.answers[key(item)] = item
    self.ill[key(item)] = item.error and true or nil
  end
  question.answered = list ~= nil
  if self.out[lane] == question then
    self.out[lane] = nil
  end
  question.done:set()
end

--- Adds partitions to the question of a lane that has not been sent yet. Who makes one has it sent by a task of its own, and so
--- must stay until it is answered.
function Offsets:join(lane, at, partitions)
  local question, made = self.next[lane], false
  if not question then
    question, made = { at = at, partitions = {}, known = {}, answers = {}, done = task.event() }, true
    self.next[lane] = question
  end
  for _, part in ipairs(partitions) do
    if not question.known[key(part)] then
      question.known[key(part)] = true
      table.insert(question.partitions, { topic = part.topic, partition = part.partition })
    end
  end
  if made then
    task.spawn(self.send, self, question, lane)
  end
  return question
end

--- Asks for the low or end offsets of partitions.
---@param at "beginning"|"end"
---@param partitions rouse.partition[]
---@return rouse.partition[]|nil list in no particular order, string? message, string? code
function Offsets:ask(at, partitions)
  local lanes = { [false] = {}, [true] = {} }
  for _, part in ipairs(partitions) do
    table.insert(lanes[self.ill[key(part)] or false], part)
  end
  local questions, list = {}, {}
  for ill, some in pairs(lanes) do
    questions[ill] = #some > 0 and self:join((ill and "ill " or "well ") .. at, at, some) or nil
  end
  local failed
  for _, question in pairs(questions) do
    question.done:wait()
    failed = not question.answered and question or failed
  end
  if failed then
    return nil, failed.message, failed.code
  end
  for ill, some in pairs(lanes) do
    for _, part in ipairs(some) do
      list[#list + 1] = questions[ill].answers[key(part)]
    end
  end
  return list
end

return offsets
