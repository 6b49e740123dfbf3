-- One assigned partition: a queue of fetched records and the task that handles them, in order or, with
-- `parallel`, in order by key (rouse.consumer.lanes). A slow or failing handler holds up nobody else;
-- what it may commit is the contiguous prefix of finished records (C1, C2).

local lanes = require "rouse.consumer.lanes"
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
for _, part in ipairs { "batches", "letters" } do
  for name, fn in pairs(require("rouse.consumer." .. part)) do methods[name] = fn end
end
local metatable = { __name = "rouse.consumer.partition", __index = methods }

---Sends a dead letter; true once it is acknowledged, else nil, message, code.
---@alias rouse.consumer.Bury fun(record: table, reason: string, attempts: integer): true|nil, ...

---@class rouse.consumer.PartitionOptions
---@field topic string
---@field partition integer
---@field handle fun(record: table, ctx: table)|nil
---@field handle_batch fun(records: table[], ctx: table)|nil
---@field batch integer  most records for handle_batch
---@field parallel integer|nil  most records at once, for handle; default 1
---@field key (fun(record: table): any)|nil  with parallel: records of one key stay in order
---@field retry {first: number, max: number, tries: integer, random: (fun(): number)|nil}
---@field group string|nil
---@field bury rouse.consumer.Bury|nil  nil: dead records park the partition
---@field letters integer|nil  most records handled beside dead letters under way; default 0: each is waited for
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
  if (options.parallel or 1) > 1 and self.handle then
    self.lanes = lanes.new(self, options.parallel, options.key)
  else
    self.cursor = self.handle and self.task.cursor(self.handle, self.ctx)
  end
  self.letters, self.underway, self.failed, self.beyond = options.letters or 0, 0, {}, 0
  self.started = 0
  return self
end

---The offset that may be committed, nil while nothing is finished; also right while a handler waits.
---@return integer|nil
function methods:position()
  local stretch = self.stretch
  if stretch then
    local at = self.cursor:at()
    if at > stretch.first then self.prefix:advance(stretch.records[at - 1].offset) end
  end
  return self.prefix.position
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
  if self.lanes then
    self.lanes:signal()
  elseif self.waiting == "records" then
    self:wake()
  end
end

---Handles nothing more: a running handler ends its call, a wait for a retry is cut short, the queue
---is dropped.
function methods:stop()
  self.stopping = true
  if self.waiting then self:wake() end
end

---Whether records wait, are being handled or are to be retried, or letters are under way.
---@return boolean
function methods:busy()
  return self.state == "running" and (self.queued > 0 or self.underway > 0 or #self.failed > 0)
end

---How many records a stopped partition's handlers are still working on.
---@return integer
function methods:in_hand()
  if self.state ~= "running" then return 0 end
  return self.lanes and self.lanes.working or math.max(self.underway, self.calling or 1)
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

-- Lets the loop turn when this task has worked for long, however short each piece was.
function methods:breathe()
  local now = self.task.monotonic()
  if now - self.started > BURST then
    self.task.sleep(0)
    self.started = self.task.monotonic()
  end
end

-- A cancelled task's handler has not failed: the cancellation goes on up.
local function check_cancelled(ok, code)
  if not ok and code == "CANCELLED" then error("cancelled", 0) end
end
methods.check_cancelled = check_cancelled

---The task's body: until stop() or until the partition is parked.
function methods:run()
  if self.lanes then self.lanes:run() else self:run_in_order() end
  self:last_letters()
  if self.state == "running" then self.state = "stopped" end
  self.slices, self.head, self.tail = {}, 1, 0
  self.queued, self.bytes = 0, 0
  self:on_change()
end

function methods:run_in_order()
  local handle_all = self.handle and methods.handle_slice or methods.handle_slices
  while self.state == "running" and not self.stopping do
    if #self.failed > 0 then
      if self:settle_letters() then self:on_change() end
    elseif self.head > self.tail then
      self.head, self.tail = 1, 0
      self:park("records")
    else
      handle_all(self)
      self:on_change()
    end
  end
end

-- One slice, record by record, in stretches that end with the first record that is not "done", with
-- a handler that waited, or after a while. Nothing here is done per record: what a fast handler
-- costs is the cursor's loop.
function methods:handle_slice()
  local slice = self.slices[self.head]
  local records, last, cursor, done = slice.records, slice.last, self.cursor, self.prefix
  local i = slice.first
  self.ctx.attempt = 1
  while i <= last and not self.stopping do
    local room = self:room(last - i + 1)
    if not room then return end
    self.stretch = { records = records, first = i }
    local next, ok, value, reason = cursor:run(records, i, i + room - 1, BURST)
    self.stretch = nil
    if next > i then done:advance(records[next - 1].offset) end
    local handled = ok == nil and next or next + 1
    self.beyond, i = self.beyond + handled - i, handled
    if ok ~= nil then
      if not self:settle(records[next], ok, value, reason) then return end
      self.ctx.attempt = 1
    end
    self:breathe()
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

-- Follows a record whose first attempt was not "done" to its end. Returns true when it is finished, or
-- its dead letter under way; false when the partition was stopped or parked before.
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
  if verdict == "done" then
    self.prefix:advance(record.offset)
    return true
  end
  self.prefix:open(record.offset)
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

return partition
