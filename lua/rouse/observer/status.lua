--- The status document: what a running observer knows, decided and waits for, as plain data. Nothing in it is secret: no
--- environment of runs, no credentials, no values of records, and whatever text a rule or an API wrote has its secrets taken out.
local explain = require "rouse.wake.explain"
local json = require "rouse.json"
local log = require "rouse.log"
local rouse = require "rouse"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local topics = require "rouse.observer.topics"

local status = {}

-- Texts come from rules and APIs as well: valid UTF-8, and without secrets.
local function clean(value)
  if type(value) == "string" then
    return log.redact(utf8.len(value) and value or (value:gsub("[\x80-\xff]", "?")))
  elseif type(value) == "table" and value ~= json.null then
    for key, item in pairs(value) do
      value[key] = clean(item)
    end
  end
  return value
end

--- Whether the observer decides on what it knows now; if not, why.
---@param observer table
---@return boolean ready, string? reason
function status.ready(observer)
  if observer.stopped then
    return false, "stopping"
  elseif not observer.engine then
    return false, observer.kafka_state.reachable and "starting: reading the definitions of the jobs"
      or "starting: waiting for Kafka"
  elseif not observer.kafka_state.reachable then
    return false, "Kafka is not reachable"
  end
  return true
end

local function problem_of(observer, route)
  if route.pattern and route.topics and #route.topics == 0 then
    return "no topic matches the pattern (yet)"
  elseif not route.pattern and observer.missing[route.topic] then
    return observer.missing[route.topic]
  elseif not route.pattern and observer.missing[topics.odd(route, route.topic)] then
    return ("kafkadata says %d partitions, the cluster has %d; the cluster counts"):format(route.partitions,
      observer.counts[route.topic] or 0)
  end
  for _, name in ipairs(route.pattern and route.topics or { route.topic }) do
    if observer.refused[name] then
      return ("%s: the broker refuses the doorbell: %s"):format(name, observer.refused[name].code)
    end
  end
  for _, job in ipairs(route.jobs) do
    local fault = observer.job_faults[job.name]
    if fault then
      return ("job %s: its definition cannot be read: %s"):format(job.name, fault)
    end
  end
end

local function routes_of(observer, wanted)
  local list = {}
  for i, route in ipairs(observer.routes) do
    local names, jobs, match = json.array {}, json.array {}, wanted == nil
    for _, name in ipairs(route.pattern and (route.topics or {}) or { route.topic }) do
      names[#names + 1] = { name = name, partitions = observer.counts[name] or 0 }
    end
    for _, job in ipairs(route.jobs) do
      jobs[#jobs + 1] = job.name
      match = match or job.name == wanted
    end
    if match then
      list[#list + 1] = {
        topic = route.topic, pattern = route.pattern or false, reset = route.reset, topics = names, jobs = jobs,
        why = observer.lines[i], problem = problem_of(observer, route),
        units = json.array(table.move(observer.members[i] or {}, 1, #(observer.members[i] or {}), 1, {})),
      }
    end
  end
  return json.array(list)
end

local function reload_of(observer)
  local state, files = observer.reload, observer.script_files:paths()
  for _, path in ipairs(observer.data_files:paths()) do
    files[#files + 1] = path
  end
  return {
    generation = state.generation, loaded_at = state.loaded_at, files = json.array(files),
    error = state.error and { message = state.error.message, at = state.error.at },
    waiting = json.array(table.move(state.waiting, 1, #state.waiting, 1, {})),
  }
end

--- The document, of everything or of one job.
---@param observer table from rouse.observer
---@param job string?
---@return table
function status.of(observer, job)
  local now = task.now()
  local ready, reason = status.ready(observer)
  local document = {
    rouse = rouse.version, host = sys.hostname(), pid = sys.pid(), now = now, started_at = observer.started_at,
    uptime = now - observer.started_at, ready = ready, reason = reason,
    kafka = {
      brokers = observer.settings.brokers, reachable = observer.kafka_state.reachable,
      reason = observer.kafka_state.reason,
    },
    reload = reload_of(observer), claims = observer.claims and { group = observer.claims.group } or nil,
    routes = routes_of(observer, job), units = json.array {}, targets = json.array {},
  }
  if observer.engine then
    local explained = explain.engine(observer.engine, { now = now, clock = task.monotonic(), job = job })
    document.units, document.targets = explained.units, explained.targets
  end
  return clean(document)
end

return status
