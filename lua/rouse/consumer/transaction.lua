-- Exactly once (`consume.transactional`): what a handler produces and the offsets of the records it
-- handled are committed in one transaction, or not at all.
--
-- Each partition has a producer of its own, whose transactional.id is made of group, topic and
-- partition: whoever takes the partition next fences us, whether it joined the group or came by
-- index, and what we left open is aborted at once. Members of the group are fenced by their
-- generation too: the broker refuses the offsets of somebody who is no member any more.
--
-- What a handler produces is held back until it answers "done"; so a retry needs no abort, and an
-- open transaction never waits for a handler. Sending and committing exclude each other, and a
-- transaction is committed only while it holds exactly what belongs to the finished prefix.

local common = require "rouse.consumer.transaction.common"
local faults = require "rouse.consumer.faults"
local output = require "rouse.consumer.output"
local retry = require "rouse.consumer.retry"

local transaction = {}

local TIMEOUT <const> = common.TIMEOUT
local ENDING <const> = 2     -- of an abort and a close that nobody may have to wait for
local PAUSE <const> = 0.1

---@class rouse.consumer.Transactions
---@field session rouse.consumer.Session
local methods = {}
for _, room in ipairs { "handling", "committing" } do
  for name, fn in pairs(require("rouse.consumer.transaction." .. room)) do methods[name] = fn end
end
local metatable = { __name = "rouse.consumer.transactions", __index = methods }

-- What belongs to one assignment of one partition, and to one run of its records after an abort.
---@class rouse.consumer.Transaction
---@field topic string
---@field partition integer
---@field producer table|nil  nil until the first record, and after it was fenced
---@field open boolean  a transaction is under way
---@field covers integer  it holds what belongs to records before this offset
---@field base integer|nil  where to begin again after an abort
---@field floor integer  records before it are done, by somebody before us
---@field done integer  committed up to here, by us
---@field broken string|nil  why the open transaction must not be committed
---@field lock table|nil
---@field over boolean  aborted for good: another one took its place, or nobody will
---@field careful integer|nil  each record before this offset gets a transaction of its own
---@field failures integer  aborts in a row

---@param options {settings: table, script: table, kafka: table, task: table, log: table, properties: fun(id: string): table}
---@return rouse.consumer.Transactions
function transaction.new(options)
  local self = setmetatable({ states = {}, claims = {} }, metatable)
  for name, value in pairs(options) do self[name] = value end
  local own = self.settings.transactional
  self.prefix = type(own) == "string" and own or "rouse." .. self.settings.group
  self.output = output.new(function(topic) return self:knows(topic) end, self.properties(""))
  return self
end

---The transactional.id of a partition.
function methods:id(place)
  return ("%s.%s.%d"):format(self.prefix, place.topic, place.partition)
end

---Opens and closes a producer, to see whether its properties are right.
---@return true|nil
---@return string|nil message
function methods:try_properties()
  local producer, message = self.kafka.producer { properties = self.properties(self.prefix) }
  if not producer then return nil, message end
  producer:close { timeout = 0.1 }
  return true
end

---A partition was taken by index.
---@param claim rouse.consumer.Claim
function methods:claimed(claim)
  claim.at = claim.offset
  self.claims[common.key(claim)] = claim
end

-- Whether a topic is there to be produced to; nil, message, code when it is not or nobody knows.
function methods:knows(topic)
  local meta, message, code = self.session.admin:metadata { topics = { topic }, timeout = TIMEOUT }
  if not meta then return nil, message, code end
  local found = meta.topics[topic]
  if found and not found.error then return true end
  code = found and found.error or "UNKNOWN_TOPIC_OR_PART"
  if faults.kind(code) == "topic" then return nil, ("topic %s does not exist"):format(topic), code end
  return nil, ("topic %s: %s"):format(topic, code), code
end

-- ---- calls of librdkafka's transactions ----

-- A call of the partition's producer, which may have been dropped since: who leaves a lost partition waits for nobody.
-- Returns what it returns, or nil, message, code, means.
function methods:call(state, method, options)
  local producer = state.producer
  if not producer then return nil, "the transaction was aborted", "ABORTED" end
  return producer[method](producer, options)
end

-- Makes a call until it succeeds, fails for good or the session is over.
-- Returns true, or nil, message, code, means.
function methods:persist(state, method, options)
  while true do
    local ok, message, code, means = self:call(state, method, options)
    if ok then return true end
    if means ~= "retriable" and (means or code ~= "TIMEDOUT") then return nil, message, code, means end
    if self.session.draining then return nil, message, code, means end
    self.session:say(code or "?", "transaction waits for the broker", { reason = message })
    self.task.sleep(PAUSE)
  end
end

-- Drops a producer; the next one with its id ends what it left open.
function methods:drop(state)
  local producer = state.producer
  state.producer, state.open, state.ready = nil, false, false
  if producer then producer:close { timeout = ENDING } end
end

function methods:abort(state)
  state.covers, state.broken = 0, nil
  if not state.producer or not state.open then return end
  local deadline = self.task.monotonic() + TIMEOUT
  repeat
    local ok, _, code, means = self:call(state, "abort", { timeout = ENDING })
    if ok then
      state.open = false
      return
    end
    local again = means == "retriable" or (not means and code == "TIMEDOUT")
    if again then self.task.sleep(PAUSE) end
  until not again or self.session.draining or self.task.monotonic() > deadline
  self:drop(state)
end

-- ---- taking a partition ----

-- Opens the producer: whoever had the partition before is fenced, and what was left open is ended.
function methods:open(state)
  local producer, message, code = self.kafka.producer { properties = self.properties(self:id(state)) }
  if not producer then return nil, message, code, "fatal" end
  state.producer = producer
  local ok, means
  ok, message, code, means = self:persist(state, "init_transactions", { timeout = TIMEOUT })
  if ok then return true end
  self:drop(state)
  return nil, message, code, means
end

---Ends what an instance left open that was killed while it committed: until then, a minute by default,
---the broker does not tell the partition's commit.
---@param place {topic: string, partition: integer}
function methods:end_former(place)
  local state = { topic = place.topic, partition = place.partition }
  local ok, message, code = self:open(state)
  self:drop(state)
  return ok, message, code
end

-- Opens the producer; then what is committed is final.
function methods:take(state)
  local s = self.session
  if not state.producer then
    local ok, message, code, means = self:open(state)
    if not ok then return nil, message, code, means end
  end
  local list, message, code = s.consumer:committed({
    { topic = state.topic, partition = state.partition } }, { timeout = TIMEOUT })
  local item = list and list[1]
  if not item or item.error then return nil, message or item.error, code or item.error end
  if math.type(item.offset) == "integer" then state.floor = math.max(state.floor, item.offset) end
  return true
end

-- Before the first record of a run. Returns true, or what the handler answers in its place.
function methods:prepare(state, offset)
  local s, task = self.session, self.task
  if state.previous then
    state.previous:join { timeout = TIMEOUT } -- the cancelled handler of the run before
    state.previous = nil
  end
  if state.opening then
    state.opening:join()
    state.opening = nil
  end
  local wait = (state.not_before or 0) - task.monotonic()
  if wait > 0 then task.sleep(wait) end
  local tries = 0
  while not s.outcome and not state.over do
    local ok, message, code = self:take(state)
    if ok then
      state.base = math.max(state.base or offset, state.floor)
      state.ready = true
      return true
    end
    local kind = faults.kind(code)
    if kind == "credentials" or kind == "authorization" then
      s:refused(code, message)
    elseif common.FENCED[code] then
      self:give_up(state, message)
    else
      s:say(code or "?", "transactional producer not ready, trying again", { reason = message,
        topic = state.topic, partition = state.partition })
      tries = tries + 1
      task.sleep(retry.delay({ first = 0.1, max = 5, tries = math.huge }, tries))
    end
  end
  return "retry", "the consumer ends"
end

-- Whether the partition was given back or lost since.
function methods:left(state)
  return self.states[common.key(state)] ~= state
end

-- Another one has the partition. Where the group gave it to that one, there is nothing to give up.
function methods:give_up(state, why)
  state.over = true
  self:drop(state)
  if self:left(state) then return end
  self.log.warn("partition given up", { topic = state.topic, partition = state.partition, reason = why,
    code = "FENCED" })
  self.session.given_up = true
  self.session:finish { kind = "given up" }
end

-- ---- assignments ----

---The script as a partition that was just assigned is to see it.
---@param item {topic: string, partition: integer}
---@return {handle: function|nil, handle_batch: function|nil}
function methods:script_of(item)
  local state = self.next_state or { floor = 0, failures = 0 }
  self.next_state = nil
  state.topic, state.partition = item.topic, item.partition
  state.open, state.covers, state.done, state.over, state.ready = false, 0, -1, false, false
  self.states[common.key(item)] = state
  -- not with the first record: librdkafka fetches none before the former owner's commit is told
  if not state.producer and not self.claims[common.key(item)] then
    state.opening = self.session:spawn(self.open, self, state)
  end
  local script = self.script
  return {
    handle = script.handle and self:one(state, script.handle),
    handle_batch = script.handle_batch and self:many(state, script.handle_batch),
  }
end

---Partitions were given back, or lost: what is not committed is aborted.
---@param places {topic: string, partition: integer}[]
function methods:leave(places)
  for _, place in ipairs(places) do
    local state = self.states[common.key(place)]
    if state then
      state.over = true
      if state.opening then state.opening:cancel() end
      self.states[common.key(place)], self.claims[common.key(place)] = nil, nil
      self:abort(state)
      self:drop(state)
    end
  end
end

---The end: nothing stays open.
function methods:close()
  local places = {}
  for _, state in pairs(self.states) do places[#places + 1] = state end
  self:leave(places)
end

return transaction
