-- Kafka for scripts: consumers, producers, questions to a cluster, and librdkafka's mock cluster. Waiting methods work in any
-- task; failures of the world are nil, message, code, misuse raises. Durations and timestamps are seconds.
local core = require "rouse.core.kafka"
local options_of = require "rouse.options"

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

---Cannot be changed. What consumer:poll returns makes its fields when they are read: keep in a local
---what is used often. Reads as a table (pairs, json.encode), and a table may stand for it in specs.
---@class rouse.record
---@field topic string
---@field partition integer
---@field offset integer
---@field key? string
---@field value? string nil for a tombstone.
---@field headers rouse.header[] Empty tables are shared between records and read-only. Raises where they are not read.
---@field timestamp? number Seconds since the epoch.
---@field timestamp_type? "create"|"append"
---@field leader_epoch? integer Where librdkafka is 2.1 or newer and the broker tells.

---@class rouse.slice
---@field topic string
---@field partition integer
---@field first integer Index in the event's records.
---@field last integer
---@field bytes integer Of keys and values.

---@class rouse.event What consumer:poll returns; `kind` says which fields are there.
---@field kind "records"|"assign"|"revoke"|"error"|"eof"
---@field records? rouse.record[] Of any assigned partitions, in offset order within each.
---@field slices? rouse.slice[] Stretches of `records` that are of one partition.
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

---@class rouse.produce
---@field topic string
---@field partition? integer
---@field key? string
---@field value? string
---@field headers? rouse.header[]
---@field timestamp? number
---@field timeout? number Of the wait; the record may still be delivered after it.

---What a failed call of a transaction means: make the same call again; abort, and do all of it again; close the producer.
---@alias rouse.failure "retriable"|"abortable"|"fatal"

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

---@class rouse.kafka
local kafka = {}

-- Passes on what opening a handle returned; an unknown property's message names the nearest known one.
local function opened(handle, message, code)
  local name = code == "CONFIG" and message:match '^No such configuration property: "(.-)"'
  if not name then
    return handle, message, code
  end
  local names = {}
  -- those with an underscore are set by functions, not as text
  for known in ("\n" .. core.properties()):gmatch "\n(%l[%w.]*) *|" do
    names[#names + 1] = known
  end
  return nil, message .. options_of.hint(name, names), code
end

---Opens a consumer. It needs group.id, also when it never joins. Properties are librdkafka's, which judges them.
---`headers = false` leaves those of its records unread, which makes each record cheaper.
---@param options {properties: rouse.properties, headers?: boolean}
---@return rouse.consumer|nil consumer
---@return string? message librdkafka's own
---@return "CONFIG"? code
function kafka.consumer(options)
  return opened(core.consumer(options))
end

---Opens a producer: idempotent unless enable.idempotence says otherwise, transactional with a transactional.id. It delivers
---what is queued when it closes, also when it is collected.
---@param options {properties: rouse.properties}
---@return rouse.producer|nil producer
---@return string? message
---@return "CONFIG"? code
function kafka.producer(options)
  return opened(core.producer(options))
end

---Opens a handle for questions to a cluster; it consumes nothing, so its questions never wait behind a fetch.
---@param options {properties: rouse.properties}
---@return rouse.admin|nil admin
---@return string? message
---@return "CONFIG"? code
function kafka.admin(options)
  return opened(core.admin(options))
end

---Starts librdkafka's mock cluster; rouse.mock.kafka makes it more comfortable.
---@param options? {brokers?: integer, topics?: {name: string, partitions?: integer}[], properties?: table}
---@return rouse.kafka.mock|nil mock
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
