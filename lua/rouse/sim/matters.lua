--- What matters of a part of a small world (rouse.sim.parts) for what may happen next, as a number: parts with the same number
--- are one. Times count relative to now, and long past is one time, so that a world in which nothing changes any more is the
--- same world a minute later. Everything counts unless it is named here, with the reason; spec/sim/plain.lua looks for states
--- that count as one and are not.
---
--- What the reasons rest on: one unit in lag mode, the packaged rule, no dedup window, clocks that are right, and commits of
--- a group that only move forward.
local coverage = require "rouse.wake.coverage"
local naming = require "rouse.wake.naming"

local matters = {}

-- Seconds: longer ago is all the same. After few failures nothing in the engine looks further back.
local LONG <const> = 12
local CLOCK <const>, WALL <const> = 1000000, 1700000000

--- Never changed by anybody, and without times.
matters.SHARED = {
  config = true, definitions = true, env = true, jobs = true, spec = true, effect = true, indices = true,
  succeeded_indices = true, failed_indices = true,
}
local SHARED <const> = matters.SHARED

local SKIPPED <const> = {
  -- Names and numbers that are only that, what is told to people, what is the same in every state, what is empty then.
  seq = true, count = true, version = true, noise = true, renewal_noise = true, overwritten = true,
  stats = true, history = true, seen_version = true,
  submits = true, id = true, life = true, decision = true, woken = true, why = true, all_why = true, effects = true,
  failure = true, failure_code = true, retry_at = true, stuck = true, stuck_since = true, stuck_commit = true,
  -- What an event brings, when it comes.
  clock = true, now = true,
  -- A timer that is waited for is in the queue.
  planned = true, call = true, soonest = true,
  -- Set before it is read, whenever it is.
  was_served = true, rang = true,
  -- What dedup windows, waits of rules and clocks set back rest on.
  created = true, created_at = true, accepted_at = true, last_wake = true, woken_at = true, born = true, dated = true,
  -- What removals of runs rest on: rouse.sim.moves keeps runs from ever being old enough.
  rested = true, over = true, forget_at = true,
  -- Where runs vanish: here they stay.
  late = true,
  -- A run joins the list when its submit is answered, and no list is under way then: the next one shows it.
  accepted = true,
  -- Lists are as old as two late answers at most when something rests on them.
  list_sent = true, list_seen = true,
  -- Whether an instance failed or not: its run is over either way, and its records wait or do not.
  ok = true, took = true,
  -- The same tables as elsewhere: runs by name; the oracle's unit of a run.
  by_name = true, listed = true, unit = true,
}

-- Where "no" and "not known" are two things.
local NO <const> = { committed = true, calm = true, calm_commit = true }

-- Where 0 and nothing are the same.
local ZERO <const> = { submit_failures = true, read_failures = true, failures_of = true, reads_of = true }

local function mix(a, b)
  local z = (a ~ (b * 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9
  return z ~ (z >> 29)
end

-- Hashes of what is no table and no time.
local known = { [true] = 11, [false] = 13 }

local function scalar(value, clock)
  local kind = math.type(value) or type(value)
  local result = 0x811c9dc5
  if kind == "string" then
    for i = 1, #value do
      result = (result ~ value:byte(i)) * 0x100000001b3
    end
  elseif kind ~= "integer" and kind ~= "float" then
    return 17 -- functions are the same in all worlds
  elseif value ~= value or value == math.huge or value == -math.huge then
    result = value == math.huge and 3 or 5
  else
    local age = value > CLOCK / 2 and value < CLOCK * 2 and clock - value
    age = age or value > WALL / 2 and value < WALL * 2 and WALL + clock - CLOCK - value
    if age then
      return age > LONG and 0x1111 or math.tointeger((age * 1000 + 0.5) // 1) * 2 + 0x5555555
    end
    result = math.tointeger((value * 1000 + 0.5) // 1) * 4 + 7
  end
  known[value] = result
  return result
end

local table_hash

local constants = setmetatable({}, { __mode = "k" })

--- The hash of what is shared.
function matters.constant(value)
  local it = constants[value]
  if not it then
    it = table_hash(value, 0, {})
    constants[value] = it
  end
  return it
end

local SPECIAL = {} -- by the name of a field that holds a table: function(value, holder, clock, memo)

function table_hash(t, clock, memo)
  local sum = memo[t]
  if sum then
    return sum
  end
  sum = 0
  for key, value in next, t do
    if not SKIPPED[key] and (value or NO[key]) and (value ~= 0 or not ZERO[key]) then
      local it = known[value]
      if not it then
        if type(value) ~= "table" then
          it = scalar(value, clock)
        elseif SHARED[key] then
          it = constants[value] or matters.constant(value)
        else
          local special = SPECIAL[key]
          it = special and special(value, t, clock, memo) or table_hash(value, clock, memo)
        end
      end
      local z = ((known[key] or scalar(key, clock)) ~ (it * 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9
      sum = sum + (z ~ (z >> 29))
    end
  end
  sum = mix(sum, 0x77)
  memo[t] = sum
  return sum
end

local function without(t, names, clock, memo)
  local kept = {}
  for name in pairs(names) do
    kept[name], t[name] = t[name], nil
  end
  local sum = table_hash(t, clock, memo)
  for name, value in pairs(kept) do
    t[name] = value
  end
  return sum
end

-- ---- runs ----

-- Where the group's work starts now on a partition, as the part knows it that is looked at.
local start_of

local decoded = setmetatable({}, { __index = function(list, text)
  list[text] = naming.decode(text)
  return list[text]
end })

--- Whether the group is past all that a run was started for. Then nobody counts it as an attempt any more, whenever it ended:
--- who decides has read commits at least as new as these.
---@param run table as the API shows it
---@param start fun(topic: string, partition: integer): integer?
function matters.is_passed(run, start)
  for topic, partitions in pairs(decoded[run.env.ROUSE_WAKE or ""]) do
    for partition, entry in pairs(partitions) do
      local passed = false
      for offset = 0, (start(topic, partition) or 0) - 1 do
        passed = passed or naming.mark(topic, partition, offset) == entry.mark
      end
      if not passed then
        return false
      end
    end
  end
  return true
end

--- A run as the API shows it: whether it is over and since when, else which of its instances are not.
local function run_hash(run, clock, dated)
  local sum = known[run.name] or scalar(run.name)
  if run.status == "completed" or run.status == "failed" then
    local at = dated and not matters.is_passed(run, start_of) and run.completed_at
    return mix(mix(sum, constants[run.env] or matters.constant(run.env)), at and scalar(at, clock) or 3)
  end
  local live = {}
  for _, index in ipairs(run.indices) do
    live[index] = true
  end
  for _, list in ipairs { run.succeeded_indices, run.failed_indices } do
    for _, index in ipairs(list) do
      live[index] = nil
    end
  end
  for index in pairs(live) do
    sum = sum + mix(index, 0x33)
  end
  return mix(mix(sum, constants[run.env] or matters.constant(run.env)), coverage.active(run))
end

-- A list of runs counts as a set. When they ended matters in a list that is under way; who has read it has noted that elsewhere.
function SPECIAL.runs(list, holder, clock, memo)
  local sum = 5
  for _, run in ipairs(list) do
    sum = sum + (run.instances and table_hash(run, clock, memo) or run_hash(run, clock, holder.kind == "listed"))
  end
  return sum
end

function SPECIAL.run(run, _, clock, memo)
  return run.instances and table_hash(run, clock, memo) or run_hash(run, clock)
end

function SPECIAL.shown(run, _, clock)
  return run_hash(run, clock, true)
end

-- What runs serve a unit is found out anew before each decision.
function SPECIAL.running()
  return 1
end

-- The list that decisions rest on: see list_sent.
function SPECIAL.targets(targets, _, clock, memo)
  local sum = 1
  for _, target in pairs(targets) do
    sum = sum + without(target, { sent = true }, clock, memo)
  end
  return sum
end

-- Runs that an answer told of: when is compared with lists that were under way then, and none was.
function SPECIAL.own(own, _, clock)
  local sum = 1
  for name, it in pairs(own) do
    sum = sum + mix(known[name] or scalar(name), it.run and run_hash(it.run, clock) or 3)
  end
  return sum
end

function SPECIAL.ended(ended, engine, clock, memo)
  if not engine.targets then
    return table_hash(ended, clock, memo)
  end
  local sum, runs = 1, {}
  for _, target in pairs(engine.targets) do
    for _, run in ipairs(target.runs) do
      runs[run.name] = run
    end
  end
  for name, at in pairs(ended) do
    local passed = runs[name] and matters.is_passed(runs[name], start_of)
    sum = sum + mix(known[name] or scalar(name), passed and 3 or scalar(at, clock))
  end
  return sum
end

--- When a run was last seen alive matters until it was seen to have ended.
function SPECIAL.last_alive(alive, engine, clock)
  local sum = 1
  for name, at in pairs(alive) do
    sum = sum + (engine.ended[name] and 0 or mix(known[name] or scalar(name), scalar(at, clock)))
  end
  return sum
end

-- ---- partitions ----

-- What an observer knows of a partition. A proof before the start proves nothing, an attempt from before it is none.
function SPECIAL.parts(list, _, clock, memo)
  if not list[1] then
    return table_hash(list, clock, memo)
  end
  local sum = 1
  for i, part in ipairs(list) do
    local names = { attempt = true }
    names.proof = part.proof and part.start and part.proof < part.start or nil
    names.tried = part.tried and part.start and part.tried.start < part.start or nil
    sum = sum + mix(i, memo[part] or without(part, names, clock, memo))
  end
  return sum
end

-- The parts of a unit, by place.
function SPECIAL.index()
  return 1
end

-- Without a patient handle it does not matter since when.
function SPECIAL.armed(armed)
  local sum = 1
  for name, it in pairs(armed) do
    sum = sum + mix(known[name] or scalar(name), it.offset)
  end
  return sum
end

-- What an observer was told to prove work before the commit it was told proves nothing.
function SPECIAL.proofs(proofs, ledger)
  local sum = 1
  for unit, list in pairs(proofs) do
    for name, proof in pairs(list) do
      local read = (ledger.reads[unit] or {})[name]
      local dead = read and read.committed and read.committed > proof
      sum = sum + (dead and 0 or mix(known[name] or scalar(name), proof))
    end
  end
  return sum
end

-- ---- parts ----

local function with_queue(part, clock, memo)
  local sum, queue = 0, part.queue
  for _, item in ipairs(queue) do
    sum = sum + mix(table_hash(item, clock, memo), 0x99)
  end
  part.queue = nil
  sum = mix(sum, table_hash(part, clock, memo))
  part.queue = queue
  return sum
end

--- An observer's part. What is under way counts as a set, here and below.
---@param part table
---@param clock number
---@return integer
function matters.of_observer(part, clock)
  local engine = part.o.engine
  start_of = function(topic, partition)
    local index = engine and engine.units[1].index[topic]
    return index and index[partition] and index[partition].start
  end
  return with_queue(part, clock, {})
end

-- Whether nothing will ever wait: all records there are and may be are consumed.
local function is_over(part)
  for name, topic in pairs(part.cluster.topics) do
    for partition = 0, topic.count - 1 do
      if topic[partition].high > (start_of(name, partition) or 0) then
        return false
      end
    end
  end
  return part.left.records == 0
end

--- The part that all share. How long something may wait does not matter where nothing will.
---@param part table
---@param clock number
---@return integer
function matters.of_shared(part, clock)
  local group = part.cluster.commits.g or {}
  start_of = function(topic, partition)
    return group[topic] and group[topic][partition]
  end
  local bounds = part.oracle.bounds
  local units, all = bounds.units, bounds.all
  if is_over(part) then
    bounds.units, bounds.all = nil, nil
  end
  local sum = with_queue(part, clock, {})
  bounds.units, bounds.all = units, all
  return sum
end

return matters
