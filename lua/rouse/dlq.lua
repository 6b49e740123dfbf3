-- Reads a topic of dead letters and sends their records back. What was sent back is noted as commits
-- of a group of its own, so that a second replay does not send it again.

local deadletter = require "rouse.consumer.deadletter"
local faults = require "rouse.consumer.faults"
local progress = require "rouse.dlq.progress"
local properties = require "rouse.config.properties"

local dlq = {}

local TIMEOUT <const> = 10
-- Sent and noted together: what a kill between the two can send twice.
local BATCH <const> = 100
local FETCH <const> = 500

---@class rouse.Dlq
---@field topic string
---@field partitions {id: integer, low: integer, end_offset: integer, progress: rouse.dlq.Progress}[]
local methods = {}
local metatable = { __name = "rouse.dlq", __index = methods }

---The group whose commits say what was replayed.
---@param topic string
---@return string
function dlq.group(topic) return "rouse-replay." .. topic end

local kinds = { topic = "configuration", credentials = "credentials", authorization = "credentials" }

-- nil, message and the exit code that it deserves.
local function failure(message, code)
  return nil, message, faults.exit[kinds[faults.kind(code)] or "unavailable"]
end

-- Notes what the handle reports: a refusal tells more than the time-out that follows.
local function watch(self, handle)
  return self.task.spawn(function()
    while true do
      local event, _, code = handle:poll { timeout = 60 }
      if event and event.kind == "error" then
        if not self.trouble or faults.kind(event.code) == "credentials" then self.trouble = event end
      elseif not event and code ~= "TIMEDOUT" then
        return
      end
    end
  end)
end

-- A failed question, or what the handle said is behind it.
function methods:failed(message, code)
  if self.trouble then message, code = self.trouble.message, self.trouble.code end
  return failure(message, code)
end

function methods:read_partitions()
  local meta, message, code = self.admin:metadata { topics = { self.topic }, timeout = TIMEOUT }
  if not meta then return self:failed(message, code) end
  local found = meta.topics[self.topic]
  code = not found and "UNKNOWN_TOPIC_OR_PART" or found.error
  if code then
    message = faults.kind(code) == "topic" and ("topic %s does not exist"):format(self.topic)
      or ("topic %s: %s"):format(self.topic, code)
    return failure(message, code)
  end
  local list = {}
  for i, partition in ipairs(found.partitions) do
    list[i] = { topic = self.topic, partition = partition.id }
  end
  local lows, ends, commits
  lows, message, code = self.admin:offsets { partitions = list, at = "beginning", timeout = TIMEOUT }
  if not lows then return self:failed(message, code) end
  ends, message, code = self.admin:offsets { partitions = list, at = "end", timeout = TIMEOUT }
  if not ends then return self:failed(message, code) end
  commits, message, code = self.admin:group_offsets {
    group = dlq.group(self.topic), partitions = list, timeout = TIMEOUT }
  if not commits then return self:failed(message, code) end
  local committed = {}
  for _, item in ipairs(commits) do committed[item.partition] = item end
  for i, item in ipairs(list) do
    local commit = committed[item.partition] or {}
    local bad = lows[i].error or ends[i].error or commit.error
    if bad then return failure(("%s [%d]: %s"):format(self.topic, item.partition, bad), bad) end
    local done = progress.read(math.type(commit.offset) == "integer" and commit.offset or nil, commit.metadata)
    done:raise(lows[i].offset)
    self.partitions[i] = { id = item.partition, low = lows[i].offset, end_offset = ends[i].offset,
      progress = done }
  end
  table.sort(self.partitions, function(a, b) return a.id < b.id end)
  return true
end

---Opens a topic of dead letters.
---@param options {topic: string, layers: rouse.KafkaLayers, kafka: table|nil, task: table|nil}
---@return rouse.Dlq|nil
---@return string|nil message
---@return integer|nil exit
function dlq.open(options)
  local kafka = options.kafka or require "rouse.kafka"
  local self = setmetatable({ topic = options.topic, layers = options.layers, kafka = kafka, partitions = {},
    task = options.task or require "rouse.task" }, metatable)
  local own = properties.resolve("consumer", options.layers, { ["group.id"] = dlq.group(options.topic),
    ["enable.partition.eof"] = "true" })
  local message
  self.admin, message = kafka.admin { properties = own }
  if self.admin then self.consumer, message = kafka.consumer { properties = own } end
  if not self.consumer then
    self:close()
    return nil, message, faults.exit.configuration
  end
  self.watcher = watch(self, self.admin)
  local ok, why, exit = self:read_partitions()
  if not ok then
    self:close()
    return nil, why, exit
  end
  return self
end

---A partition by its number.
---@param id integer
function methods:find(id)
  for _, partition in ipairs(self.partitions) do
    if partition.id == id then return partition end
  end
end

---Visits the records of a partition from one offset to another, in order, until visit returns false.
---@param partition table  of self.partitions
---@param first integer
---@param last integer
---@param visit fun(record: rouse.record): boolean|nil
---@return true|nil
---@return string|nil message
---@return integer|nil exit
function methods:scan(partition, first, last, visit)
  first, last = math.max(first, partition.low), math.min(last, partition.end_offset - 1)
  if first > last then return true end
  local ok, message, code = self.consumer:assign { { topic = self.topic, partition = partition.id, offset = first } }
  if not ok then return self:failed(message, code) end
  local next = first -- offsets that are skipped hold nothing: they count as replayed
  while true do
    local event
    event, message, code = self.consumer:poll { max = FETCH, timeout = TIMEOUT }
    if not event then return self:failed(message, code) end
    if event.kind == "error" and (event.fatal or faults.kind(event.code) ~= "link") then
      return failure(event.message, event.code)
    end
    for _, record in ipairs(event.records or {}) do
      partition.progress:add(next, math.min(record.offset - 1, last))
      next = record.offset + 1
      if record.offset > last or visit(record) == false or record.offset == last then return true end
    end
    if event.kind == "eof" then -- what is left is markers, or compacted away
      partition.progress:add(next, last)
      return true
    end
  end
end

-- ---- replay ----

-- Whether the topic is there; asked once.
function methods:target(topic)
  self.targets = self.targets or {}
  if self.targets[topic] == nil then
    local meta, message, code = self.admin:metadata { topics = { topic }, timeout = TIMEOUT }
    if not meta then return self:failed(message, code) end
    local found = meta.topics[topic]
    self.targets[topic] = found and not found.error and #found.partitions or false
  end
  return self.targets[topic]
end

---The record that a dead letter holds, ready to be produced: where it was, or to another topic.
---@param record rouse.record
---@param to string|nil
---@return rouse.produce|nil
---@return string|nil why not
---@return integer|nil exit
function methods:original(record, to)
  local said = deadletter.read(record)
  local topic = to or said.topic
  if not topic then return nil, "is no dead letter: it does not say where it comes from" end
  local count, message, exit = self:target(topic)
  if count == nil then return nil, message, exit end
  if not count then return nil, ("topic %s does not exist"):format(topic) end
  local partition = not to and said.partition or nil
  if partition and partition >= count then partition = nil end
  return { topic = topic, partition = partition, key = record.key, value = record.value,
    headers = said.headers, timestamp = record.timestamp }
end

-- Notes what a partition's progress is.
function methods:note(partition)
  local offset, metadata = partition.progress:write()
  if not offset then return nil, metadata, 1 end
  local list, message, code = self.consumer:commit({ { topic = self.topic, partition = partition.id,
    offset = offset, metadata = metadata } }, { timeout = TIMEOUT })
  if list and list[1] and list[1].error then list, message, code = nil, list[1].error, list[1].error end
  if not list then
    local _, text, exit = self:failed(message, code)
    return nil, "sent, but not noted: " .. tostring(text), exit
  end
  return true
end

---Sends originals of one partition's letters and notes what was delivered.
---@param partition table
---@param letters {offset: integer, record: rouse.produce}[]
---@param each fun(letter: table, place: table)  for each, with its place or its error
---@return true|nil
---@return string|nil message
---@return integer|nil exit
function methods:send(partition, letters, each)
  if not self.producer then
    local message
    self.producer, message = self.kafka.producer { properties = properties.resolve("producer", self.layers) }
    if not self.producer then return nil, message, faults.exit.configuration end
  end
  for from = 1, #letters, BATCH do
    local records = {}
    for i = from, math.min(from + BATCH - 1, #letters) do records[#records + 1] = letters[i].record end
    local places, message, code, partly = self.producer:produce_all(records)
    for i, place in ipairs(places or partly or {}) do
      local letter = letters[from + i - 1]
      if not place.error then partition.progress:add(letter.offset, letter.offset) end
      each(letter, place)
    end
    local noted, why, exit = self:note(partition)
    if not noted then return nil, why, exit end
    if not places then
      if faults.kind(code) == "other" then return nil, message, 1 end
      return failure(message, code)
    end
  end
  return true
end

function methods:close()
  if self.watcher then self.watcher:cancel() end
  for _, name in ipairs { "producer", "consumer", "admin" } do
    if self[name] then self[name]:close { timeout = 5 } end
  end
end

return dlq
