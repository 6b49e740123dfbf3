--- Worlds as values: copies, and hashes of what matters. Times count relative to now, and long past is one time, so that a world
--- in which nothing changes any more is the same world a minute later.
local state = {}

-- Seconds: longer ago is all the same. After few failures nothing in the engine looks further back, but for the removal of runs.
local LONG <const> = 12
local CLOCK <const>, WALL <const> = 1000000, 1700000000

-- Shared by all copies: nobody changes them.
local SHARED <const> = {
  config = true, definitions = true, env = true, path = true, jobs = true, spec = true, effect = true, indices = true,
  succeeded_indices = true, failed_indices = true,
}

-- Without meaning for what may happen next. The second half are times that only look further back than LONG, or that only an
-- observer's dedup windows and removals of runs rest on.
local SKIPPED <const> = {
  config = true, definitions = true, seq = true, count = true, version = true, noise = true, trace = true, stats = true,
  history = true, seen_version = true, decision = true, effects = true, world = true, observer = true, path = true,
  clock = true, now = true, wall = true, planned = true, submits = true, id = true, life = true, call = true,
  failures_of = true, reads_of = true, flying_of = true,
  born = true, created = true, created_at = true, accepted = true, accepted_at = true, rested = true, last_alive = true,
  forget_at = true, over = true, last_wake = true, stuck_since = true, stuck_commit = true, woken = true,
  was_served = true, why = true, all_why = true, woken_at = true, retry_at = true,
}

local function copy(value, memo)
  if type(value) ~= "table" then
    return value
  end
  local known = memo[value]
  if known then
    return known
  end
  local result = {}
  memo[value] = result
  for key, item in next, value do
    if type(item) == "table" then
      result[type(key) == "table" and copy(key, memo) or key] = SHARED[key] and item or copy(item, memo)
    else
      result[type(key) == "table" and copy(key, memo) or key] = item
    end
  end
  return setmetatable(result, getmetatable(value))
end

--- A copy that shares nothing that changes.
function state.copy(world)
  return copy(world, {})
end

local function mix(a, b)
  local z = (a ~ (b * 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9
  return z ~ (z >> 29)
end

local words = {}

local function word(text)
  local hash = words[text]
  if not hash then
    hash = 0x811c9dc5
    for i = 1, #text do
      hash = (hash ~ text:byte(i)) * 0x100000001b3
    end
    words[text] = hash
  end
  return hash
end

local function relative(value, now)
  local age = now - value
  if age > LONG then
    return 0x1111
  end
  return math.tointeger((age * 1000 + 0.5) // 1) * 2 + 0x5555555
end

local function number(value, world)
  if value ~= value or value == math.huge or value == -math.huge then
    return value == math.huge and 3 or 5
  elseif value > CLOCK / 2 and value < CLOCK * 2 then
    return relative(value, world.clock)
  elseif value > WALL / 2 and value < WALL * 2 then
    return relative(value, world.wall + world.clock - CLOCK)
  end
  return math.tointeger((value * 1000 + 0.5) // 1) * 4 + 7
end

local hash

-- Shared tables never change and hold no times.
local constants = setmetatable({}, { __mode = "k" })

local function table_hash(t, world, memo)
  local known = memo[t]
  if known then
    return known
  end
  memo[t] = 0xABCDEF
  local sum = 0
  for key, value in next, t do
    if not SKIPPED[key] then
      local it
      if SHARED[key] and type(value) == "table" then
        it = constants[value]
        if not it then
          it = table_hash(value, world, memo)
          constants[value] = it
        end
      else
        it = hash(value, world, memo)
      end
      sum = sum + mix(hash(key, world, memo), it)
    end
  end
  sum = mix(sum, 0x77)
  memo[t] = sum
  return sum
end

function hash(value, world, memo)
  local kind = math.type(value) or type(value)
  if kind == "integer" or kind == "float" then
    return number(value, world)
  elseif kind == "string" then
    return word(value)
  elseif kind == "table" then
    return table_hash(value, world, memo)
  elseif kind == "boolean" then
    return value and 11 or 13
  end
  return 17 -- functions are the same in all worlds
end

-- What belongs to one observer: itself, what the oracle notes of it, and what is under way for it. Its number is only a name.
local function observer_hash(world, o, memo)
  local sum = table_hash(o, world, memo)
  local oracle = world.oracle
  sum = mix(sum, table_hash(oracle.ledgers[o.id], world, memo))
  for _, unit in ipairs(oracle.units) do
    local mine = oracle.bounds.units[unit.id]
    if mine then
      sum = mix(sum, hash(mine.failures_of[o.id], world, memo) * 3 + hash(mine.reads_of[o.id], world, memo) * 5
        + hash(mine.flying_of[o.id], world, memo) * 7)
    end
  end
  local items = 0
  for _, item in ipairs(world.queue) do
    if item.id == o.id then
      items = items + mix(table_hash(item, world, memo), 0x99)
    end
  end
  return mix(mix(sum, hash(oracle.bounds.lists[o.id], world, memo)), items)
end

--- What a world is, as a number: everything that can matter for what happens next. The queue counts as a set, and so do the
--- observers: two worlds in which they have changed places are one.
function state.hash(world)
  local memo, sum, oracle = {}, 0, world.oracle
  local queue, observers, ledgers, lists = world.queue, world.observers, oracle.ledgers, oracle.bounds.lists
  for _, o in ipairs(observers) do
    sum = sum + mix(observer_hash(world, o, memo), 0x55)
  end
  for _, item in ipairs(queue) do
    if not item.id then
      sum = sum + mix(table_hash(item, world, memo), 0x99)
    end
  end
  world.queue, world.observers, oracle.ledgers, oracle.bounds.lists = nil, nil, nil, nil
  sum = mix(sum, table_hash(world, world, memo))
  world.queue, world.observers, oracle.ledgers, oracle.bounds.lists = queue, observers, ledgers, lists
  return sum
end

return state
