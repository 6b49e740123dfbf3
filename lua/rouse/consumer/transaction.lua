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

local deadletter = require "rouse.consumer.deadletter"
local faults = require "rouse.consumer.faults"
local index = require "rouse.consumer.index"
local output = require "rouse.consumer.output"
local retry = require "rouse.consumer.retry"
local verdicts = require "rouse.consumer.verdicts"

local transaction = {}

local TIMEOUT <const> = 10   -- of one call; those that may be repeated are
local ENDING <const> = 2     -- of an abort and a close that nobody may have to wait for
local PAUSE <const> = 0.1

---@class rouse.consumer.Transactions
---@field session rouse.consumer.Session
local methods = {}
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

local function key(place) return ("%s/%d"):format(place.topic, place.partition) end

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
  self.claims[key(claim)] = claim
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

-- Makes a call until it succeeds, fails for good or the session is over.
-- Returns true, or nil, message, code, means.
function methods:persist(fn)
  while true do
    local ok, message, code, means = fn()
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
  local producer = state.producer
  state.covers, state.broken = 0, nil
  if not producer or not state.open then return end
  local deadline = self.task.monotonic() + TIMEOUT
  repeat
    local ok, _, code, means = producer:abort { timeout = ENDING }
    if ok then
      state.open = false
      return
    end
    local again = means == "retriable" or (not means and code == "TIMEDOUT")
    if again then self.task.sleep(PAUSE) end
  until not again or self.session.draining or self.task.monotonic() > deadline
  self:drop(state)
end

local fenced = { _FENCED = true, INVALID_PRODUCER_EPOCH = true, PRODUCER_FENCED = true }

-- ---- taking a partition ----

-- Opens the producer and fences who had the partition before; then what is committed is final.
function methods:take(state)
  local s = self.session
  if not state.producer then
    local producer, message, code = self.kafka.producer { properties = self.properties(self:id(state)) }
    if not producer then return nil, message, code, "fatal" end
    state.producer = producer
    local ok, means
    ok, message, code, means = self:persist(function()
      return producer:init_transactions { timeout = TIMEOUT }
    end)
    if not ok then
      self:drop(state)
      return nil, message, code, means
    end
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
    elseif fenced[code] then
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

-- Another one has the partition.
function methods:give_up(state, why)
  state.over = true
  self:drop(state)
  self.log.warn("partition given up", { topic = state.topic, partition = state.partition, reason = why,
    code = "FENCED" })
  self.session.given_up = true
  self.session:finish { kind = "given up" }
end

-- ---- handlers ----

-- Sending and committing exclude each other. Held by a scope, since a handler may be cancelled in it.
local Lock <const> = {
  __close = function(lock)
    lock.state.lock = nil
    lock.event:set()
  end,
}

function methods:lock(state)
  while state.lock do state.lock.event:wait() end
  state.lock = setmetatable({ state = state, event = self.task.event() }, Lock)
  return state.lock
end

-- Adds what belongs to the records before `offset` to the transaction, under its lock.
-- Returns "done", or "retry" and why.
function methods:send(state, outputs, offset)
  if state.over or not state.producer then return "retry", "the transaction was aborted" end
  local ok, message = true, nil
  if not state.open then
    ok, message = state.producer:begin()
    state.open = ok or false
  end
  if not ok then
    state.broken = message
    return "retry", message
  end
  state.broken = "stopped in the middle"
  for i = 1, #outputs do
    ok, message = state.producer:send(outputs[i])
    if not ok then
      state.broken = (i > 1 or state.producer:outstanding() == 0) and message or nil
      return "retry", message
    end
  end
  state.broken = nil
  state.covers = math.max(state.covers, offset)
  return "done"
end

-- Takes what belongs to the records before `offset`; when care is needed, commits it at once.
function methods:accept(state, outputs, offset)
  local _ <close> = self:lock(state)
  local answer, why = self:send(state, outputs, offset)
  if answer ~= "done" or not state.careful then return answer, why end
  state.broken = "stopped in the middle"
  local ok, message, code, means = self:end_transaction(state, offset, TIMEOUT)
  state.broken = nil
  if ok then
    if offset >= state.careful then state.careful, state.failures = nil, 0 end
    return "done"
  elseif fenced[code] or means == "fatal" then
    self:give_up(state, message)
  else
    self:abort(state)
  end
  return "retry", message
end

-- Handles one record.
function methods:one(state, handle)
  local box = { list = {} }
  local produce = self.output:collector(box)
  return function(record, ctx)
    if not state.ready then
      local ok, why = self:prepare(state, record.offset)
      if ok ~= true then return ok, why end
    end
    if record.offset < state.floor then return "done" end
    if box.list[1] then box.list = {} end
    ctx.produce = produce
    local verdict, reason = handle(record, ctx)
    if verdict ~= "done" or not box.list[1] then return verdict, reason end
    return self:accept(state, box.list, record.offset + 1)
  end
end

local MIXED <const> = "some records of the batch are to be retried, and what belongs to the others cannot be "
  .. "told apart: answer for all alike where ctx.produce is used"

-- Whether some of a batch are to be retried, and why.
local function retried(count, value)
  local verdict, reason, _, each = verdicts.batch(count, true, value)
  if not each then return verdict == "retry", reason end
  local some, others = nil, false
  for _, entry in ipairs(each) do
    if entry.verdict == "retry" then some = some or entry else others = true end
  end
  return some ~= nil, others and MIXED or (some and some.reason)
end

-- What a batch answers, after what it produced is in the transaction.
function methods:accept_batch(state, count, last, outputs, value, reason)
  local again, why = retried(count, value)
  if again then return "retry", reason or why end
  if value == "dead" then return value, reason end
  local answer, problem = self:accept(state, outputs, last + 1)
  if answer ~= "done" then return answer, problem end
  return value, reason
end

-- Handles a batch, without those of its records that somebody before us has done.
function methods:many(state, handle)
  local box = { list = {} }
  local produce = self.output:collector(box)
  return function(records, ctx)
    local count, skip = #records, 0
    if not state.ready then
      local ok, why = self:prepare(state, records[1].offset)
      if ok ~= true then return ok, why end
    end
    while skip < count and records[skip + 1].offset < state.floor do skip = skip + 1 end
    if skip == count then return "done" end
    if skip > 0 then records = table.move(records, skip + 1, count, 1, {}) end
    if box.list[1] then box.list = {} end
    ctx.produce = produce
    local last = records[#records].offset -- the handler may change the table
    local value, reason = handle(records, ctx)
    if box.list[1] then
      value, reason = self:accept_batch(state, count - skip, last, box.list, value, reason)
    end
    if skip > 0 and type(value) == "table" then
      local all = {}
      for i = 1, skip do all[i] = "done" end
      value = table.move(value, 1, count - skip, skip + 1, all)
    end
    return value, reason
  end
end

---The script as a partition that was just assigned is to see it.
---@param item {topic: string, partition: integer}
---@return {handle: function|nil, handle_batch: function|nil}
function methods:script_of(item)
  local state = self.next_state or { floor = 0, failures = 0 }
  self.next_state = nil
  state.topic, state.partition = item.topic, item.partition
  state.open, state.covers, state.done, state.over, state.ready = false, 0, -1, false, false
  self.states[key(item)] = state
  local script = self.script
  return {
    handle = script.handle and self:one(state, script.handle),
    handle_batch = script.handle_batch and self:many(state, script.handle_batch),
  }
end

---Writes a dead letter, in the transaction that finishes its record.
---@type rouse.consumer.Bury
function methods:bury(record, reason, attempts)
  local state = self.states[key(record)]
  if not state or state.over then return nil, "the transaction was aborted", "ABORTED" end
  local letter = deadletter.letter(record, { topic = self.settings.dead, group = self.settings.group,
    index = self.settings.index, reason = reason, attempts = attempts, now = self.task.now() })
  local ok, message, code = self.output:check(letter)
  if not ok then return nil, message, code end
  local answer, why = self:accept(state, { letter }, record.offset + 1)
  if answer == "done" then return true end
  return nil, why, "ABORTED"
end

-- ---- commits ----

-- Commits what the transaction holds with `offset`. Returns true, or nil, message, code, means.
function methods:end_transaction(state, offset, timeout)
  local s, producer = self.session, state.producer
  local claim = self.claims[key(state)]
  if claim then
    -- A transaction's offsets are not refused while the group has members, as a plain commit is:
    -- committing the last offset again shows whether the partition is ours.
    local ok, message, code = index.commit({ consumer = s.consumer, admin = s.admin }, claim, claim.at, timeout)
    if not ok then return nil, message, code end
    claim.tried = math.max(claim.tried, offset)
  end
  local ok, message, code, means
  if not state.open then
    ok, message, code, means = producer:begin()
    if not ok then return nil, message, code, means end
    state.open = true
  end
  ok, message, code, means = self:persist(function()
    return producer:send_offsets {
      offsets = { { topic = state.topic, partition = state.partition, offset = offset,
        metadata = claim and claim.name } },
      consumer = not claim and s.consumer or nil, group = claim and self.settings.group or nil,
      timeout = TIMEOUT,
    }
  end)
  if ok then
    ok, message, code, means = self:persist(function()
      return producer:commit { timeout = TIMEOUT }
    end)
  end
  if not ok then return nil, message, code, means end
  state.open, state.covers, state.done, state.base = false, 0, offset, offset
  if claim then claim.at = offset end
  return true
end

-- Handles everything since the last commit again, more carefully, or parks the partition.
function methods:again(state, part, why)
  local s = self.session
  state.over = true
  local current = (s.partitions[part.topic] or {})[part.partition]
  if current ~= part or part.stopping or s.draining then return self:drop(state) end
  local failures = state.failures + 1
  local delay = retry.delay(self.settings.retry, failures)
  if not delay then
    self:drop(state)
    self.log.error("partition parked", { topic = part.topic, partition = part.partition, offset = state.base,
      attempt = failures, reason = "transaction aborted: " .. tostring(why) })
    part.state = "parked"
    part:stop()
    return
  end
  self.log.warn("transaction aborted, its records are handled again", { topic = part.topic,
    partition = part.partition, offset = state.base, attempt = failures, reason = why })
  local place = { topic = part.topic, partition = part.partition, offset = state.base }
  local worker = part.worker
  part:stop()
  if worker then worker:cancel() end
  s.partitions[part.topic][part.partition] = nil
  s.count = s.count - 1
  assert(s.consumer:seek { place })
  s.consumer:resume { place }
  self.next_state = { producer = state.producer, base = state.base, floor = state.floor, failures = failures,
    previous = worker, not_before = self.task.monotonic() + delay,
    careful = self.script.handle and math.max(part:position() or 0, state.base) or nil }
  s:add { place }
end

---The session's committer: commits a partition's finished records with what belongs to them.
---@param item {topic: string, partition: integer, offset: integer, part: rouse.consumer.Partition}
---@param timeout number
---@return true|nil
---@return string|nil message
---@return string|nil code
function methods:commit(item, timeout)
  local state, part = self.states[key(item)], item.part
  if state and state.over and part.state == "parked" then
    item.offset = part.committed -- what it had finished is aborted
    return true
  elseif not state or state.over or not state.ready then
    return nil, "no transaction", "ABORTED"
  elseif item.offset <= math.max(state.floor, state.done) and state.covers == 0 then
    return true
  end
  local _ <close> = self:lock(state)
  local offset = part:position() or item.offset
  local ok, message, code, means
  if state.over then
    return nil, "the transaction was aborted", "ABORTED"
  elseif state.broken then
    message, code, means = state.broken, "ABORTED", "abortable"
  elseif state.covers > offset then
    item.offset = part.committed -- something of it belongs to a record that is not finished yet
    return true
  else
    ok, message, code, means = self:end_transaction(state, offset, timeout)
  end
  if ok then
    item.offset = offset
    if not state.careful then state.failures = 0 end
    return true
  end
  return nil, message, self:fail(state, part, message, code, means)
end

-- What a transaction that was not committed means for its partition. Returns the code for the session.
function methods:fail(state, part, message, code, means)
  if fenced[code] then
    state.over = true
    self:drop(state)
    return "TAKEN"
  elseif code == "TAKEN" or code == "REFUSED" then
    state.over = true
    self:abort(state)
  elseif means then
    self:abort(state)
    if means == "fatal" then self:drop(state) end
    self:again(state, part, message)
  end
  return code
end

---Partitions were given back, or lost: what is not committed is aborted.
---@param places {topic: string, partition: integer}[]
function methods:leave(places)
  for _, place in ipairs(places) do
    local state = self.states[key(place)]
    if state then
      state.over = true
      self.states[key(place)], self.claims[key(place)] = nil, nil
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
