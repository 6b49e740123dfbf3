-- How a transaction ends: committed with the offsets of what it holds, or aborted, and what is done about it.
-- Methods of rouse.consumer.transaction.

local common = require "rouse.consumer.transaction.common"
local index = require "rouse.consumer.index"
local retry = require "rouse.consumer.retry"

---@class rouse.consumer.Transactions
local methods = {}

-- Commits what the transaction holds with `offset`. Returns true, or nil, message, code, means.
function methods:end_transaction(state, offset, timeout)
  local s = self.session
  local claim = self.claims[common.key(state)]
  if claim then
    -- A transaction's offsets are not refused while the group has members, as a plain commit is:
    -- committing the last offset again shows whether the partition is ours.
    local ok, message, code = index.commit({ consumer = s.consumer, admin = s.admin }, claim, claim.at, timeout)
    if not ok then return nil, message, code end
    claim.tried = math.max(claim.tried, offset)
  end
  local ok, message, code, means
  if not state.open then
    ok, message, code, means = self:call(state, "begin")
    if not ok then return nil, message, code, means end
    state.open = true
  end
  ok, message, code, means = self:persist(state, "send_offsets", {
    offsets = { { topic = state.topic, partition = state.partition, offset = offset,
      metadata = claim and claim.name } },
    consumer = not claim and s.consumer or nil, group = claim and self.settings.group or nil,
    timeout = common.TIMEOUT,
  })
  if ok then
    ok, message, code, means = self:persist(state, "commit", { timeout = common.TIMEOUT })
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
  local state, part = self.states[common.key(item)], item.part
  if state and state.over and part.state == "parked" then
    item.offset = part.committed -- what it had finished is aborted
    return true
  elseif not state or state.over or not state.ready then
    return nil, "no transaction", state and "ABORTED" or "LOST"
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

-- What a transaction that was not committed means for its partition. Returns the code for the session: LOST where the group
-- took the partition away meanwhile, and whoever has it now has fenced us by right.
function methods:fail(state, part, message, code, means)
  if self:left(state) then
    return "LOST" -- what ends the transaction is under way
  elseif common.FENCED[code] then
    state.over = true
    self:drop(state)
    return self:left(state) and "LOST" or "TAKEN"
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

return methods
