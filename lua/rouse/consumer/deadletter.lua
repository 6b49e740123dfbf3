-- Dead letters: the record as it came, key, value, headers and timestamp untouched, with headers
-- after its own that say where it comes from and why it is here. Kafka Connect's names, so that its
-- tools read them, and ours for what Connect has no name for.

local faults = require "rouse.consumer.faults"

local deadletter = {}

-- Longer reasons are cut: a header must never be what makes the record too large.
local MAX_REASON <const> = 1000
-- A topic that the brokers do not know this many times does not exist.
local UNKNOWN_TRIES <const>, UNKNOWN_PAUSE <const> = 5, 0.2

local CONNECT <const> = "__connect.errors."
local FIRST <const> = CONNECT .. "topic"
local OURS <const> = { ["rouse.attempts"] = true, ["rouse.group"] = true, ["rouse.time"] = true }

---The record to produce.
---@param record table
---@param how {topic: string, group: string, reason: string, attempts: integer, index: integer|nil, now: number|nil}
---@return table
function deadletter.letter(record, how)
  local headers = table.move(record.headers or {}, 1, #(record.headers or {}), 1, {})
  local function add(name, value)
    headers[#headers + 1] = { name = name, value = tostring(value) }
  end
  add(FIRST, record.topic)
  add(CONNECT .. "partition", record.partition)
  add(CONNECT .. "offset", record.offset)
  add(CONNECT .. "connector.name", how.group)
  add(CONNECT .. "task.id", how.index or 0)
  add(CONNECT .. "stage", "TASK_PUT")
  add(CONNECT .. "class.name", "rouse.consumer")
  add(CONNECT .. "exception.class.name", "rouse.dead")
  add(CONNECT .. "exception.message", how.reason:sub(1, MAX_REASON))
  add("rouse.group", how.group)
  add("rouse.attempts", how.attempts)
  add("rouse.time", ("%.3f"):format(how.now or 0))
  return { topic = how.topic, key = record.key, value = record.value, headers = headers,
    timestamp = record.timestamp }
end

-- How many of the headers are the record's own: what a consumer (ours or Connect) added comes last
-- and begins with the topic. A record that died twice keeps what it had before the second time.
local function own_headers(headers)
  local i = #headers
  while i > 0 do
    local name = headers[i].name
    if name == FIRST then return i - 1 end
    if not OURS[name] and name:sub(1, #CONNECT) ~= CONNECT then break end
    i = i - 1
  end
  return #headers
end

---@class rouse.Letter
---@field topic string|nil  where the record was; nil: this is no dead letter
---@field partition integer|nil
---@field offset integer|nil
---@field group string|nil
---@field reason string|nil
---@field attempts integer|nil
---@field time number|nil  when it was given up, where that is known
---@field headers rouse.header[]  the record's own

---Reads what a dead letter says about itself.
---@param record table
---@return rouse.Letter
function deadletter.read(record)
  local count = own_headers(record.headers)
  local said = {}
  for i = count + 1, #record.headers do said[record.headers[i].name] = record.headers[i].value end
  return {
    topic = said[FIRST],
    partition = math.tointeger(tonumber(said[CONNECT .. "partition"])),
    offset = math.tointeger(tonumber(said[CONNECT .. "offset"])),
    group = said["rouse.group"] or said[CONNECT .. "connector.name"],
    reason = said[CONNECT .. "exception.message"],
    attempts = math.tointeger(tonumber(said["rouse.attempts"])),
    time = tonumber(said["rouse.time"]),
    headers = table.move(record.headers, 1, count, 1, {}),
  }
end

---What a partition calls with a dead record: true once every in-sync replica has it.
---@param producer table
---@param how {topic: string, group: string, index: integer|nil, now: (fun(): number)|nil}
---@return rouse.consumer.Bury
function deadletter.writer(producer, how)
  return function(record, reason, attempts)
    -- No time-out of our own: the producer's ends the delivery for good, so that a letter that was
    -- given up is not delivered later beside the one that is tried again.
    local delivered, message, code = producer:produce(deadletter.letter(record, {
      topic = how.topic, group = how.group, index = how.index, reason = reason, attempts = attempts,
      now = how.now and how.now(),
    }))
    if not delivered then return nil, message, code end
    return true
  end
end

---Before anything is consumed: whether the topic for dead letters is there. Finishes the session
---where it is not; waits for brokers as long as the session lasts.
---@param s rouse.consumer.Session
---@return boolean
function deadletter.check(s)
  local topic, unknown = s.settings.dead, 0
  while topic and not s.outcome do
    local meta, message, code = s.admin:metadata { topics = { topic }, timeout = 10 }
    local found = meta and meta.topics[topic]
    if meta then
      s:alive()
      code = not found and "UNKNOWN_TOPIC_OR_PART" or found.error
      if not code then return true end
      message = code
    end
    local kind = faults.kind(code)
    if kind == "topic" then
      unknown = unknown + 1
      if unknown >= UNKNOWN_TRIES then
        s:finish(faults.at_start(faults.exit.configuration, "topic for dead letters does not exist",
          { topic = topic }))
        return false
      end
    elseif kind == "credentials" or kind == "authorization" then
      s:refused(code, ("topic %s: %s"):format(topic, message))
      return false
    else
      s:say(code or "?", "topic for dead letters not looked up yet", { topic = topic, reason = message })
    end
    s.task.sleep(UNKNOWN_PAUSE)
  end
  return not s.outcome
end

return deadletter
