--- The observer's runtime: opens the handles, feeds events to the wake engine (rouse.wake) and performs its effects. All
--- decisions are the engine's and the script's.
local doorbell = require "rouse.observer.doorbell"
local effects = require "rouse.observer.effects"
local endpoint = require "rouse.observer.admin"
local group = require "rouse.observer.group"
local hold = require "rouse.hold"
local http = require "rouse.http"
local kafka = require "rouse.kafka"
local log = require "rouse.log"
local modes = require "rouse.observer.modes"
local offsets = require "rouse.observer.offsets"
local properties = require "rouse.config.properties"
local reader = require "rouse.observer.reader"
local refusals = require "rouse.observer.refusals"
local reload = require "rouse.observer.reload"
local rules = require "rouse.observer.rules"
local sources = require "rouse.observer.sources"
local startup = require "rouse.observer.startup"
local targets = require "rouse.observer.targets"
local task = require "rouse.task"
local tidy = require "rouse.observer.tidy"
local topics = require "rouse.observer.topics"
local wake = require "rouse.wake"

local observer = {}

local Observer = { __name = "rouse.observer" }
Observer.__index = Observer

local REFRESH = 60 -- seconds between looks at the cluster's topics and partitions, unless the script says otherwise
local RELOOK = 2 -- seconds, while Kafka is away or a topic seems to be
local QUOTA = 100 -- job runs that a Code Engine project keeps, finished ones included (limits of the service)

--- Puts an event into the engine's queue.
function Observer:emit(event)
  self.inbox:put(event)
end

--- One line per change of a target's state.
function Observer:report_target(id, ok, message, code)
  self.reports[id] = self.reports[id] or startup.reporter("the API of target " .. id)
  self.reports[id](ok ~= nil, message, code)
end

--- One line per change of Kafka's state, which the status tells too.
function Observer:report_kafka(ok, message, code)
  self.kafka_state = { reachable = ok, reason = message }
  self.kafka_report(ok, message, code)
end

-- Single connections come and go; these say that nothing is reached.
local DOWN = { _ALL_BROKERS_DOWN = true, _AUTHENTICATION = true, _SSL = true, _RESOLVE = true }

--- A handle-wide Kafka error: reported once per change; whatever comes back is evaluated anew.
function Observer:fault(event)
  if DOWN[event.code] then
    self:report_kafka(false, event.message, event.code)
    self.down = true
    self.trouble:set()
  elseif not refusals.take(self, event) then
    log.debug("Kafka: " .. tostring(event.message), { code = event.code, topic = event.topic,
      partition = event.partition })
  end
end

function Observer:open_kafka()
  local layers = self.settings.kafka
  local admin, message = kafka.admin { properties = properties.resolve("query", layers) }
  if not admin then
    return nil, message
  end
  self.admin = admin
  self.offsets = offsets.new { admin = admin, timeout = reader.TIMEOUT,
    leader = function(...) return topics.leader(self.cluster, ...) end, behind = function() self.trouble:set() end,
    back = function() self:emit { kind = "reevaluate", unread = true } end }
  self.doorbell, message = doorbell.open(layers, function(event)
    refusals.rung(self, event)
    self:emit(event)
  end, function(event) self:fault(event) end)
  if not self.doorbell then
    return nil, message
  end
  return true
end

--- The units of the routes, with the topics that the cluster has for them now.
---@return table[] units
function Observer:units_now()
  local units
  units, self.lines, self.members = modes.units(self.routes, self.definitions, {
    claims_group = self.settings.claims_group, on_record = self.script.on_record ~= nil,
    target_of = function(job) return self.targets:id_of(job) end,
  })
  return units
end

--- The ids of the units, of those that are on a topic.
local function on_topic(units, name)
  local ids = {}
  for _, unit in ipairs(units) do
    ids[unit.id] = unit.topics[name] ~= nil or nil
  end
  return ids
end

--- Topics and partitions as the cluster has them now, told to the engine.
function Observer:refresh(cluster)
  self.cluster = cluster
  local gone = topics.gone(self.counts, cluster, self.suspects)
  for _, name in ipairs(gone) do
    self.counts[name], self.missing[name] = nil, topics.DELETED
    log.warn(("%s: %s; it will be watched again when there is one of that name"):format(name, topics.DELETED))
  end
  local found, units = topics.resolve(self.routes, cluster, self.missing, self.suspects), nil
  for _, name in ipairs(gone) do
    units = units or self:units_now()
    self:emit { kind = "gone", topic = name, keep = on_topic(units, name) }
  end
  for name, topic in pairs(found) do
    if self.counts[name] ~= topic.count then
      self.counts[name] = topic.count
      units = units or self:units_now()
      self:emit { kind = "partitions", topic = name, partitions = topic.count, units = on_topic(units, name),
        reset = topic.route.reset }
    end
  end
end

function Observer:watch_topics()
  local every = self.script.observe and self.script.observe.refresh or REFRESH
  while true do
    if not self.kafka_state.reachable or next(self.suspects) or self.offsets:lagging() then
      task.sleep(RELOOK)
    else
      self.trouble:wait(every)
    end
    self.trouble:clear()
    local metadata, message, code = self.admin:metadata { timeout = 10 }
    self:report_kafka(metadata ~= nil, message, code)
    if metadata then
      self:refresh(topics.cluster(metadata))
      refusals.look(self, task.monotonic())
      if self.down then
        self.down = false
        self:emit { kind = "reevaluate" }
      end
    end
  end
end

function Observer:route_of(topic)
  local route = self.route_index[topic]
  if not route then
    for _, candidate in ipairs(self.routes) do
      if candidate.topic == topic or (candidate.pattern and kafka.match(candidate.topic, topic)) then
        route = candidate
        self.route_index[topic] = route
        break
      end
    end
  end
  return route
end

--- Connects, reads the definitions, fixes each route's mode and builds the engine.
---@return true|nil, string? message, integer? exit code
function Observer:prepare()
  local metadata, message = startup.metadata(self.admin)
  if not metadata then
    local told = properties.resolve("query", self.settings.kafka)
    return nil, ("Kafka refused the credentials: mechanism %s, user %s (%s)"):format(
      told["sasl.mechanisms"] or "?", told["sasl.username"] or "?", message), startup.CREDENTIALS
  end
  self.kafka_state = { reachable = true }
  local ok, code
  ok, message = self:plan_targets()
  if not ok then
    return nil, message, startup.CONFIGURATION
  end
  self.definitions, message, code = startup.definitions(self.targets, self.defined_by, self.job_faults)
  if not self.definitions then
    return nil, message, code == "CREDENTIALS" and startup.CREDENTIALS or startup.UNAVAILABLE
  end
  local cluster = topics.cluster(metadata)
  topics.resolve(self.routes, cluster, self.missing)
  local units = self:units_now()
  for _, line in ipairs(self.lines) do
    log.info(line)
  end
  local jobs = {}
  for name, definition in pairs(self.definitions) do
    jobs[name] = definition.env
  end
  self.engine = wake.new {
    units = units, jobs = jobs, decide = rules.decide(self.script), quota = { codeengine = QUOTA },
    renew = rules.renewal(self.script),
  }
  ok, message = group.open(self, units)
  if not ok then
    return nil, message, startup.CONFIGURATION
  end
  self:refresh(cluster)
  self:emit { kind = "start" }
  return true
end

--- Opens the targets of the routes, and notes which job is on which.
function Observer:plan_targets()
  local plan, message = self.targets:plan(self.script.observe, self.settings, self.routes)
  if not plan then
    return nil, message
  end
  self.targets = plan
  for _, route in ipairs(self.routes) do
    for _, job in ipairs(route.jobs) do
      self.defined_by[job.name] = plan:id_of(job)
    end
  end
  return true
end

--- Takes an event to the engine and performs what comes of it.
function Observer:step(event)
  event.now, event.clock = task.now(), task.monotonic()
  effects.perform(self, self.engine:handle(event))
end

--- Feeds the engine until the observer is stopped.
function Observer:loop()
  while not self.stopped do
    local left = self.next_call and math.max(0, self.next_call - task.monotonic())
    local event = self.inbox:get(left)
    if self.stopped then
      return
    end
    self.next_call = nil
    if event and event.kind == "candidate" then
      reload.adopt(self, event.candidate)
    else
      self:step(event or { kind = "timer" })
    end
  end
end

function Observer:close()
  if self.claims then
    group.leave(self.claims)
  end
  if self.doorbell then
    self.doorbell:close { timeout = 5 }
  end
  if self.admin then
    self.admin:close { timeout = 1 } -- a broker that is away may owe it answers, which nobody waits for
  end
  if self.targets then
    self.targets:close()
  end
end

---@class rouse.ObserverOptions
---@field script table the checked table
---@field env table<string, string>
---@field signals table? TERM and INT end the observer, HUP reloads its files
---@field load (fun(read: function): rouse.Script?, string?)? loads the script again; without it only kafkadata is watched
---@field script_files rouse.Sources? what was read for the script
---@field watch number? seconds between looks at the files

--- Runs an observer script until it is told to stop.
---@param options rouse.ObserverOptions
---@return integer exit code
function observer.run(options)
  local script, data_files = options.script, sources.new()
  local settings, routes = reload.configuration(script, options.env, data_files)
  if not settings then
    return hold.fault { job_mode = options.env.JOB_MODE, code = startup.CONFIGURATION, message = routes,
      signals = options.signals }
  end
  for _, secret in ipairs(settings.secrets) do
    log.secret(secret)
  end
  for _, note in ipairs(settings.notes) do
    log.info(note)
  end
  local self = setmetatable({
    script = script, env = options.env, settings = settings, opened = settings, routes = routes, inbox = task.queue(),
    missing = {}, counts = {}, suspects = {}, refused = {}, route_index = {}, reports = {}, trouble = task.event(),
    kafka_report = startup.reporter("Kafka"), kafka_state = { reachable = false }, job_faults = {}, lines = {},
    members = {}, defined_by = {}, started_at = task.now(),
    load = options.load, script_files = options.script_files or sources.new(), data_files = data_files,
    reload = { generation = 1, loaded_at = task.now(), waiting = {} }, reload_asked = task.event(),
    reload_every = options.watch or reload.EVERY,
  }, Observer)
  self.tried = { script_files = self.script_files, data_files = data_files }
  self.targets = targets.new(http.client { ca_file = settings.ca_file }, options.env)
  return self:serve(options.signals)
end

--- Opens, prepares, serves; answers signals; closes.
function Observer:serve(signals)
  local opened, message = self:open_kafka()
  if not opened then
    self:close()
    return hold.fault { job_mode = self.settings.job_mode, code = startup.CONFIGURATION, message = message,
      signals = signals }
  end
  local code = 0
  local server = endpoint.start(self)
  local worker = task.spawn(function()
    local ok, why, exit = self:prepare()
    if not ok then
      return hold.fault { job_mode = self.settings.job_mode, code = exit, message = why }
    end
    local helpers = { task.spawn(function() self.doorbell:run() end), task.spawn(function() self:watch_topics() end),
      task.spawn(function() self.offsets:run() end), task.spawn(function() reload.watch(self) end),
      task.spawn(tidy.run) }
    group.start(self)
    log.info("observing")
    self:loop()
    for _, helper in ipairs(helpers) do
      helper:cancel()
    end
    return 0
  end)
  local stopper = signals and task.spawn(function()
    local name = signals:wait()
    while name == "HUP" do
      log.info("reloading", { signal = name })
      self.reload_asked:set()
      name = signals:wait()
    end
    code = name == "INT" and 130 or 143
    log.info("stopping", { signal = name })
    self.stopped = true
    worker:cancel()
  end)
  local exit, why, failure = worker:join()
  if stopper then
    stopper:cancel()
  end
  if server then
    server:close()
  end
  self:close()
  if exit == nil and failure ~= "CANCELLED" then
    error(why, 0)
  end
  return code ~= 0 and code or exit or 0
end

return observer
