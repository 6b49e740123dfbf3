-- consume.parallel: several records of a partition at once, those of one key in order. Each key that
-- has records is a lane; a record without a key is a lane of its own. Up to `parallel` workers take
-- the lanes in turn, a record at a time. A lane that waits for a retry occupies no worker and holds
-- up no other lane. Only the finished prefix is committed, so what is under way beyond the first
-- unfinished record is bounded (C1, C2).

local retry = require "rouse.consumer.retry"
local verdicts = require "rouse.consumer.verdicts"

local lanes = {}

-- Records from the first unfinished one to the last one given to a lane: what a crash repeats at most,
-- beside what was finished since the last commit.
local WINDOW <const> = 1000

---@class rouse.consumer.Lanes
---@field working integer  handlers that are running
local methods = {}
local metatable = { __name = "rouse.consumer.lanes", __index = methods }

---@param part rouse.consumer.Partition
---@param parallel integer  handlers at once
---@param key (fun(record: table): any)|nil  default: the record's key
---@return rouse.consumer.Lanes
function lanes.new(part, parallel, key)
  return setmetatable({
    part = part, parallel = parallel, key = key, by_key = {}, working = 0, workers = {}, idle = {},
    ready = {}, head = 1, tail = 0,          -- lanes whose next record may be handled, in turn
    sleeping = {}, next_due = math.huge,     -- lane -> when; the soonest
  }, metatable)
end

local function running(part) return part.state == "running" and not part.stopping end

---Something has changed that the partition's task has to look at.
function methods:signal()
  self.changed = true
  if self.part.waiting == "lanes" then self.part:wake() end
end

---The body of the partition's task: gives records to lanes until the partition is stopped or parked.
function methods:run()
  local part = self.part
  while running(part) do
    self.changed = false
    local left = self:wake_lanes()
    self:dispatch()
    if self.problem then error(self.problem, 0) end
    if not self.changed and running(part) then part:park("lanes", left) end
  end
  for _, entry in ipairs(self.idle) do
    entry.waiting = false
    entry.task:unpark()
  end
  self.idle = {}
  for _, worker in ipairs(self.workers) do worker:join() end
end

-- ---- from the queue to the lanes ----

local KINDS <const> = { string = true, number = true, boolean = true, ["nil"] = true }

-- The record's key from what a guarded call of the script's function returned.
local function read_key(ok, value, code)
  if not ok then return false, "key: " .. tostring(value), code or "ERROR" end
  if not KINDS[type(value)] or value ~= value then
    return false, ("key: the function returned %s, expected a string, a number, true, false or nil")
      :format(value ~= value and "NaN" or "a " .. type(value)), "KEY"
  end
  return true, value
end

-- The key of a record. Where the script's function fails nobody knows what the record must wait for:
-- it holds up its partition, is tried again and given up like a record whose handler fails. Returns
-- false when it was given up, or the partition was stopped or parked.
function methods:key_of(record)
  local part, attempt, said = self.part, 1, nil
  while true do
    local called, value, reason = part.task.guard(self.key, record)
    part.check_cancelled(called, reason)
    local ok, key, code = read_key(called, value, reason)
    if ok then return true, key end
    said = part:complain(record, key, code, attempt, said)
    local delay = retry.delay(part.retry, attempt)
    if not delay then return false, part:bury_now { record = record, why = key, attempts = attempt } end
    part:park("retry", delay)
    if part.stopping then return false end
    attempt = attempt + 1
  end
end

-- Gives queued records to lanes as long as there is room.
function methods:dispatch()
  local part = self.part
  while part.head <= part.tail and running(part) do
    if part.prefix:pending() >= WINDOW then
      self.full = true
      return
    end
    local slice = part.slices[part.head]
    local at = slice.next or slice.first
    local record = slice.records[at]
    local known, key
    if self.key then known, key = self:key_of(record) else known, key = true, record.key end
    if not known and not key then return end
    slice.next, slice.left = at + 1, slice.left or slice.last - slice.first + 1
    if at == slice.last then
      part.slices[part.head] = nil
      part.head = part.head + 1
    end
    part.prefix:open(record.offset)
    if known then
      self:give(key, record, slice)
      self:employ()
    else
      self:account(record, slice)
    end
    part:breathe()
  end
  if part.head > part.tail then part.head, part.tail = 1, 0 end
end

-- Adds a record to its key's lane.
function methods:give(key, record, slice)
  local lane = key ~= nil and self.by_key[key]
  if lane then
    lane.last = lane.last + 1
    lane.records[lane.last], lane.slices[lane.last] = record, slice
    return
  end
  lane = { key = key, records = { record }, slices = { slice }, first = 1, last = 1, attempt = 0 }
  if key ~= nil then self.by_key[key] = lane end
  self:make_ready(lane)
end

function methods:push(lane)
  self.tail = self.tail + 1
  self.ready[self.tail] = lane
end

function methods:make_ready(lane)
  self:push(lane)
  local entry = table.remove(self.idle)
  if entry then
    entry.waiting = false
    entry.task:unpark()
  end
end

-- Starts a worker where a lane waits for one. Only the partition's task does: they end with it.
function methods:employ()
  if self.head > self.tail or #self.idle > 0 or #self.workers >= self.parallel then return end
  self.workers[#self.workers + 1] = self.part.task.spawn(function()
    local ok, problem = xpcall(self.work, debug.traceback, self)
    if ok then return end
    if tostring(problem):find("^cancelled") then error("cancelled", 0) end
    self.problem = problem
    self:signal()
  end)
end

-- Lanes whose retry is due become ready. Returns the seconds until the next one, or nil.
function methods:wake_lanes()
  local now = self.part.task.monotonic()
  if now >= self.next_due then
    self.next_due = math.huge
    for lane, due in pairs(self.sleeping) do
      if due <= now then
        self.sleeping[lane] = nil
        self:make_ready(lane)
        self:employ()
      else
        self.next_due = math.min(self.next_due, due)
      end
    end
  end
  return self.next_due < math.huge and math.max(0, self.next_due - now) or nil
end

-- ---- workers ----

function methods:work()
  local part, task = self.part, self.part.task
  local ctx = { now = 0, attempt = 1, group = part.ctx.group }
  while running(part) do
    local lane = self.ready[self.head]
    if lane then
      self.ready[self.head] = nil
      self.head = self.head + 1
      self.working = self.working + 1
      self:step(lane, ctx)
      self.working = self.working - 1
      part:breathe()
    else
      local entry = { task = task.current(), waiting = true }
      self.idle[#self.idle + 1] = entry
      while entry.waiting do task.park() end
    end
  end
end

-- One attempt at a lane's first record, or at writing its dead letter.
function methods:step(lane, ctx)
  local part, record = self.part, lane.records[lane.first]
  if not lane.dying then
    lane.attempt = lane.attempt + 1
    ctx.attempt, ctx.now = lane.attempt, part.task.now()
    local ok, value, reason = part.task.guard(part.handle, record, ctx)
    part.check_cancelled(ok, reason)
    local verdict, why, code = verdicts.one(ok, value, reason)
    if verdict == "done" then return self:finish(lane) end
    if verdict == "retry" then
      lane.said = part:complain(record, why, code, lane.attempt, lane.said)
      local delay = retry.delay(part.retry, lane.attempt)
      if delay then return self:sleep(lane, delay) end
    end
    lane.dying, lane.tried = why or "no reason given", 0
  end
  if not running(part) then return end
  lane.tried = lane.tried + 1
  local buried = part:try_bury({ record = record, why = lane.dying, attempts = lane.attempt }, lane.tried)
  if buried == true then
    self:finish(lane)
  elseif buried then
    self:sleep(lane, buried)
  else
    self:signal() -- parked
  end
end

function methods:sleep(lane, seconds)
  local due = self.part.task.monotonic() + seconds
  self.sleeping[lane] = due
  if due < self.next_due then
    self.next_due = due
    self:signal()
  end
end

-- A lane's first record is finished; its next one, if any, queues up behind the other lanes.
function methods:finish(lane)
  local i = lane.first
  local record, slice = lane.records[i], lane.slices[i]
  lane.records[i], lane.slices[i] = nil, nil
  lane.first, lane.attempt, lane.said, lane.dying = i + 1, 0, nil, nil
  if lane.first <= lane.last then
    self:push(lane)
  elseif lane.key ~= nil then
    self.by_key[lane.key] = nil
  end
  self:account(record, slice)
end

function methods:account(record, slice)
  local part = self.part
  part.prefix:finish(record.offset)
  part.queued = part.queued - 1
  slice.left = slice.left - 1
  if slice.left == 0 then part.bytes = part.bytes - slice.bytes end
  if self.full and part.prefix:pending() <= WINDOW // 2 then
    self.full = false
    self:signal()
  end
  part:on_change()
end

return lanes
