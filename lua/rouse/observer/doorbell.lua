--- The doorbell: read_committed consumers that park a long-poll fetch at an offset of every armed partition. It rings once
--- per arming, with the first consumable record at or past that offset, or with an error when the broker refuses the position;
--- the partition is unassigned then (not paused: that flag would survive).
---
--- There are two of them, because a fetch lists every partition and one that is under way does not include a partition assigned
--- since. What was armed lately is on the *quick* one, whose wait bounds how long a new arming is deaf; what has been quiet for
--- a while moves to the *patient* one, which costs the broker and the network next to nothing however many partitions it
--- lists. A partition is on both until the patient one's fetch is sure to include it, each at the same offset, so a move
--- cannot lose a ring; whichever rings first is the ring.
local kafka = require "rouse.kafka"
local log = require "rouse.log"
local properties = require "rouse.config.properties"
local task = require "rouse.task"

local Doorbell = { __name = "rouse.doorbell" }
Doorbell.__index = Doorbell

local doorbell = {}

doorbell.PATIENCE = 15 -- seconds a patient fetch waits
doorbell.QUIET = 10 -- seconds on the quick handle before a partition moves
doorbell.CROWD = 50 -- with more partitions than that on the quick handle, all of them move at once

-- One fetch that does not know the partition yet, one sent before the answer that says who leads it (requests of a connection are
-- answered in turn), then one that does.
local OVERLAP = 2 * doorbell.PATIENCE + 5
local SILENCE = 10 -- seconds for answers that are due
local TURN = 2.5 -- seconds between looks at what may move
-- Seconds after a ring until its partition is taken off: that waits for the handle's thread, and a wake would wait with it. What
-- rings at the same time goes in one call.
local LEAVE = 0.005

--- Codes that say the position itself is refused.
local REFUSED = { _AUTO_OFFSET_RESET = true, OFFSET_OUT_OF_RANGE = true }

---@param quick table a rouse.kafka consumer, never subscribed
---@param ring fun(event: table) called with { kind = "rung", topic, partition, offset | error }
---@param fault fun(event: table) called with other errors, of a partition or of the whole handle
---@param patient table? the second consumer; without it everything stays on the first
---@param reopen (fun(): table?, string?)? opens another quick consumer, for when a crowd has left this one
function doorbell.new(quick, ring, fault, patient, reopen)
  return setmetatable({
    quick = quick, patient = patient, ring = ring, fault = fault, reopen = reopen, armed = {}, changes = {}, crowd = 0,
    known = {}, knows = 0,
    off = { quick = {}, patient = {} }, busy = task.event(), rang = task.event(),
  }, Doorbell)
end

--- Opens the doorbell's consumers. Who sets fetch.wait.max.ms gets one consumer with that wait.
---@param layers rouse.KafkaLayers
---@return table|nil doorbell, string? message
function doorbell.open(layers, ring, fault)
  local function open()
    return kafka.consumer { properties = properties.resolve("doorbell", layers) }
  end
  local quick, message = open()
  local patient
  if quick and not properties.told(layers)["fetch.wait.max.ms"] then
    local wait = { ["fetch.wait.max.ms"] = tostring(doorbell.PATIENCE * 1000) }
    -- What is asked beside a fetch is answered after it.
    local least, told = (doorbell.PATIENCE + SILENCE) * 1000, properties.told(layers)["socket.timeout.ms"]
    wait["socket.timeout.ms"] = tostring(math.max(least, math.tointeger(tonumber(told)) or least))
    patient, message = kafka.consumer { properties = properties.resolve("doorbell", layers, wait) }
    if not patient then
      quick:close()
    end
  end
  if message then
    return nil, message
  end
  return doorbell.new(quick, ring, fault, patient, open)
end

local function key(topic, partition)
  return topic .. "/" .. partition
end

--- Arms (or re-arms) a partition at an offset, or disarms it (offset nil). Takes effect with flush.
function Doorbell:set(topic, partition, offset)
  self.changes[key(topic, partition)] = { topic = topic, partition = partition, offset = offset }
end

--- Arms what is armed on a topic anew, at the same offsets.
function Doorbell:again(topic)
  for _, armed in pairs(self.armed) do
    if armed.topic == topic then
      self:set(topic, armed.partition, armed.offset)
    end
  end
  self:flush()
end

--- Notes that an arming is over; take_off has the handles know it.
function Doorbell:drop(name)
  local armed, off = self.armed[name], self.off
  local place = { topic = armed.topic, partition = armed.partition }
  if armed.quick then
    self.crowd = self.crowd - 1
    table.insert(off.quick, place)
  end
  if armed.patient then
    table.insert(off.patient, place)
  end
  self.armed[name] = nil
end

--- Unassigns what was dropped.
function Doorbell:take_off()
  local off = self.off
  self.off = { quick = {}, patient = {} }
  for _, handle in ipairs { "quick", "patient" } do
    if #off[handle] > 0 then
      self:call(handle, "incremental_unassign", off[handle])
    end
  end
end

--- Applies what was set since the last flush, in one call each.
function Doorbell:flush()
  if not next(self.changes) then
    return
  end
  local on = {}
  for name, change in pairs(self.changes) do
    if self.armed[name] then
      self:drop(name)
    end
    if change.offset then
      on[#on + 1] = change
      change.quick, change.patient, change.since = true, false, task.monotonic()
      self.armed[name] = change
      self.knows = self.knows + (self.known[name] and 0 or 1)
      self.known[name] = true
    end
  end
  self.changes = {}
  self:take_off() -- also what has rung: it may be armed again
  if #on > 0 then
    self.crowd = self.crowd + #on
    self:call("quick", "incremental_assign", on)
    self.busy:set()
  end
end

function Doorbell:call(handle, method, list)
  local ok, message, code = self[handle][method](self[handle], list)
  if not ok then
    log.error("doorbell: " .. method .. " failed", { reason = message, code = code })
  end
end

--- Replaces a quick handle that a crowd has left: a handle forgets no partition, keeps 2 KB for it and looks at it every second.
function Doorbell:replace()
  self:take_off()
  local fresh, message, code = self.reopen()
  if not fresh then
    log.debug("doorbell: the quick handle stays as it is", { reason = message, code = code })
    return
  end
  local old = self.quick
  self.quick, self.known, self.knows = fresh, {}, 0
  old:close { timeout = 5 }
end

--- Moves what has been quiet to the patient handle, and off the quick one once the other's fetch includes it.
---@param now number task.monotonic()
function Doorbell:turn(now)
  local on, off = {}, {}
  local quiet = self.crowd > doorbell.CROWD and 0 or doorbell.QUIET
  for _, armed in pairs(self.armed) do
    if armed.quick and not armed.patient and now - armed.since >= quiet then
      armed.patient, armed.since = true, now
      on[#on + 1] = armed
    elseif armed.quick and armed.patient and now - armed.since >= OVERLAP then
      armed.quick = false
      off[#off + 1] = { topic = armed.topic, partition = armed.partition }
    end
  end
  if #on > 0 then
    self:call("patient", "incremental_assign", on)
  end
  if #off > 0 then
    self.crowd = self.crowd - #off
    self:call("quick", "incremental_unassign", off)
  end
  if self.crowd == 0 and self.knows > doorbell.CROWD and self.reopen then
    self:replace()
  end
end

function Doorbell:rung(name, event)
  self:drop(name)
  self.ring(event)
end

--- Hears what a handle's poll returned; what rang is still to be taken off.
---@param event table
---@param handle "quick"|"patient"
function Doorbell:hear(event, handle)
  if event.kind == "records" then
    for _, record in ipairs(event.records) do
      local name = key(record.topic, record.partition)
      local armed = self.armed[name]
      if armed and armed[handle] and record.offset >= armed.offset then -- else: fetched for an arming that is over
        self:rung(name, { kind = "rung", topic = record.topic, partition = record.partition, offset = record.offset })
      end
    end
  elseif event.kind == "error" and event.topic and event.partition and REFUSED[event.code] then
    local name = key(event.topic, event.partition)
    local armed = self.armed[name]
    if armed and armed[handle] then
      self:rung(name, { kind = "rung", topic = event.topic, partition = event.partition, offset = armed.offset,
        error = event.code })
    end
  elseif event.kind == "error" then
    self.fault(event)
  end
end

--- Hears what a handle's poll returned and takes off what rang.
---@param event table
---@param handle "quick"|"patient"|nil
function Doorbell:take(event, handle)
  self:hear(event, handle or "quick")
  self:take_off()
end

--- Serves one handle until it is closed.
function Doorbell:serve(handle)
  while true do
    local consumer = self[handle]
    local event, _, code = consumer:poll { max = 1000 }
    if consumer ~= self[handle] then
      log.debug "doorbell: the quick handle was replaced"
    elseif event then
      self:hear(event, handle)
      self.rang:set()
    elseif code ~= "TIMEDOUT" then
      return
    end
  end
end

--- Looks at what may move, while there is something on the quick handle.
function Doorbell:keep_turning()
  while true do
    self.busy:wait()
    task.sleep(TURN)
    self:turn(task.monotonic())
    if self.crowd == 0 then
      self.busy:clear()
    end
  end
end

--- Takes off what rang, a moment later.
function Doorbell:keep_taking_off()
  while true do
    self.rang:wait()
    task.sleep(LEAVE)
    self.rang:clear()
    self:take_off()
  end
end

--- Serves the doorbell until its consumers are closed or its task is cancelled.
function Doorbell:run()
  task.spawn(self.keep_taking_off, self)
  if self.patient then
    task.spawn(self.serve, self, "patient")
    task.spawn(self.keep_turning, self)
  end
  self:serve "quick"
end

---@param options { timeout: number? }? for each consumer
function Doorbell:close(options)
  self.quick:close(options)
  if self.patient then
    self.patient:close(options)
  end
end

return doorbell
