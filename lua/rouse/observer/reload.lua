--- Reloading a running observer: a candidate is read and checked beside what runs, and taken over between two events of the
--- engine. A candidate that is wrong changes nothing and is told once.
local environment = require "rouse.config.environment"
local group = require "rouse.observer.group"
local kafkadata = require "rouse.config.kafkadata"
local log = require "rouse.log"
local rules = require "rouse.observer.rules"
local same = require "rouse.wake.reload".same
local sources = require "rouse.observer.sources"
local startup = require "rouse.observer.startup"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local topics = require "rouse.observer.topics"

local reload = {}

reload.EVERY = 5 -- seconds between looks at the files
local SETTLE = 0.3 -- seconds that files have to stay the same: writers may not be done yet

---@class rouse.Candidate
---@field script table the checked table of the script
---@field settings rouse.ObserverSettings
---@field routes rouse.Route[]
---@field script_files rouse.Sources
---@field data_files rouse.Sources kafkadata's
---@field rule_changed boolean the script was loaded anew

--- Settings and routes for a script; nil and what is wrong with them.
---@param script table
---@param env table<string, string>
---@param files rouse.Sources where kafkadata's file is noted
---@return rouse.ObserverSettings?
---@return rouse.Route[]|string[] routes or messages
function reload.configuration(script, env, files)
  local path = env.ROUSE_KAFKADATA and env.ROUSE_KAFKADATA:match("^%s*(.-)%s*$")
  local settings, problems = environment.observer(env, {
    script = script.observe,
    read = function(name) return (name == path and files.reader or sys.read_file)(name) end,
  })
  if not settings then
    return nil, environment.lines(problems)
  elseif script.observe.routes then
    return settings, script.observe.routes
  end
  local routes, errors = kafkadata.parse(settings.kafkadata.text, { file = settings.kafkadata.file })
  if not routes then
    return nil, errors
  end
  return settings, routes
end

-- The script as its files are now: the running one where they are as they were, so that what it remembers stays.
local function read_script(observer, candidate)
  if not observer.load or not observer.script_files:changed() then
    candidate.script, candidate.script_files = observer.script, observer.script_files
    return true
  end
  local files = sources.new()
  candidate.script_files = files
  local loaded, message = observer.load(files.reader)
  if loaded and loaded.kind ~= "observer" then
    loaded, message = nil, ("%s: it is no observer, expected a table with observe"):format(loaded.name)
  elseif loaded then
    candidate.script, candidate.rule_changed = loaded.table, true
  end
  return loaded ~= nil, message
end

local function read(observer)
  local candidate = { data_files = sources.new() }
  local ok, message = read_script(observer, candidate)
  if not ok then
    candidate.problems = { message }
    return candidate
  end
  local settings, routes = reload.configuration(candidate.script, observer.env, candidate.data_files)
  if settings then
    candidate.settings, candidate.routes = settings, routes
  else
    candidate.problems = routes
  end
  return candidate
end

local function changed(candidate)
  return candidate.script_files:changed() or candidate.data_files:changed()
end

--- Definitions of jobs that are new, or on another target now; false where a target refuses the credentials.
local function define(observer, candidate)
  local names, some = {}, false
  for _, route in ipairs(candidate.routes) do
    for _, job in ipairs(route.jobs) do
      local id = candidate.targets:id_of(job)
      local known = observer.definitions[job.name] and observer.defined_by[job.name] == id
      if not known or candidate.targets.redefined[id] then
        names[job.name], some = id, true
      end
    end
  end
  candidate.definitions, candidate.defined_by, candidate.faults = {}, names, {}
  if not some then
    return true
  end
  local definitions, message = startup.definitions(candidate.targets, names, candidate.faults)
  candidate.definitions = definitions
  return definitions ~= nil, message
end

local function refuse(observer, problems)
  local text = table.concat(problems, "; ")
  observer.reload.error = { message = text, at = task.now() }
  log.error("reload refused, nothing is changed: " .. text)
end

--- Reads, checks and hands over to the engine's loop what the files hold now.
---@param observer table
---@param asked boolean somebody asked for it: no need to wait until files rest
function reload.attempt(observer, asked)
  local candidate
  repeat
    candidate = read(observer)
    if not asked then
      task.sleep(SETTLE)
    end
  until asked or not changed(candidate)
  observer.tried = candidate
  if candidate.problems then
    return refuse(observer, candidate.problems)
  end
  local ok, message
  candidate.targets, message = observer.targets:plan(candidate.script.observe, candidate.settings, candidate.routes)
  if candidate.targets then
    ok, message = define(observer, candidate)
  end
  if not ok then
    return refuse(observer, { message })
  elseif changed(candidate) then -- reading definitions may have taken a while
    return reload.attempt(observer, false)
  end
  observer:emit { kind = "candidate", candidate = candidate }
end

--- What is opened once and stays as it was opened.
---@return string[] what has changed and waits for the next start
function reload.waiting(opened, settings)
  local list = {}
  for name, what in pairs { kafka = "Kafka's properties or credentials", codeengine = "Code Engine's address",
    iam = "the credentials for Code Engine" } do
    if not same(opened[name], settings[name]) then
      list[#list + 1] = what
    end
  end
  table.sort(list)
  return list
end

local function note_outcome(observer, outcome)
  local fields = { generation = observer.reload.generation }
  for what, ids in pairs(outcome) do
    if what ~= "kept" and #ids > 0 then
      fields[what] = table.concat(ids, ",")
    end
  end
  log.info("reloaded", fields)
  for _, what in ipairs(observer.reload.waiting) do
    log.warn("reloaded, but " .. what .. " changed: that takes a new start")
  end
end

--- Takes a candidate over. Called by the engine's loop, between two events.
---@param observer table
---@param candidate rouse.Candidate
function reload.adopt(observer, candidate)
  local told, jobs = {}, {}
  for _, line in ipairs(observer.lines) do
    told[line] = true
  end
  for _, secret in ipairs(candidate.settings.secrets) do
    log.secret(secret)
  end
  observer.script, observer.script_files = candidate.script, candidate.script_files
  observer.data_files = candidate.data_files
  observer.settings, observer.routes, observer.route_index = candidate.settings, candidate.routes, {}
  observer.targets = candidate.targets:adopt()
  for name, id in pairs(candidate.defined_by) do
    observer.defined_by[name], observer.job_faults[name] = id, candidate.faults[name]
    observer.definitions[name] = candidate.definitions[name]
    jobs[name] = candidate.definitions[name] and candidate.definitions[name].env
  end
  topics.resolve(observer.routes, observer.cluster, observer.missing)
  local units = observer:units_now()
  for _, line in ipairs(observer.lines) do
    if not told[line] then
      log.info(line)
    end
  end
  local event = { kind = "reload", units = units, jobs = jobs, rule_changed = candidate.rule_changed,
    decide = candidate.rule_changed and rules.decide(candidate.script) or nil, renew = rules.renewal(candidate.script) }
  observer:step(event)
  group.adopt(observer, units)
  observer.counts = {}
  observer:refresh(observer.cluster)
  observer.trouble:set() -- and what the cluster has now
  local state = observer.reload
  state.generation, state.loaded_at, state.error = state.generation + 1, task.now(), nil
  state.waiting = reload.waiting(observer.opened, candidate.settings)
  note_outcome(observer, event.outcome)
end

--- Watches the files, and for who asks (observer.reload_asked), until it is cancelled.
function reload.watch(observer)
  while true do
    local asked = observer.reload_asked:wait(observer.reload_every) ~= nil
    observer.reload_asked:clear()
    if asked or changed(observer.tried) then
      local ok, failure = pcall(reload.attempt, observer, asked)
      if not ok and failure == "cancelled" then
        error(failure, 0)
      elseif not ok then -- what runs does not depend on it
        log.error("a bug in Rouse: " .. tostring(failure), { effect = "reload" })
      end
    end
  end
end

return reload
