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

-- Without meaning for what may happen next.
local SKIPPED <const> = {
  config = true, definitions = true, seq = true, count = true, version = true, noise = true, trace = true, stats = true,
  history = true, seen_version = true, decision = true, effects = true, world = true, observer = true, path = true,
  clock = true, now = true, wall = true, planned = true, submits = true,
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

local function table_hash(t, world, memo)
  local known = memo[t]
  if known then
    return known
  end
  memo[t] = 0xABCDEF
  local sum = 0
  for key, value in next, t do
    if not SKIPPED[key] then
      sum = sum + mix(hash(key, world, memo), hash(value, world, memo))
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

--- What a world is, as a number: everything that can matter for what happens next. The queue counts as a set.
function state.hash(world)
  local memo, sum = {}, 0
  local queue = world.queue
  for _, item in ipairs(queue) do
    sum = sum + mix(table_hash(item, world, memo), 0x99)
  end
  world.queue = nil
  sum = mix(sum, table_hash(world, world, memo))
  world.queue = queue
  return sum
end

return state
