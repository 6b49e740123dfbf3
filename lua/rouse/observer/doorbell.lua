--- The doorbell: a read_committed consumer that parks a long-poll fetch at an offset of every armed partition. It rings once
--- per arming, with the first consumable record at or past that offset, or with an error when the broker refuses the position;
--- the partition is unassigned then (not paused: that flag would survive).
local log = require "rouse.log"

local Doorbell = { __name = "rouse.doorbell" }
Doorbell.__index = Doorbell

local doorbell = {}

--- Codes that say the position itself is refused.
local REFUSED = { _AUTO_OFFSET_RESET = true, OFFSET_OUT_OF_RANGE = true }

---@param consumer table a rouse.kafka consumer, never subscribed
---@param ring fun(event: table) called with { kind = "rung", topic, partition, offset | error }
---@param fault fun(event: table) called with handle-wide errors (all brokers down, authentication)
function doorbell.new(consumer, ring, fault)
  return setmetatable({ consumer = consumer, ring = ring, fault = fault, armed = {}, changes = {} }, Doorbell)
end

local function key(topic, partition)
  return topic .. "/" .. partition
end

--- Arms (or re-arms) a partition at an offset, or disarms it (offset nil). Takes effect with flush.
function Doorbell:set(topic, partition, offset)
  self.changes[key(topic, partition)] = { topic = topic, partition = partition, offset = offset }
end

--- Applies what was set since the last flush, in one call each.
function Doorbell:flush()
  local off, on = {}, {}
  for name, change in pairs(self.changes) do
    if self.armed[name] then
      off[#off + 1] = { topic = change.topic, partition = change.partition }
      self.armed[name] = nil
    end
    if change.offset then
      on[#on + 1] = change
      self.armed[name] = change.offset
    end
  end
  self.changes = {}
  if #off > 0 then
    self:call("incremental_unassign", off)
  end
  if #on > 0 then
    self:call("incremental_assign", on)
  end
end

function Doorbell:call(method, list)
  local ok, message, code = self.consumer[method](self.consumer, list)
  if not ok then
    log.error("doorbell: " .. method .. " failed", { reason = message, code = code })
  end
end

function Doorbell:rung(name, item, event)
  self.armed[name] = nil
  self:call("incremental_unassign", { { topic = item.topic, partition = item.partition } })
  self.ring(event)
end

function Doorbell:take(event)
  if event.kind == "records" then
    for _, record in ipairs(event.records) do
      local name = key(record.topic, record.partition)
      local position = self.armed[name]
      if position and record.offset >= position then -- else: fetched for an arming that is over
        self:rung(name, record, { kind = "rung", topic = record.topic, partition = record.partition,
          offset = record.offset })
      end
    end
  elseif event.kind == "error" and event.topic and event.partition and REFUSED[event.code] then
    local name = key(event.topic, event.partition)
    local position = self.armed[name]
    if position then
      self:rung(name, event, { kind = "rung", topic = event.topic, partition = event.partition, offset = position,
        error = event.code })
    end
  elseif event.kind == "error" then
    self.fault(event)
  end
end

--- Serves the doorbell until its consumer is closed.
function Doorbell:run()
  while true do
    local event, _, code = self.consumer:poll { max = 1000 }
    if event then
      self:take(event)
    elseif code ~= "TIMEDOUT" then
      return
    end
  end
end

return doorbell
