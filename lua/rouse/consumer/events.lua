-- What the Kafka handle reports to a session: records, rebalances, ends of partitions, errors.
-- Methods of rouse.consumer.session.

local faults = require "rouse.consumer.faults"

-- Records that may wait for busy handlers before more are fetched, and seconds without a poll.
local BACKLOG <const> = 500
local PATIENCE <const> = 1
-- Records that may wait when the collector looks: what it finds alive it keeps for long.
local FEW <const> = 32
-- Three times the heartbeat's interval, and a handler's time to end.
local NEXT_GENERATION <const> = 15

---@class rouse.consumer.Session
local methods = {}

-- Something came from a broker: the link is up.
function methods:alive()
  self.worked = true
  if self.down then
    self.log.info("brokers are reachable again")
    self.down = false
  end
  if next(self.said) then self.said = {} end
end

-- Where records of one partition follow each other; the Kafka handle says it with its events.
local function slices_of(records)
  local slices, slice = {}, nil
  for i, record in ipairs(records) do
    if not slice or record.partition ~= slice.partition or record.topic ~= slice.topic then
      slice = { topic = record.topic, partition = record.partition, first = i, bytes = 0 }
      slices[#slices + 1] = slice
    end
    slice.last = i
    slice.bytes = slice.bytes + #(record.value or "")
  end
  return slices
end

function methods:on_records(event)
  -- all of them may have gone with a partition that was given back meanwhile
  if #event.records == 0 then return end
  for _, slice in ipairs(event.slices or slices_of(event.records)) do
    self:deliver(slice.topic, slice.partition, event.records, slice.first, slice.last, slice.bytes)
    if self.collector then self.collector:note(slice.last - slice.first + 1, slice.bytes) end
  end
  self.active_at = self.task.monotonic()
end

function methods:deliver(topic, number, records, first, last, bytes)
  local part = self.partitions[topic] and self.partitions[topic][number]
  if not part or self.draining then return end
  part:push(records, first, last, bytes)
  if not part.paused and (part.queued > self.high or part.bytes > self.high_bytes) then
    part.paused = true
    self.consumer:pause { { topic = topic, partition = number } }
  end
end

function methods:on_assign(event)
  local ok, message, code
  if event.protocol == "COOPERATIVE" then
    ok, message, code = self.consumer:incremental_assign(event.partitions)
  else
    ok, message, code = self.consumer:assign(event.partitions)
  end
  if not ok then
    self.log.error("assignment failed", { reason = message, code = code })
    return
  end
  local names = {}
  for i, item in ipairs(event.partitions) do names[i] = item.topic .. "/" .. item.partition end
  self.log.info("partitions assigned", { partitions = table.concat(names, " ") })
  if #event.partitions > 0 then
    -- a pause outlives an assignment in librdkafka
    if self.draining then
      self.consumer:pause(event.partitions)
    else
      self.consumer:resume(event.partitions)
      self:add(event.partitions)
    end
  end
  if not self.assigned then self.active_at = self.task.monotonic() end
  self.assigned = true
  if event.protocol == "COOPERATIVE" and self.count == 0 then
    -- what others have to give back first comes with the next generation, at the next heartbeat
    self.more_until = self.task.monotonic() + NEXT_GENERATION
  end
  self.bell:set()
end

function methods:on_revoke(event)
  self:remove(event.partitions, event.lost)
  self.log.info(event.lost and "partitions lost" or "partitions revoked",
    { count = #event.partitions })
  local ok, message, code
  if event.protocol == "COOPERATIVE" then
    ok, message, code = self.consumer:incremental_unassign(event.partitions)
  else
    ok, message, code = self.consumer:assign {}
  end
  if not ok then
    self.log.error("partitions not given back", { reason = message, code = code })
  end
  -- The group is in the middle of a rebalance: an assignment follows, if only an empty one.
  self:await_assignment()
end

function methods:refused(code, message)
  local kind = faults.kind(code)
  local kafka = self.settings.properties or {}
  local user, mechanism = kafka["sasl.username"], kafka["sasl.mechanisms"]
  if self.worked and kind == "credentials" then
    self:say(code, "credentials refused, trying again", { reason = message, user = user })
    return
  end
  self:finish { kind = "fault", start = not self.worked, exit = faults.exit.credentials,
    message = kind == "credentials" and "Kafka refused the credentials" or "Kafka refused access",
    fields = { mechanism = mechanism, user = user, group = self.settings.group, reason = message } }
end

-- Once per code until the link is up again.
function methods:say(code, message, fields, level)
  if self.said[code] then return end
  self.said[code] = true
  fields.code = code
  self.log[level or "warn"](message, fields)
end

function methods:on_error(event)
  local code, kind = event.code, faults.kind(event.code)
  if event.fatal or kind == "fatal" then
    self:finish { kind = "fault", exit = faults.exit.unavailable,
      message = "the consumer cannot go on", fields = { code = code, reason = event.message } }
  elseif kind == "credentials" or kind == "authorization" then
    self:refused(code, event.message)
  elseif code == "_ALL_BROKERS_DOWN" then
    if not self.down then
      self.down = true
      self.log.error("no broker is reachable, trying again",
        { code = code, reason = event.message })
    end
  elseif kind == "topic" then
    self.log.debug("topic unknown so far", { code = code, reason = event.message })
  else
    self:say(code, kind == "link" and "connection trouble" or "Kafka reports",
      { reason = event.message, topic = event.topic, partition = event.partition })
  end
end

function methods:on_event(event)
  local kind = event.kind
  if kind == "records" then
    if self.down or not self.worked then self:alive() end
    self:on_records(event)
  elseif kind == "error" then
    self:on_error(event)
  else
    self:alive()
    if kind == "eof" then
      local part = (self.partitions[event.topic] or {})[event.partition]
      if part then part.reached = event.offset end
    elseif kind == "assign" then
      self:on_assign(event)
    elseif kind == "revoke" then
      self:on_revoke(event)
    end
  end
end

-- What waits for handlers, and a number that changes when one of them gets on.
function methods:backlog()
  local queued, progress = 0, 0
  for _, by_number in pairs(self.partitions) do
    for _, part in pairs(by_number) do
      queued = queued + part.queued
      -- in lanes records are finished that do not move the position
      progress = progress + (part:position() or 0) - part.queued
    end
  end
  return queued, progress
end

-- A poll that finds records does not wait, so handlers get their turn here, and more of it as long as they get on: fetching
-- ahead of busy handlers would only fill their queues, and a pause costs what librdkafka has fetched. A handler that waits
-- for something gets on in no turn, and holds up nobody.
function methods:let_handlers_work()
  local until_then = self.task.monotonic() + PATIENCE
  local _, progress = self:backlog()
  local queued, before
  repeat
    before = progress
    self.task.sleep(0)
    queued, progress = self:backlog()
  until queued <= BACKLOG or progress == before or self.task.monotonic() > until_then
  if queued <= FEW and self.collector then self.collector:tidy() end
end

-- One poll and what it brought. Returns the kind of event: what it holds is garbage from here on.
function methods:poll_once()
  local event, message, code = self.consumer:poll(self.poll_options)
  if event then
    self:on_event(event)
    return event.kind
  end
  if code ~= "TIMEDOUT" then
    self:say(code or "?", "poll failed", { reason = message })
    self.task.sleep(0.1)
  end
end

---Polls until cancelled: also while handlers are slow and while draining, so that the group sees a
---live member.
function methods:poll_loop()
  while true do
    if self:poll_once() == "records" then self:let_handlers_work() end
  end
end

return methods
