-- Kafka for scripts: consumers, producers, questions to a cluster, and librdkafka's mock cluster. Waiting methods work in any
-- task; failures of the world are nil, message, code, misuse raises. Durations and timestamps are seconds.
local core = require "rouse.core.kafka"

---@class rouse.partition One entry of a partition list.
---@field topic string
---@field partition integer
---Given: where to start or what to commit (the next to consume). Got: nil means none.
---@field offset? integer|"beginning"|"end"|"stored"
---@field metadata? string Kept with a commit.
---@field error? string In results: librdkafka's name of the error of this entry.

---@alias rouse.list rouse.partition[]
---@alias rouse.wait {timeout?: number}
---@alias rouse.properties table<string, string|number|boolean>

---@class rouse.header
---@field name string
---@field value? string

---@class rouse.record
---@field topic string
---@field partition integer
---@field offset integer
---@field key? string
---@field value? string nil for a tombstone.
---@field headers rouse.header[] Empty tables are shared between records and read-only.
---@field timestamp? number Seconds since the epoch.
---@field timestamp_type? "create"|"append"

---@class rouse.event What consumer:poll returns; `kind` says which fields are there.
---@field kind "records"|"assign"|"revoke"|"error"|"eof"
---@field records? rouse.record[] Of any assigned partitions, in offset order within each.
---@field partitions? rouse.list Of a rebalance. Answer it with assign or unassign, `protocol` says which.
---COOPERATIVE: answer with the incremental functions; else assign(partitions) or assign{}.
---@field protocol? "EAGER"|"COOPERATIVE"|"NONE"
---@field lost? boolean The revoked partitions may already be consumed by somebody else.
---librdkafka's name of the error: "_AUTO_OFFSET_RESET", "_ALL_BROKERS_DOWN", "_AUTHENTICATION", ...
---@field code? string
---@field message? string
---@field fatal? boolean The consumer is of no more use.
---@field topic? string
---@field partition? integer
---@field offset? integer

---@class rouse.consumer : userdata
---Joins the group for topics, or patterns beginning with ^. {} leaves it.
---@field subscribe fun(self, topics: string[]): true?, string?, string?
---Consumes exactly these; without an offset from the commit.
---@field assign fun(self, list: rouse.list): true?, string?, string?
---@field incremental_assign fun(self, list: rouse.list): true?, string?, string?
---What was read of them and not yet polled is dropped.
---@field incremental_unassign fun(self, list: rouse.list): true?, string?, string?
---@field assignment fun(self): rouse.list?, string?, string?
---The flag outlives a new assignment. Up to one event may still come.
---@field pause fun(self, list: rouse.list): true?, string?, string?
---@field resume fun(self, list: rouse.list): true?, string?, string?
---@field seek fun(self, list: rouse.list): true?, string?, string?
---One task at a time. Poll always, also while partitions are paused: rebalances and errors come this way.
---@field poll fun(self, options?: {max?: integer, max_bytes?: integer, timeout?: number}): rouse.event?, string?, string?
---Offsets that the next commit() takes; offset = next to consume.
---@field store fun(self, list: rouse.list): true?, string?, string?
---Without a list what was stored; {} when there was nothing.
---@field commit fun(self, list?: rouse.list, options?: rouse.wait): rouse.list?, string?, string?
---@field committed fun(self, list: rouse.list, options?: rouse.wait): rouse.list?, string?, string?
---Next to be polled; also past what holds no record.
---@field position fun(self, list: rouse.list): rouse.list?, string?, string?
---Leaves the group. Without it the collector does, in the background.
---@field close fun(self, options?: rouse.wait): true?, string?, string?

---@class rouse.produce
---@field topic string
---@field partition? integer
---@field key? string
---@field value? string
---@field headers? rouse.header[]
---@field timestamp? number
---@field timeout? number Of the wait; the record may still be delivered after it.

---@class rouse.producer : userdata
---Waits for the delivery.
---@field produce fun(self, record: rouse.produce): {partition: integer, offset: integer}?, string?, string?
---Only queues; "_QUEUE_FULL" when there is no room.
---@field send fun(self, record: rouse.produce): true?, string?, string?
---Until nothing is outstanding; fails if something sent was not delivered.
---@field flush fun(self, options?: rouse.wait): true?, string?, string?
---@field outstanding fun(self): integer
---@field close fun(self, options?: rouse.wait): true?, string?, string? Delivers what is queued first.

---@class rouse.metadata
---@field brokers {id: integer, host: string, port: integer}[]
---@field topics table<string, {partitions: {id: integer, leader?: integer, error?: string}[], error?: string}>

---@class rouse.offsets
---@field partitions rouse.list
---@field at? "end"|"beginning" Default "end".
---@field timeout? number

---@class rouse.groupoffsets
---@field group string
---@field partitions? rouse.list To read: all that have a commit when missing.
---@field timeout? number

---@class rouse.group
---@field state string As the broker says: "Stable", "Empty", ...
---@field members {id: string, client: string, host: string, partitions: rouse.list}[]
---@field error? string

---@class rouse.admin : userdata
---Never creates a topic.
---@field metadata fun(self, options?: {topics?: string[], timeout?: number}): rouse.metadata?, string?, string?
---In the order asked, an offset or an error each; by the property isolation.level.
---@field offsets fun(self, options: rouse.offsets): rouse.list?, string?, string?
---In the cluster's order.
---@field group_offsets fun(self, options: rouse.groupoffsets): rouse.list?, string?, string?
---For groups without members.
---@field alter_group_offsets fun(self, options: rouse.groupoffsets): rouse.list?, string?, string?
---Not against the mock cluster.
---@field describe_groups fun(self, options: {groups: string[], timeout?: number}): table<string, rouse.group>?, string?, string?
---@field poll fun(self, options?: rouse.wait): rouse.event?, string?, string? The handle's errors.
---@field close fun(self, options?: rouse.wait): true?, string?, string?

---@class rouse.kafka
local kafka = {}

---Opens a consumer. It needs group.id, also when it never joins. Properties are librdkafka's, which judges them.
---@param options {properties: rouse.properties}
---@return rouse.consumer|nil consumer
---@return string? message librdkafka's own
---@return "CONFIG"? code
function kafka.consumer(options)
  return core.consumer(options)
end

---Opens a producer.
---@param options {properties: rouse.properties}
---@return rouse.producer|nil producer
---@return string? message
---@return "CONFIG"? code
function kafka.producer(options)
  return core.producer(options)
end

---Opens a handle for questions to a cluster; it consumes nothing, so its questions never wait behind a fetch.
---@param options {properties: rouse.properties}
---@return rouse.admin|nil admin
---@return string? message
---@return "CONFIG"? code
function kafka.admin(options)
  return core.admin(options)
end

---Starts librdkafka's mock cluster; rouse.mock.kafka makes it more comfortable.
---@param options? {brokers?: integer, topics?: {name: string, partitions?: integer}[], properties?: table}
---@return userdata|nil mock
---@return string? message
---@return string? code
function kafka.mock(options)
  return core.mock(options)
end

---Says whether a topic's name matches a pattern (a POSIX extended regular expression), as a subscription would.
---@param pattern string
---@param name string
---@return boolean|nil matches
---@return string? message
---@return "PATTERN"? code
function kafka.match(pattern, name)
  return core.match(pattern, name)
end

---Returns the version of the librdkafka in use.
---@return string
function kafka.version()
  return core.version()
end

---Makes "topic [partition]" of an entry or record, for messages.
---@param place {topic: string, partition: integer}
---@return string
function kafka.place(place)
  return ("%s [%d]"):format(place.topic, place.partition)
end

return kafka
