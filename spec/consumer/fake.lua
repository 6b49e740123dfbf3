-- A stand-in for rouse.kafka in memory: one group, any number of topics, faults on demand. For what
-- the mock cluster cannot show: rebalances at a chosen moment, refused commits, lost answers.

local task = require "rouse.task"

local fake = {}

local Cluster = {}
Cluster.__index = Cluster

---@param topics table<string, integer>  partitions per topic
function fake.new(topics)
  local self = setmetatable({
    logs = {}, commits = {}, history = {}, faults = {}, calls = {}, closed = {},
  }, Cluster)
  for name, count in pairs(topics) do
    self.logs[name] = {}
    for number = 0, count - 1 do self.logs[name][number] = { next = 0, records = {} } end
  end
  return self
end

function Cluster:produce(topic, number, count)
  local log = self.logs[topic][number]
  for _ = 1, count or 1 do
    log.records[#log.records + 1] = {
      topic = topic, partition = number, offset = log.next, value = "v" .. log.next,
    }
    log.next = log.next + 1
  end
  if self.wake then self.wake:set() end
end

-- A transaction's marker: an offset without a record.
function Cluster:mark(topic, number)
  self.logs[topic][number].next = self.logs[topic][number].next + 1
end

function Cluster:event(event)
  self.events[#self.events + 1] = event
  self.wake:set()
end

-- The next call of this name fails.
function Cluster:fail(name, code, times)
  self.faults[name] = { code = code, times = times or 1 }
end

function Cluster:fault(name)
  self.calls[name] = (self.calls[name] or 0) + 1
  local fault = self.faults[name]
  if not fault or fault.times == 0 then return nil end
  fault.times = fault.times - 1
  return fault.code
end

function Cluster:committed_offset(topic, number)
  local commit = self.commits[topic .. "/" .. number]
  return commit and commit.offset
end

local function list_key(item) return item.topic .. "/" .. item.partition end

local Consumer = {}
Consumer.__index = Consumer

function Consumer:subscribe(topics)
  self.cluster.subscribed = topics
  self.cluster.held = next(self.assigned) ~= nil
  if self.cluster.on_subscribe then self.cluster.on_subscribe(topics) end
  return true
end

function Consumer:assign(list)
  self.assigned = {}
  return self:incremental_assign(list)
end

function Consumer:incremental_assign(list)
  for _, item in ipairs(list) do
    local commit = self.cluster.commits[list_key(item)]
    self.assigned[list_key(item)] = { topic = item.topic, partition = item.partition,
      position = item.offset or commit and commit.offset or 0 }
  end
  self.cluster.wake:set()
  return true
end

function Consumer:incremental_unassign(list)
  for _, item in ipairs(list) do self.assigned[list_key(item)] = nil end
  return true
end

local function set_paused(self, list, value)
  for _, item in ipairs(list) do
    local found = self.assigned[list_key(item)]
    if found then found.paused = value end
  end
  self.cluster.wake:set()
  return true
end

function Consumer:pause(list)
  self.cluster.pauses = (self.cluster.pauses or 0) + 1
  return set_paused(self, list, true)
end

function Consumer:resume(list) return set_paused(self, list, false) end

local function next_records(self, max)
  for key, item in pairs(self.assigned) do
    local log = self.cluster.logs[item.topic][item.partition]
    if not item.paused then
      local found = {}
      for _, record in ipairs(log.records) do
        if record.offset >= item.position and #found < max then
          found[#found + 1] = record
        end
      end
      if #found > 0 then
        item.position = found[#found].offset + 1
        return { kind = "records", records = found }
      elseif item.eof ~= log.next then
        item.eof = log.next
        return { kind = "eof", topic = item.topic, partition = item.partition, offset = log.next }, key
      end
    end
  end
end

function Consumer:poll(options)
  local cluster = self.cluster
  cluster.polled = options.max
  local deadline = task.monotonic() + options.timeout
  while true do
    if #cluster.events > 0 then return table.remove(cluster.events, 1) end
    local event = next_records(self, options.max)
    if event then
      task.sleep(0)
      return event
    end
    cluster.wake:clear()
    local left = deadline - task.monotonic()
    if left <= 0 or not cluster.wake:wait(left) then return nil, "timed out", "TIMEDOUT" end
  end
end

function Consumer:commit(list)
  task.sleep(0)
  local code = self.cluster:fault "commit"
  if code == "LOST" then
    code = "_TIMED_OUT"
  elseif code then
    return nil, "refused", code
  end
  for _, item in ipairs(list) do
    self.cluster.commits[list_key(item)] = { offset = item.offset, metadata = item.metadata }
    table.insert(self.cluster.history, list_key(item) .. "@" .. item.offset)
  end
  if code then return nil, "timed out", code end
  return list
end

function Consumer:committed(list)
  task.sleep(0)
  local code = self.cluster:fault "committed"
  if code then return nil, "refused", code end
  local answer = {}
  for i, item in ipairs(list) do
    local commit = self.cluster.commits[list_key(item)] or {}
    answer[i] = {
      topic = item.topic, partition = item.partition, offset = commit.offset,
      metadata = commit.metadata,
    }
  end
  return answer
end

function Consumer:close()
  table.insert(self.cluster.closed, "consumer")
  return true
end

local Admin = {}
Admin.__index = Admin

function Admin:metadata(options)
  task.sleep(0)
  local code = self.cluster:fault "metadata"
  if code then return nil, "refused", code end
  local topics = {}
  for _, name in ipairs(options.topics) do
    local log = self.cluster.logs[name]
    topics[name] = { partitions = {}, error = not log and "UNKNOWN_TOPIC_OR_PART" or nil }
    for number = 0, log and #log or -1 do topics[name].partitions[number + 1] = { id = number } end
  end
  return { brokers = {}, topics = topics }
end

function Admin:offsets(options)
  task.sleep(0)
  local code = self.cluster:fault "offsets"
  if code then return nil, "refused", code end
  local answer = {}
  for i, item in ipairs(options.partitions) do
    local log = self.cluster.logs[item.topic][item.partition]
    if self.cluster.deleted then log = nil end
    answer[i] = not log and {
      topic = item.topic, partition = item.partition, error = "UNKNOWN_TOPIC_OR_PART",
    } or {
      topic = item.topic, partition = item.partition,
      offset = options.at == "end" and log.next or 0,
    }
  end
  return answer
end

function Admin:poll(options)
  task.sleep(options.timeout)
  return nil, "timed out", "TIMEDOUT"
end

function Admin:close()
  table.insert(self.cluster.closed, "admin")
  return true
end

local Producer = {}
Producer.__index = Producer

function Producer:produce(letter)
  task.sleep(0)
  local code = self.cluster:fault "produce"
  if code then return nil, "refused", code end
  self.cluster.letters = self.cluster.letters or {}
  table.insert(self.cluster.letters, letter)
  return { partition = 0, offset = #self.cluster.letters - 1 }
end

function Producer:close()
  table.insert(self.cluster.closed, "producer")
  return true
end

---What rouse.kafka would be.
function Cluster:module()
  self.events, self.wake = self.events or {}, task.event()
  local function open(class)
    return function(options)
      if self.refuse_properties then return nil, "No such configuration property: \"x\"", "CONFIG" end
      local handle = { cluster = self, assigned = {}, properties = options.properties }
      return setmetatable(handle, class)
    end
  end
  return { consumer = open(Consumer), admin = open(Admin), producer = open(Producer) }
end

-- Signals sent by the spec.
function fake.signals()
  local queue = task.queue()
  return { send = function(name) queue:put(name) end, wait = function() return queue:get() end }
end

-- A log that remembers.
function fake.log()
  local lines = {}
  local log = { lines = lines, secret = function() end }
  for _, level in ipairs { "debug", "info", "warn", "error" } do
    log[level] = function(message, fields)
      lines[#lines + 1] = { level = level, message = message, fields = fields or {} }
    end
  end
  function log.find(message)
    for _, line in ipairs(lines) do
      if line.message:find(message, 1, true) then return line end
    end
  end
  return log
end

return fake
