-- A Kafka cluster in this process for specs and the demo: librdkafka's mock with what a test needs around it. It speaks
-- the real protocol on loopback ports, so other processes may use it too. Its limits: 5 MiB a partition, a first group join
-- takes 3 s and later ones a session time-out, no look-up by timestamp, no transactions. A topic that is produced to is created,
-- one that is looked for is not.
local kafka = require "rouse.kafka"
local options = require "rouse.options"

local methods = {}
local metatable = { __name = "rouse.mock.kafka", __index = methods }

---@class rouse.mock.kafka
---@field cluster userdata The kafka.mock handle.
local mock = {}

local spec = {
  { name = "brokers", type = "number", default = 1, doc = "how many brokers" },
  { name = "topics", type = "table", default = {}, doc = "array of {name=, partitions=}, or {NAME = partitions}" },
}

local function topic_list(topics)
  local list = {}
  for key, value in pairs(topics) do
    list[#list + 1] = type(key) == "string" and { name = key, partitions = value } or value
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

---Starts a cluster; raises when it does not start.
---@param given? {brokers?: integer, topics?: table}
---@return rouse.mock.kafka
function mock.new(given)
  local checked = options.check(given or {}, spec, "mock.kafka.new")
  local cluster = assert(kafka.mock { brokers = checked.brokers, topics = topic_list(checked.topics) })
  return setmetatable({ cluster = cluster }, metatable)
end

---Returns "HOST:PORT,..." for any client.
---@return string
function methods:bootstrap_servers()
  return self.cluster:bootstrap_servers()
end

---Returns properties of a client of this cluster, quick enough for specs; `more` is added to them.
---@param more? rouse.properties
---@return table
function methods:properties(more)
  local properties = {
    ["bootstrap.servers"] = self.cluster:bootstrap_servers(),
    ["reconnect.backoff.max.ms"] = 200,
  }
  for name, value in pairs(more or {}) do
    properties[name] = value
  end
  return properties
end

---The same for a consumer, whose group is `group`.
---@param group? string
---@param more? rouse.properties
---@return table
function methods:consumer_properties(group, more)
  local properties = self:properties {
    ["group.id"] = group or "spec",
    ["fetch.wait.max.ms"] = 10, -- the mock answers a waiting fetch only when its wait is over
    ["session.timeout.ms"] = 4000,
    ["auto.offset.reset"] = "earliest",
    ["enable.auto.commit"] = false,
    ["enable.auto.offset.store"] = false,
  }
  for name, value in pairs(more or {}) do
    properties[name] = value
  end
  return properties
end

function methods:create_topic(topic)
  return self.cluster:create_topic(topic)
end

---Delivers records and waits until they are acknowledged, in a task.
---@param record rouse.produce|rouse.produce[] One record, or an array of them.
---@return {partition: integer, offset: integer}[] places In the order given; raises if one is not delivered.
function methods:produce(record)
  if type(record) ~= "table" then
    error(("mock.kafka:produce: expected a record or an array of records, got a %s"):format(type(record)), 2)
  end
  if not self.producer then
    self.producer = assert(kafka.producer { properties = self:properties { ["linger.ms"] = 0 } })
  end
  local records = record.topic and { record } or record
  local places = {}
  for i, each in ipairs(records) do
    places[i] = assert(self.producer:produce(each))
  end
  return places
end

---The next requests of an API ("Fetch", "OffsetCommit", or its number) are answered with these errors, one each.
---@param fault {api: string|integer, errors: string[]}
function methods:fail(fault)
  return self.cluster:fail(fault)
end

---Every request for a topic is answered with this error until it is set to nil.
---@param fault {topic: string, error?: string}
function methods:topic_error(fault)
  return self.cluster:topic_error(fault)
end

function methods:broker_down(id)
  return self.cluster:broker_down(id)
end

function methods:broker_up(id)
  return self.cluster:broker_up(id)
end

---Delays every answer of a broker.
function methods:rtt(id, seconds)
  return self.cluster:rtt(id, seconds)
end

---@param change {topic: string, partition: integer, broker?: integer} Without a broker there is no leader.
function methods:set_leader(change)
  return self.cluster:set_leader(change)
end

---@param change {group: string, broker: integer}
function methods:set_coordinator(change)
  return self.cluster:set_coordinator(change)
end

---Ends the cluster in the background; harmless when repeated.
function methods:close()
  do
    local _ <close> = self.producer -- in the background, so that close() may be called anywhere
  end
  self.producer = nil
  self.cluster:close()
end

metatable.__close = methods.close

return mock
