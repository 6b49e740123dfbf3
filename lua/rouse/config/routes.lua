-- Routes: which topics are watched and which jobs consume them. This file knows what a route may
-- say; kafkadata.lua reads it from YAML with positions, from_table from a script's
-- `observe.routes`. Both give the same sorted array.

local options = require "rouse.options"

local routes = {}

---@class rouse.Job
---@field name string
---@field group? string consumer group; default: the job's own definition
---@field dedup_window number seconds between wakes
---@field max_instances? integer
---@field assign? "group"|"index"
---@field idle_timeout number seconds after which its consumer exits
---@field target? {kind: string} default: the observer's
---@field line? integer
---@field column? integer

---@class rouse.Route
---@field topic string
---@field pattern boolean the topic is a POSIX extended regular expression
---@field partitions? integer
---@field reset "earliest"|"latest"
---@field jobs rouse.Job[]
---@field line? integer
---@field column? integer

---What wakes a job. Webhook and others join this list when they exist.
routes.TARGETS = { "codeengine", "process" }

-- One table for each bare kind, so that jobs of the same target have equal `target` fields.
local BARE <const> = {}
for _, kind in ipairs(routes.TARGETS) do
  BARE[kind] = { kind = kind }
end

local MAX_TOPIC <const> = 249
local MAX_JOB <const> = 63
local MAX_INSTANCES <const> = 1000

local function check_job_name(name)
  if #name > MAX_JOB or not (name:find("^[a-z0-9][-a-z0-9]*[a-z0-9]$") or name:find("^[a-z0-9]$"))
  then
    return nil, ("a job name: 1 to %d lower-case letters, digits and -, no - at either end"):format(
      MAX_JOB)
  end
  return name
end

local function check_target(target)
  local kind = target
  if type(target) == "table" then
    kind = target.kind
  end
  for _, known in ipairs(routes.TARGETS) do
    if kind == known then
      return type(target) == "table" and target or BARE[kind]
    end
  end
  return nil, ("a target's kind (%s)%s"):format(table.concat(routes.TARGETS, ", "),
    options.hint(kind, routes.TARGETS))
end

---@type rouse.Option[]
routes.ROUTE = {
  { name = "partitions", type = "integer", min = 1, doc = "the cluster knows; only checked" },
  { name = "reset", type = "string", choices = { "earliest", "latest" }, default = "earliest",
    doc = "where a group without a commit starts" },
  { name = "jobs", type = "table", required = true, expected = "a list of jobs",
    doc = "names, or tables as below" },
}

---@type rouse.Option
routes.TARGET = { name = "target", type = "string|table", check = check_target,
  expected = "a target's kind or a table with kind", doc = "what starts the job" }

---@type rouse.Option[]
routes.JOB = {
  { name = "name", type = "string", required = true, check = check_job_name },
  { name = "group", type = "string", doc = "consumer group" },
  { name = "dedup_window", type = "number", min = 0, default = 0,
    doc = "seconds after a wake in which no other follows" },
  { name = "max_instances", type = "integer", min = 1, max = MAX_INSTANCES,
    doc = "instances of one run" },
  { name = "assign", type = "string", choices = { "group", "index" },
    doc = "how its consumers get partitions" },
  { name = "idle_timeout", type = "number", min = 0, default = 60,
    doc = "seconds without records after which its consumer exits" },
  routes.TARGET,
}

-- kafka.match where the C library is loaded; in its absence a pattern is taken as it is.
local function default_match()
  local ok, kafka = pcall(require, "rouse.core.kafka")
  return ok and type(kafka) == "table" and kafka.match or nil
end

---Checks a topic's name. Returns whether it is a pattern, or nil, the problem and what was
---expected.
---@param topic any
---@param match? fun(pattern: string, name: string): boolean?, string? default kafka.match
---@return boolean?
---@return string? problem
---@return string? expected
function routes.check_topic(topic, match)
  if type(topic) ~= "string" or topic == "" then
    return nil, ("topic %s"):format(topic == "" and "is empty" or "is " .. options.show(topic)),
      "a topic's name"
  end
  if topic:sub(1, 1) == "^" then
    match = match or default_match()
    if match then
      local answer, message = match(topic, "")
      if answer == nil then
        local reason = tostring(message)
        if reason:sub(1, #topic + 2) == topic .. ": " then
          reason = reason:sub(#topic + 3)
        end
        return nil, ("the pattern %s does not compile (%s)"):format(options.show(topic), reason),
          "a POSIX extended regular expression"
      end
    end
    return true
  end
  if #topic > MAX_TOPIC or topic == "." or topic == ".." or topic:find("[^%w._-]") then
    return nil, ("%s is not a topic's name"):format(options.show(topic)),
      ("1 to %d letters, digits, '.', '_' and '-', or a pattern that starts with ^"):format(
        MAX_TOPIC)
  end
  return false
end

---Sorts routes by topic, as everybody expects them.
---@param list rouse.Route[]
---@return rouse.Route[]
function routes.sort(list)
  table.sort(list, function(a, b) return a.topic < b.topic end)
  return list
end

local function build_job(value, where)
  local name = type(value) == "string" and value or nil
  if name then
    value = { name = name }
  elseif type(value) ~= "table" then
    return nil, ("%s is %s, expected a job's name or a table"):format(where, options.show(value))
  elseif value.consumer_group ~= nil then
    return nil, ("%s: unknown key 'consumer_group', did you mean 'group'?"):format(where),
      { "consumer_group" }
  end
  local job, message, key = options.apply(value, routes.JOB, where)
  return job, message, { name or key }
end

local function build_route(topic, value, match)
  local where = ("routes[%q]"):format(tostring(topic))
  local pattern, problem, expected = routes.check_topic(topic, match)
  if pattern == nil then
    return nil, ("routes: %s, expected %s"):format(problem, expected), {}
  end
  local route, message, key = options.apply(value, routes.ROUTE, where)
  if not route then
    return nil, message, { key }
  end
  local jobs, seen = {}, {}
  for i in pairs(route.jobs) do
    if math.type(i) ~= "integer" or i < 1 or i > #route.jobs then
      return nil, ("%s: jobs has the key %s, expected an array of jobs"):format(where,
        options.show(i)), { "jobs", i }
    end
  end
  if #route.jobs == 0 then
    return nil, where .. ": jobs is empty, expected at least one job", { "jobs" }
  end
  for i, item in ipairs(route.jobs) do
    local job, wrong, path = build_job(item, ("%s.jobs[%d]"):format(where, i))
    if not job then
      return nil, wrong, { "jobs", table.unpack(path or {}) }
    elseif seen[job.name] then
      return nil, ("%s: the job '%s' is listed twice"):format(where, job.name), { "jobs", job.name }
    end
    seen[job.name], jobs[i] = true, job
  end
  route.topic, route.pattern, route.jobs = topic, pattern, jobs
  return route
end

---Like from_table, but returns nil, the message and the path of keys to what is wrong.
---@param map any
---@param match? function as in check_topic
---@return rouse.Route[]?
---@return string? message
---@return any[]? path
function routes.build(map, match)
  if type(map) ~= "table" then
    return nil, ("routes is %s, expected a table of topics"):format(options.show(map)), {}
  elseif next(map) == nil then
    return nil, "routes is empty, expected at least one topic", {}
  end
  local topics = {}
  for topic in pairs(map) do
    topics[#topics + 1] = topic
  end
  table.sort(topics, function(a, b) return tostring(a) < tostring(b) end)
  local list = {}
  for i, topic in ipairs(topics) do
    local route, message, path = build_route(topic, map[topic], match)
    if not route then
      return nil, message, { topic, table.unpack(path) }
    end
    list[i] = route
  end
  return routes.sort(list)
end

---Turns the routes a script wrote down, { TOPIC = {partitions=, reset=, jobs={...}} }, into an
---array. Raises at the caller's line.
---@param map table
---@return rouse.Route[]
function routes.from_table(map)
  local list, message = routes.build(map)
  if not list then
    error(message, 2)
  end
  return list
end

return routes
