-- Records of a partition that are given up, and their dead letters. A letter is not waited for at once:
-- the records after it are handled beside, up to so many, and only the commit stays before it (C1). One
-- that was not written is tried again before anything else is handled. Methods of
-- rouse.consumer.partition.

local retry = require "rouse.consumer.retry"

---@class rouse.consumer.Letter
---@field record table
---@field why string
---@field attempts integer
---@field message string|nil  why the first try failed, if it did
---@field code string|nil

---@class rouse.consumer.Partition
---@field underway integer  letters that are not acknowledged yet
---@field failed rouse.consumer.Letter[]  those that were not written at first
---@field beyond integer  records handled since letters are under way
local methods = {}

---Gives up an open record (rouse.consumer.prefix). Returns true when that is finished or its letter is under
---way, false when the partition was stopped or parked.
---@param record table
---@param why string|nil
---@param attempts integer
---@return boolean
function methods:give_up(record, why, attempts)
  local letter = { record = record, why = why or "no reason given", attempts = attempts }
  if self.letters == 0 or not self.bury then
    local buried = self:bury_now(letter)
    if buried then self.prefix:finish(record.offset) end
    return buried
  end
  if self.underway == 0 and #self.failed == 0 then self.beyond = 0 end
  self.underway = self.underway + 1
  self.task.spawn(self.bury_beside, self, letter)
  return true
end

-- The first try of a letter, in a task of its own.
function methods:bury_beside(letter)
  local called, sent, message, code = pcall(self.bury, letter.record, letter.why, letter.attempts)
  if not called then
    if tostring(sent):find "^cancelled" then error("cancelled", 0) end
    sent = nil -- a bug: it is met again, and told, in the partition's own task
  end
  self.underway = self.underway - 1
  if sent then
    self.prefix:finish(letter.record.offset)
  else
    letter.message, letter.code = message, code
    self.failed[#self.failed + 1] = letter
  end
  if self.waiting == "letters" or (self.waiting == "records" and not sent) then self:wake() end
  if self.underway == 0 and self.state == "running" then self:on_change() end
end

---Writes a letter and waits for it, again and again where that fails. False when the partition was stopped
---or parked before.
---@param letter rouse.consumer.Letter
---@return boolean
function methods:bury_now(letter)
  local tried = 0
  while not self.stopping do
    tried = tried + 1
    local buried = self:try_bury(letter, tried)
    if not buried or buried == true then return buried end
    self:park("retry", buried)
  end
  return false
end

---One try to be rid of a dead record: true once its dead letter is acknowledged, the seconds until the
---next try, or false when the partition is parked.
---@param letter rouse.consumer.Letter
---@param tried integer
---@return boolean|number
function methods:try_bury(letter, tried)
  local record, why = letter.record, letter.why
  if self.bury then
    local sent, message, code = nil, letter.message, letter.code
    letter.message, letter.code = nil, nil
    if not message then sent, message, code = self.bury(record, why, letter.attempts) end
    if sent then return true end
    self.log.error("dead letter not written", { topic = record.topic, partition = record.partition,
      offset = record.offset, reason = message, code = code })
    local delay = retry.delay(self.retry, tried)
    if delay then return delay end
    why = "dead letter not written: " .. tostring(message)
  end
  if self.stopping then return false end
  self.state = "parked"
  self.log.error("partition parked", { topic = record.topic, partition = record.partition, offset = record.offset,
    attempt = letter.attempts, reason = why })
  return false
end

---How many of `count` records may be handled beside the letters under way; false when the partition was
---stopped or parked meanwhile.
---@param count integer
---@return integer|false
function methods:room(count)
  if self.underway == 0 and #self.failed == 0 then return count end
  if #self.failed == 0 and self.beyond < self.letters then return math.min(count, self.letters - self.beyond) end
  return self:settle_letters() and count
end

-- Waits for the letters under way, then tries those again that were not written. False when the partition
-- was stopped or parked meanwhile.
function methods:settle_letters()
  while self.underway > 0 and not self.stopping do self:park "letters" end
  if self.stopping then return false end
  local failed = self.failed
  table.sort(failed, function(a, b) return a.record.offset < b.record.offset end)
  while #failed > 0 do
    if not self:bury_now(failed[1]) then return false end
    self.prefix:finish(table.remove(failed, 1).record.offset)
  end
  return true
end

-- Waits for the letters under way, also when the partition is stopped: what was acknowledged is to be committed.
function methods:last_letters()
  self.sleeper = self.task.current()
  while self.underway > 0 do
    self.waiting = "letters"
    self.task.park()
  end
  self.waiting = nil
end

return methods
