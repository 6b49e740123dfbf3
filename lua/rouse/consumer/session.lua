-- A consumer at work: one task polls and answers rebalances, each partition handles its records in
-- a task of its own, one task commits. The session knows when there is nothing left to do; how it
-- ends is decided in rouse.consumer.

local faults = require "rouse.consumer.faults"
local partition = require "rouse.consumer.partition"

local session = {}

-- What may wait for handlers, over all partitions. Each record costs about 0.5 KiB beside its
-- value.
local QUEUE_RECORDS <const> = 16384
local QUEUE_BYTES <const> = 12 * 1024 * 1024
local POLL_BYTES <const> = 512 * 1024
-- Records of one poll: what a turn of the loop costs is shared by them, as long as they fit into the processor's cache. More
-- where they are no more than half of what may wait for a partition, so that one poll never brings a pause.
local POLL_RECORDS <const> = 500
local POLL_MOST <const> = 2000
-- Records of a partition that are handled beside dead letters under way: what a crash repeats at most for them.
local LETTERS <const> = 1000
-- Answers of the broker are waited for this long before the next try.
local TIMEOUT <const> = 10
-- After a last look that found more to come, or none at all.
local LOOK_AGAIN <const> = 0.25
-- A topic that was missing in so many looks has been deleted: nothing is left to wait for.
local MISSING_LOOKS <const> = 20
-- Before an assignment somebody else's session may have to end first.
local ASSIGNMENT <const> = 60

---@class rouse.consumer.Session
---@field outcome table|nil  {kind, ...} once it is to end
---@field worked boolean  a broker has accepted us
---@field parked boolean  a partition was parked
local methods = {}
for _, part in ipairs { "events", "commits", "handover" } do
  for name, fn in pairs(require("rouse.consumer." .. part)) do methods[name] = fn end
end
local metatable = { __name = "rouse.consumer.session", __index = methods }

---@param options table  settings, script, the handles consumer and admin, bury or nil, task, log, collector or nil
---@return rouse.consumer.Session
function session.new(options)
  local self = setmetatable({}, metatable)
  for _, name in ipairs { "settings", "script", "consumer", "admin", "bury", "task", "log", "transactions",
    "collector" } do
    self[name] = options[name]
  end
  self.partitions = {}  -- topic -> partition -> rouse.consumer.Partition
  self.count = 0
  self.births = {}
  self.bell = self.task.event()
  self.worked, self.parked, self.draining, self.assigned = false, false, false, false
  self.said = {}
  self.poll_options = {
    max = math.max(POLL_RECORDS, self.settings.batch), max_bytes = POLL_BYTES, timeout = 1,
  }
  self.active_at = self.task.monotonic()
  self:await_assignment()
  return self
end

---Names how the session ends; the first one counts.
function methods:finish(outcome)
  if not self.outcome then
    self.outcome = outcome
  end
  self.bell:set()
end

---Runs fn in a task of the session. A bug there ends the session; a cancellation does not.
function methods:spawn(fn, ...)
  return self.task.spawn(function(...)
    local ok, problem = xpcall(fn, debug.traceback, ...)
    if ok then return end
    if tostring(problem):find("^cancelled") then error("cancelled", 0) end
    self.log.error("internal error", { reason = tostring(problem) })
    self:finish { kind = "fault", exit = faults.exit.bug }
  end, ...)
end

function methods:each()
  local list = {}
  for _, by_number in pairs(self.partitions) do
    for _, part in pairs(by_number) do list[#list + 1] = part end
  end
  return list
end

local function ids(parts)
  local list = {}
  for i, part in ipairs(parts) do
    list[i] = { topic = part.topic, partition = part.partition }
  end
  return list
end

---Starts handling these partitions: {topic=, partition=, offset=nil}. Their tasks are started by
---wait().
---@param list table[]
function methods:add(list)
  local settings = self.settings
  for _, item in ipairs(list) do
    local script = self.transactions and self.transactions:script_of(item) or self.script
    local part = partition.new {
      topic = item.topic, partition = item.partition, handle = script.handle,
      handle_batch = script.handle_batch, batch = settings.batch, retry = settings.retry,
      parallel = settings.parallel, key = settings.key,
      group = settings.group, bury = self.bury, letters = self.transactions and 0 or LETTERS,
      task = self.task, log = self.log,
      on_change = function(changed) self:on_change(changed) end,
    }
    if math.type(item.offset) == "integer" then part.reached = item.offset end
    local by_number = self.partitions[item.topic] or {}
    self.partitions[item.topic] = by_number
    by_number[item.partition] = part
    self.count = self.count + 1
    self.births[#self.births + 1] = part
  end
  self.assigned = true
  self.active_at = self.task.monotonic()
  self:limit()
  self.bell:set()
end

-- Each partition's share of the queue. Pausing throws away what librdkafka has fetched, so it is
-- resumed well before empty.
function methods:limit()
  local share = math.max(1, self.count)
  self.high = math.max(64, QUEUE_RECORDS // share)
  self.high_bytes = math.max(65536, QUEUE_BYTES // share)
  local records = math.min(POLL_MOST, math.max(POLL_RECORDS, self.high // 2))
  self.poll_options.max = math.max(records, self.settings.batch)
end

-- A partition's task finished some work, parked or stopped.
function methods:on_change(part)
  self.active_at = self.task.monotonic()
  if part.state == "running" then
    if part.paused and part.queued * 2 <= self.high and part.bytes * 2 <= self.high_bytes
      and not self.draining then
      part.paused = false
      self.consumer:resume(ids { part })
    end
    return
  end
  self.bell:set()
  if part.state ~= "parked" or self.draining then return end
  self.parked = true
  part.paused = true
  self.consumer:pause(ids { part })
  for _, other in ipairs(self:each()) do
    if other.state ~= "parked" then return end
  end
  self:finish { kind = "parked" }
end

-- Until the group has told us what is ours nobody can say that nothing is left to do.
function methods:await_assignment()
  self.assigned = false
  self.waiting_since = self.task.monotonic()
end

-- When the consumer has been idle long enough, or nil while there is work.
function methods:idle_at()
  for _, part in ipairs(self:each()) do
    if part:busy() then return nil end
  end
  local idle_exit = self.settings.idle_exit
  if not self.assigned then
    return self.waiting_since + math.max(idle_exit, ASSIGNMENT)
  end
  return math.max(self.active_at + idle_exit, self.count == 0 and self.more_until or 0)
end

---The last look: whether every partition has been read to its end. Unknown is not drained.
---@return boolean drained
---@return string|nil why not
function methods:drained()
  local list, reached = {}, {}
  for _, part in ipairs(self:each()) do
    if part.state == "running" then
      list[#list + 1] = { topic = part.topic, partition = part.partition, part = part }
      reached[#list] = math.max(part:position() or -1, part.reached or -1)
    end
  end
  if #list == 0 then
    -- Nothing to look at; but a member that reaches no broker may be missing its assignment.
    local meta, message = self.admin:metadata { topics = {}, timeout = TIMEOUT }
    return meta ~= nil, message
  end
  local ends, message = self.admin:offsets { partitions = list, at = "end", timeout = TIMEOUT }
  if not ends then return false, message end
  for i, item in ipairs(ends) do
    local part = list[i].part
    if not item.error then
      part.missing = 0
      if reached[i] < 0 then return false, "not read yet" end
      if item.offset > reached[i] then return false, "records are coming" end
    elseif faults.kind(item.error) == "topic" then
      part.missing = (part.missing or 0) + 1
      if part.missing < MISSING_LOOKS then return false, item.error end
    else
      return false, item.error
    end
  end
  return true
end

-- Ends the session if it is drained and everything finished is committed.
function methods:try_idle_exit()
  local seen = self.active_at
  local drained, why = self:drained()
  if drained and self:commit() and self.active_at == seen and not self.outcome then
    self:finish { kind = "idle" }
    return
  end
  self.log.debug("not idle yet", { reason = why })
  self.look_at = self.task.monotonic() + LOOK_AGAIN
end

-- Partition tasks are children of the task that waits here, so that they outlive the poll that
-- assigned them.
function methods:start_workers()
  local births = self.births
  self.births = {}
  for _, part in ipairs(births) do
    part.worker = self:spawn(part.run, part)
  end
end

---Runs until somebody calls finish(), or until the consumer is idle.
---@return table outcome
function methods:wait()
  while not self.outcome do
    self.bell:clear()
    self:start_workers()
    local now = self.task.monotonic()
    local at = self:idle_at()
    if self.joining then
      self:join_group()
    elseif at and math.max(at, self.look_at or 0) <= now then
      self:try_idle_exit()
    else
      local until_then = at and math.max(at, self.look_at or 0) - now or LOOK_AGAIN
      self.bell:wait(until_then)
    end
  end
  return self.outcome
end

return session
