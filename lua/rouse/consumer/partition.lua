-- One assigned partition: a queue of fetched records and the task that handles them in order. A
-- slow or failing handler holds up nobody else; what it may commit is the contiguous prefix of
-- finished records (C1, C2).

local prefix = require "rouse.consumer.prefix"
local retry = require "rouse.consumer.retry"
local verdicts = require "rouse.consumer.verdicts"

local partition = {}

-- A task that has worked this long lets the others run.
local BURST <const> = 0.02

---@class rouse.consumer.Partition
---@field topic string
---@field partition integer
---@field state "running"|"parked"|"stopped"
---@field queued integer  records waiting or being handled
---@field bytes integer  of their keys and values, about
---@field prefix rouse.consumer.Prefix
local methods = {}
local metatable = { __name = "rouse.consumer.partition", __index = methods }

---Sends a dead letter; true once it is acknowledged, else nil, message, code.
---@alias rouse.consumer.Bury fun(record: table, reason: string, attempts: integer): true|nil, ...

---@class rouse.consumer.PartitionOptions
---@field topic string
---@field partition integer
---@field handle fun(record: table, ctx: table)|nil
---@field handle_batch fun(records: table[], ctx: table)|nil
---@field batch integer  most records for handle_batch
---@field retry {first: number, max: number, tries: integer, random: (fun(): number)|nil}
---@field group string|nil
---@field bury rouse.consumer.Bury|nil  nil: dead records park the partition
---@field on_change fun(self: rouse.consumer.Partition)  work finished, parked or stopped
---@field task table  rouse.task, or a stand-in
---@field log table  rouse.log, or a stand-in

---@param options rouse.consumer.PartitionOptions
---@return rouse.consumer.Partition
function partition.new(options)
  local self = setmetatable({}, metatable)
  for _, name in ipairs { "topic", "partition", "handle", "handle_batch", "batch", "retry", "bury",
    "on_change", "task", "log" } do
    self[name] = options[name]
  end
  self.ctx = { now = 0, attempt = 1, group = options.group }
  self.prefix = prefix.new()
  self.state = "running"
  self.queued, self.bytes = 0, 0
  self.slices, self.head, self.tail = {}, 1, 0
  return self
end

---Adds fetched records: records[first] to records[last], all of this partition, in offset order.
---The table is shared, not copied, and not changed.
---@param records table[]
---@param first integer
---@param last integer
---@param bytes integer
function methods:push(records, first, last, bytes)
  if self.state ~= "running" or self.stopping then return end
  self.tail = self.tail + 1
  self.slices[self.tail] = { records = records, first = first, last = last, bytes = bytes }
  self.queued = self.queued + (last - first + 1)
  self.bytes = self.bytes + bytes
  if self.waiting == "records" then self:wake() end
end

---Handles nothing more: a running handler ends its call, a wait for a retry is cut short, the queue
---is dropped.
function methods:stop()
  self.stopping = true
  if self.waiting then self:wake() end
end

---Whether records wait, are being handled or are to be retried.
---@return boolean
function methods:busy()
  return self.state == "running" and self.queued > 0
end

function methods:wake()
  self.waiting = nil
  self.sleeper:unpark()
end

-- Parks the task until a push, a stop or the time-out. What the handler itself waits for is not
-- touched by wake().
function methods:park(why, timeout)
  local task = self.task
  local deadline = timeout and task.monotonic() + timeout
  self.sleeper = task.current()
  self.waiting = why
  while self.waiting == why and not self.stopping do
    local left = deadline and deadline - task.monotonic()
    if left and left <= 0 then break end
    task.park(left)
  end
  self.waiting = nil
end

-- Lets the loop turn when this stretch of work has been long; returns the start of the next one.
function methods:breathe(now, started)
  if now - started > BURST or now < started then
    self.task.sleep(0)
    return self.task.now()
  end
  return started
end

-- A cancelled task's handler has not failed: the cancellation goes on up.
local function check_cancelled(ok, code)
  if not ok and code == "CANCELLED" then error("cancelled", 0) end
end

---The task's body: until stop() or until the partition is parked.
function methods:run()
  local handle_all = self.handle and methods.handle_slice or methods.handle_slices
  while self.state == "running" and not self.stopping do
    if self.head > self.tail then
      self.head, self.tail = 1, 0
      self:park("records")
    else
      handle_all(self)
      self.on_change(self)
    end
  end
  if self.state == "running" then self.state = "stopped" end
  self.slices, self.head, self.tail = {}, 1, 0
  self.queued, self.bytes = 0, 0
  self.on_change(self)
end

-- One slice, record by record. No table, closure or string per record here: this loop is what a
-- fast handler costs.
function methods:handle_slice()
  local slice = self.slices[self.head]
  local records, last = slice.records, slice.last
  local guard, now, handle = self.task.guard, self.task.now, self.handle
  local ctx, done = self.ctx, self.prefix
  local started = now()
  ctx.attempt = 1
  local i = slice.first
  while i <= last and not self.stopping do
    local record = records[i]
    local time = now()
    if time - started > BURST then
      started = self:breathe(time, started)
      if self.stopping then return end
    end
    ctx.now = time
    local ok, value, reason = guard(handle, record, ctx)
    if not (ok and value == "done") then
      if not self:settle(record, ok, value, reason) then return end
      ctx.attempt = 1
    end
    done:advance(record.offset)
    i = i + 1
  end
  if i > last then self:drop(slice) end
end

-- Takes a finished slice off the queue.
function methods:drop(slice)
  self.slices[self.head] = nil
  self.head = self.head + 1
  self.queued = self.queued - (slice.last - slice.first + 1)
  self.bytes = self.bytes - slice.bytes
end

-- Follows a record whose first attempt was not "done" to its end. Returns true when it is finished,
-- false when the partition was stopped or parked before.
function methods:settle(record, ok, value, reason)
  local ctx, task = self.ctx, self.task
  check_cancelled(ok, reason)
  local verdict, why, code = verdicts.one(ok, value, reason)
  local last_said
  while verdict == "retry" do
    last_said = self:complain(record, why, code, ctx.attempt, last_said)
    local delay = retry.delay(self.retry, ctx.attempt)
    if not delay then break end
    self:park("retry", delay)
    if self.stopping then return false end
    ctx.attempt = ctx.attempt + 1
    ctx.now = task.now()
    ok, value, reason = task.guard(self.handle, record, ctx)
    check_cancelled(ok, reason)
    verdict, why, code = verdicts.one(ok, value, reason)
  end
  if verdict == "done" then return true end
  return self:give_up(record, why, ctx.attempt)
end

-- Says once what a handler did to a record, and again only when it does something else. Never the
-- record's value.
function methods:complain(record, why, code, attempt, last_said)
  if why == last_said or not why then return last_said end
  local fields = { topic = record.topic, partition = record.partition, offset = record.offset,
    attempt = attempt, reason = why }
  if code then
    fields.code = code
    self.log.error("handler failed", fields)
  else
    self.log.warn("handler asks for a retry", fields)
  end
  return why
end

-- A dead record: finished once its dead letter is acknowledged; without a dead letter topic the
-- partition is parked.
function methods:give_up(record, why, attempts)
  why = why or "no reason given"
  local tried = 1
  while self.bury and not self.stopping do
    local sent, message, code = self.bury(record, why, attempts)
    if sent then return true end
    local delay = retry.delay(self.retry, tried)
    self.log.error("dead letter not written", { topic = record.topic, partition = record.partition,
      offset = record.offset, reason = message, code = code })
    if not delay then
      why = "dead letter not written: " .. tostring(message)
      break
    end
    tried = tried + 1
    self:park("retry", delay)
  end
  if self.stopping then return false end
  self.state = "parked"
  self.log.error("partition parked", { topic = record.topic, partition = record.partition,
    offset = record.offset, attempt = attempts, reason = why })
  return false
end

-- Up to `batch` records of the queue in a table of their own: the handler may do with it what it
-- likes.
function methods:take()
  local slices, batch, taken, count = self.slices, self.batch, {}, 0
  while self.head <= self.tail and count < batch do
    local slice = slices[self.head]
    local last = math.min(slice.last, slice.first + batch - count - 1)
    table.move(slice.records, slice.first, last, count + 1, taken)
    count = count + last - slice.first + 1
    if last < slice.last then
      -- what remains stands for its bytes in proportion; only back-pressure reads them
      local share = slice.bytes * (last - slice.first + 1) // (slice.last - slice.first + 1)
      slices[self.head] = { records = slice.records, first = last + 1, last = slice.last,
        bytes = slice.bytes - share }
      self.bytes = self.bytes - share
    else
      slices[self.head] = nil
      self.head = self.head + 1
      self.bytes = self.bytes - slice.bytes
    end
  end
  return taken, count
end

-- One batch: all of it, then again only what asked for a retry, until every record of it is
-- finished.
function methods:handle_slices()
  local task, ctx, done = self.task, self.ctx, self.prefix
  local batch, count = self:take()
  local opened, last_said = false, nil
  ctx.attempt = 1
  while count > 0 do
    ctx.now = task.now()
    local given = table.move(batch, 1, count, 1, {})
    local ok, value, second = task.guard(self.handle_batch, given, ctx)
    check_cancelled(ok, second)
    local verdict, why, code, each = verdicts.batch(count, ok, value, second)
    if verdict == "done" and not opened then
      done:advance(batch[count].offset)
      self.queued = self.queued - count
      break
    end
    if not opened then
      opened = true
      for i = 1, count do done:open(batch[i].offset) end
    end
    local left = {}
    for i = 1, count do
      local record = batch[i]
      local one, reason = verdict, why
      if each then one, reason = each[i].verdict, each[i].reason end
      if one == "retry" then
        last_said = self:complain(record, reason, code, ctx.attempt, last_said)
        if ctx.attempt >= self.retry.tries then one = "dead" end
      end
      if one == "retry" then
        left[#left + 1] = record
      else
        if one == "dead" and not self:give_up(record, reason, ctx.attempt) then return end
        done:finish(record.offset)
        self.queued = self.queued - 1
      end
    end
    batch, count = left, #left
    if count > 0 then
      self:park("retry", retry.delay(self.retry, ctx.attempt))
      if self.stopping then return end
      ctx.attempt = ctx.attempt + 1
    end
  end
  self:breathe(task.now(), ctx.now)
end

return partition
