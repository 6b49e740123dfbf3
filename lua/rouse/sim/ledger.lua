--- What one observer was told: rings, the run list, offsets. From this alone, and without the engine's own code, it says which
--- partitions may be woken for.
local Ledger = { __name = "rouse.sim.ledger" }
Ledger.__index = Ledger

local ledger = {}

local function key(topic, partition)
  return topic .. "/" .. partition
end

---@param units table[]
function ledger.new(units)
  local proofs = {}
  for _, unit in ipairs(units) do
    proofs[unit.id] = {}
  end
  return setmetatable({ proofs = proofs, refused = {}, reads = {}, runs = {}, own = {} }, Ledger)
end

function Ledger:rung(event)
  local id = key(event.topic, event.partition)
  self.refused[id] = self.refused[id] or {}
  if event.error then
    self.refused[id][event.offset] = true
  end
  for _, proofs in pairs(self.proofs) do
    proofs[id] = not event.error and math.max(proofs[id] or event.offset, event.offset) or nil
  end
end

--- The observer routes a unit no longer, and with it goes what it knew of it.
function Ledger:forget(unit)
  self.proofs[unit], self.reads[unit] = {}, nil
end

--- The observer was told that a topic is gone; what comes under its name is another.
function Ledger:gone(topic)
  for _, lists in ipairs { self.proofs, self.reads } do
    for _, list in pairs(lists) do
      for id in pairs(list) do
        list[id] = id:match("^(.*)/") ~= topic and list[id] or nil
      end
    end
  end
end

function Ledger:listed(item)
  local before = {}
  for _, run in ipairs(self.runs) do
    before[run.name] = true
  end
  self.runs, self.list_seen, self.list_sent = {}, item.seen, item.sent
  for i, run in ipairs(item.runs) do
    local copy = {}
    for name, value in pairs(run) do
      copy[name] = value
    end
    self.runs[i] = copy
  end
  for name, own in pairs(self.own) do
    -- What a list that was sent later shows counts. A run that was listed already when a slow answer told of it is gone with the
    -- first list that does not show it, whenever that was sent.
    own.run = own.at >= item.sent and not self:lists(name) and not before[name] and own.run or nil
  end
end

function Ledger:lists(name)
  for _, run in ipairs(self.runs) do
    if run.name == name then
      return true
    end
  end
  return false
end

--- A run that this observer knows to exist since then, whatever an older list says.
function Ledger:accepted(run, clock)
  self.own[run.name] = { run = run, at = clock }
end

--- Names of the runs that this observer knows, from the list or from answers.
function Ledger:known()
  local names = {}
  for _, run in ipairs(self.runs) do
    names[run.name] = true
  end
  for name in pairs(self.own) do
    names[name] = true
  end
  return names
end

--- A reading, or that it failed: what was proven before that counts no more.
function Ledger:read(item)
  if item.failed then
    self.proofs[item.unit] = {}
    return
  end
  local reads, proofs = self.reads[item.unit] or {}, self.proofs[item.unit]
  self.reads[item.unit] = reads
  for _, part in ipairs(item.parts) do
    local id = key(part.topic, part.partition)
    if part.error then
      reads[id], proofs[id] = { error = part.error }, nil
    else
      local before = reads[id] or {}
      local low = part.low or before.low or 0
      reads[id] = { committed = part.committed, low = low, stop = part.end_offset, work = part.work }
      local proof = proofs[id]
      if proof and (low > proof or (part.end_offset or math.huge) <= proof) then
        proofs[id] = nil
      end
    end
  end
end

local function live(run)
  if run.status == "completed" or run.status == "failed" then
    return {}
  end
  local list = {}
  for _, index in ipairs(run.indices) do
    list[index] = true
  end
  for _, ended in ipairs { run.succeeded_indices, run.failed_indices } do
    for _, index in ipairs(ended) do
      list[index] = nil
    end
  end
  return list
end

local function setting(run, jobs, name)
  return run.env and run.env[name] or (jobs[run.job] or {})[name]
end

--- What the runs that the observer was told of serve: partitions by index, and how many instances share the group.
---@return table<string, boolean> covered, integer shared
function Ledger:covered(unit, jobs)
  local runs = { table.unpack(self.runs) }
  for name, own in pairs(self.own) do
    if own.run and not self:lists(name) and own.at >= (self.list_sent or 0) then
      runs[#runs + 1] = own.run
    end
  end
  local covered, shared = {}, 0
  for _, run in ipairs(runs) do
    if setting(run, jobs, "CONSUMER_GROUP") == unit.group then
      for index in pairs(live(run)) do
        if setting(run, jobs, "ROUSE_ASSIGN") == "index" then
          for topic in (setting(run, jobs, "KAFKA_TOPIC") or ""):gmatch("[^,%s]+") do
            covered[key(topic, index)] = true
          end
        else
          shared = shared + 1
        end
      end
    end
  end
  return covered, shared
end

--- The partitions of a unit with proven work that nobody covers, as far as the observer was told; and how many instances those
--- allow.
---@param still fun(id: string, start: integer): boolean whether a record is there in truth
---@return table<string, boolean> open, integer count
function Ledger:open(unit, jobs, still)
  local covered, shared = self:covered(unit, jobs)
  local open, count = {}, 0
  for id, read in pairs(self.reads[unit.id] or {}) do
    local proof = self.proofs[unit.id][id]
    if proof and not read.error and unit.topics[id:match("^(.*)/")] then
      local start = read.committed
      local fits = start and read.stop and read.low <= start and start <= read.stop
      if not start or (self.refused[id] or {})[start] and not fits then
        start = read.low
      end
      if start <= proof and not covered[id] and (read.work or still(id, start)) then
        open[id], count = true, count + 1
      end
    end
  end
  return open, count - shared
end

return ledger
