--- Random schedules: a seed gives a world (topics, jobs, groups, how consumers behave) and the steps that happen to it. A step is
--- independent of the others, so that any of them can be left out when a failing schedule is made smaller.
local random = require "rouse.sim.random"
local routes = require "rouse.config.routes"

local schedule = {}

local function job(r, name, group)
  return {
    name = name, group = group, assign = r:chance(0.6) and "index" or "group", idle_timeout = r:int(3, 20),
    dedup_window = r:chance(0.3) and r:int(2, 40) or 0, max_instances = r:chance(0.15) and r:int(1, 2) or nil,
  }
end

local function reset(r)
  return r:chance(0.15) and "latest" or "earliest"
end

-- Which topics are routed to which jobs and groups.
local SHAPES = {
  function(r) return { payments = { reset = reset(r), jobs = { job(r, "pay", "g1") } } } end,
  function(r)
    return { payments = { reset = reset(r), jobs = { job(r, "pay", "g1") } },
      shipping = { reset = reset(r), jobs = { job(r, "ship", "g2") } } }
  end,
  function(r) return { payments = { reset = reset(r), jobs = { job(r, "pay", "g1"), job(r, "audit", "g2") } } } end,
  function(r)
    local one, policy = job(r, "pay", "g1"), reset(r)
    return { payments = { reset = policy, jobs = { one } }, shipping = { reset = policy, jobs = { one } } }
  end,
  function(r) -- the same job under two groups
    local first, second = job(r, "pay", "g1"), {}
    for name, value in pairs(first) do
      second[name] = value
    end
    second.group = "g2"
    return { payments = { reset = reset(r), jobs = { first } }, shipping = { reset = reset(r), jobs = { second } } }
  end,
}

-- A route that does not work: its topic, its job or its rule is missing or wrong. The others must not notice.
local BREAKAGES = {
  function(table_of_routes, r)
    table_of_routes.ghost = { jobs = { job(r, "spook", "g3") } }
    return { spook = "topic" }
  end,
  function(table_of_routes, r)
    table_of_routes.orders = { jobs = { job(r, "absent", "g3") } }
    return { absent = "job" }
  end,
  function(table_of_routes, r)
    table_of_routes.orders = { jobs = { job(r, "thrower", "g3") } }
    return { thrower = "rule" }
  end,
}

local function new_config(r, seed)
  local latency = r:pick { 0.02, 0.1, 0.5 }
  local table_of_routes = SHAPES[r:chance(0.5) and 1 or r:int(1, #SHAPES)](r)
  local broken = r:chance(0.15) and r:pick(BREAKAGES)(table_of_routes, r) or {}
  local topics, jobs, names = {}, {}, {}
  for topic in pairs(table_of_routes) do
    names[#names + 1] = topic
  end
  table.sort(names)
  for _, topic in ipairs(names) do
    topics[topic] = topic ~= "ghost" and r:int(1, 4) or nil
    for _, each in ipairs(table_of_routes[topic].jobs) do
      jobs[each.name] = broken[each.name] ~= "job" and {} or nil
    end
  end
  return {
    seed = seed, routes = routes.from_table(table_of_routes), topics = topics, jobs = jobs,
    observers = r:chance(0.55) and 1 or r:chance(0.8) and 2 or 5, latency = { 0.005, latency },
    fetch_delay = r:pick { 0.05, 0.5 }, patience = r:chance(0.6) and 5,
    status_delay = { 0, r:pick { 0, 2 } }, start_delay = { 0.2, r:pick { 1, 4 } },
    commit_every = r:pick { 1, 5, 30 }, vanish = r:chance(0.15), broken = broken,
    quota = r:chance(0.1) and r:int(14, 20) or nil,
  }, names
end

local function reload(r, names)
  local what = r:pick { "same", "same", "rule", "bad", "remove", "remove", "back", "back", "window", "window" }
  return { kind = "reload", what = what, job = r:pick(names), seconds = what == "window" and r:int(0, 40) or nil }
end

local FAULTS = {
  { op = "submit", how = "refused" }, { op = "submit", how = "dropped" }, { op = "submit", how = "lost" },
  { op = "submit", how = "late" }, { op = "submit", how = "slow" }, { op = "submit", how = "throttled" },
  { op = "submit", how = "unauthorized" }, { op = "submit", how = "invalid" },
  { op = "list", how = "unavailable" }, { op = "list", how = "timeout" }, { op = "list", how = "slow" },
  { op = "read", how = "timeout" }, { op = "read", how = "slow" },
  { op = "read", how = "partial" }, { op = "read", how = "partial" }, { op = "read", how = "partial" },
  { op = "get", how = "unavailable" }, { op = "remove", how = "unavailable" }, { op = "commit", how = "unavailable" },
}

local function fault(r)
  local kind = r:pick(FAULTS)
  return { kind = "fault", op = kind.op, how = kind.how, delay = r:between(1, kind.op == "read" and 9 or 28),
    retry_after = kind.how == "throttled" and r:int(1, 40) or nil, which = r:int(0, 3) }
end

-- What may happen, with its weight.
local KINDS = {
  { 30, function(r, at) return { kind = "produce", topic = at.topic, partition = at.partition,
    count = r:chance(0.3) and r:int(2, 200) or 1 } end },
  { 10, function(r, at) return { kind = "race", topic = at.topic, partition = at.partition,
    delta = r:pick { 0, 0.001, 0.05, 0.2, 1, 2, 4, 5, 5.2 } } end },
  { 10, fault },
  { 6, function(r) return { kind = "nature", fate = r:pick { "crash", "crash", "noop", "stall" }, after = r:int(0, 3),
    delay = r:between(0.5, 40) } end },
  { 2, function(r) return { kind = "nature", pending = r:between(5, 90) } end },
  { 5, function(_, at) return { kind = "open", topic = at.topic, partition = at.partition } end },
  { 6, function(r, at) return { kind = "finish", topic = at.topic, partition = at.partition,
    outcome = r:pick { "committed", "aborted" } } end },
  { 2, function(r, at) return { kind = "trim", topic = at.topic, partition = at.partition, back = r:int(0, 3) } end },
  { 1, function(r, at)
    return { kind = "compact", topic = at.topic, partition = at.partition, back = r:int(0, 2) }
  end },
  { 1, function(r, at) return { kind = "recreate", topic = at.topic, keep = r:chance(0.5) } end },
  { 1, function(r, at) return { kind = "delete", topic = at.topic,
    back = r:chance(0.5) and r:between(1, 150) or nil } end },
  { 2, function(r, at) return { kind = "expire", group = r:pick { "g1", "g2" }, topic = at.topic,
    partition = at.partition } end },
  { 1, function(r, at) return { kind = "grow", topic = at.topic, partitions = r:int(2, 5) } end },
  { 2, function(r, at) return { kind = "rewind", group = r:pick { "g1", "g2" }, topic = at.topic,
    partition = at.partition, back = r:int(0, 3) } end },
  { 1, function(r) return { kind = "skew", observer = 1, seconds = r:pick { -3600, -20, 20, 3600 } } end },
  { 1, function(r) return { kind = "down", seconds = r:between(1, 40) } end },
  { 1, function(r, at) return { kind = "foreign", group = r:pick { "g1", "g2" }, topic = at.topic,
    partition = at.partition, seconds = r:between(10, 60) } end },
}

local function pick_kind(r)
  local total = 0
  for _, kind in ipairs(KINDS) do
    total = total + kind[1]
  end
  local at = r:float() * total
  for _, kind in ipairs(KINDS) do
    at = at - kind[1]
    if at < 0 then
      return kind[2]
    end
  end
end

local function job_names(config)
  local list, seen = {}, {}
  for _, route in ipairs(config.routes) do
    for _, each in ipairs(route.jobs) do
      list[#list + 1] = not seen[each.name] and each.name or nil
      seen[each.name] = true
    end
  end
  table.sort(list)
  return list
end

-- Whether and how often offsets are renewed, when they expire, and what goes wrong with that. From a stream of its own: a seed
-- without renewals is the schedule that it would be if there were none.
local function add_renewals(config, length)
  local r = random.new(config.seed, "renewals")
  if not r:chance(0.4) then
    return
  end
  local first, every = r:pick { 5, 20, 60 }, r:pick { 20, 60, 120 }
  config.renew = { first = first, every = every }
  config.retention = first + every + 90 + r:pick { 0, 10, 100 }
  for _ = 1, r:chance(0.5) and r:int(1, 6) or 0 do
    local op = r:chance(0.3) and "renew_read" or "renew"
    local how = op == "renew_read" and r:pick { "timeout", "slow" } or r:pick { "refused", "lost", "slow", "slow" }
    table.insert(config.steps, { kind = "fault", op = op, how = how, at = r:between(0, length),
      delay = how == "slow" and r:between(0.5, op == "renew" and r:pick { 9, 40 } or 9) or nil })
  end
end

--- The world and the schedule of a seed.
---@param seed integer
---@return rouse.sim.Config config with steps; its `calm` is when faults end
function schedule.new(seed)
  local r = random.new(seed, "schedule")
  local config, names = new_config(r, seed)
  local length = r:pick { 60, 200, 500 }
  local steps, count, jobs = {}, r:int(3, 45), job_names(config)
  for _ = 1, count do
    local topic = r:pick(names)
    local step = pick_kind(r)(r, { topic = topic, partition = r:int(0, (config.topics[topic] or 1) - 1) })
    step.at = r:chance(0.4) and #steps > 0 and steps[#steps].at + r:between(0, 3) or r:between(0, length)
    steps[#steps + 1] = step
  end
  for _ = 1, r:chance(0.3) and r:int(1, 5) or 0 do
    local step = reload(r, jobs)
    step.at = r:between(0, length)
    steps[#steps + 1] = step
  end
  for id = 1, config.observers do
    if r:chance(0.5) then
      for _ = 1, r:int(1, 2) do
        local at = r:between(0, length)
        steps[#steps + 1] = { kind = "crash", observer = id, at = at }
        steps[#steps + 1] = { kind = "boot", observer = id, at = at + r:between(0, r:pick { 2, 60 }) }
      end
    end
  end
  config.steps, config.calm = steps, length + 70
  add_renewals(config, length)
  table.sort(steps, function(a, b) return a.at < b.at end)
  return config
end

return schedule
