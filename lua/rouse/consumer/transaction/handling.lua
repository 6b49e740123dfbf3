-- What a transactional handler produced goes into its partition's transaction: sent while nothing commits, in
-- whole or not at all. Methods of rouse.consumer.transaction.

local common = require "rouse.consumer.transaction.common"
local deadletter = require "rouse.consumer.deadletter"
local verdicts = require "rouse.consumer.verdicts"

---@class rouse.consumer.Transactions
local methods = {}

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
  local ok, message, code, means = self:end_transaction(state, offset, common.TIMEOUT)
  state.broken = nil
  if ok then
    if offset >= state.careful then state.careful, state.failures = nil, 0 end
    return "done"
  elseif common.FENCED[code] or means == "fatal" then
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

---Writes a dead letter, in the transaction that finishes its record.
---@type rouse.consumer.Bury
function methods:bury(record, reason, attempts)
  local state = self.states[common.key(record)]
  if not state or state.over then return nil, "the transaction was aborted", "ABORTED" end
  local letter = deadletter.letter(record, { topic = self.settings.dead, group = self.settings.group,
    index = self.settings.index, reason = reason, attempts = attempts, now = self.task.now() })
  local ok, message, code = self.output:check(letter)
  if not ok then return nil, message, code end
  local answer, why = self:accept(state, { letter }, record.offset + 1)
  if answer == "done" then return true end
  return nil, why, "ABORTED"
end

return methods
