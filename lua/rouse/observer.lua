--- The observer's runtime: opens the handles, feeds events to the wake engine (rouse.wake) and performs its effects. All
--- decisions are the engine's and the script's.
local claims = require "rouse.observer.claims"
local doorbell = require "rouse.observer.doorbell"
local effects = require "rouse.observer.effects"
local endpoint = require "rouse.observer.admin"
local environment = require "rouse.config.environment"
local hold = require "rouse.hold"
local http = require "rouse.http"
local kafka = require "rouse.kafka"
local kafkadata = require "rouse.config.kafkadata"
local log = require "rouse.log"
local modes = require "rouse.observer.modes"
local properties = require "rouse.config.properties"
local rouse = require "rouse"
local script_file = require "rouse.script"
local startup = require "rouse.observer.startup"
local targets = require "rouse.observer.targets"
local task = require "rouse.task"
local topics = require "rouse.observer.topics"
local verdicts = require "rouse.verdict"
local wake = require "rouse.wake"
local watch = require "rouse.wake.watch"

local observer = {}

local Observer = { __name = "rouse.observer" }
Observer.__index = Observer

local REFRESH = 60 -- seconds between looks at the cluster's topics and partitions, unless the script says otherwise
local QUOTA = 100 -- job runs that a Code Engine project keeps, finished ones included (limits of the service)

--- How often offsets of quiet groups are renewed: the script's choice.
local function renewal(choice)
  if choice == false then
    return nil
  elseif type(choice) == "number" then
    return { first = choice, every = choice }
  end
  return watch.RENEW
end

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
  else
    log.debug("Kafka: " .. tostring(event.message), { code = event.code, topic = event.topic,
      partition = event.partition })
  end
end

local function stamp(event)
  event.now, event.clock = task.now(), task.monotonic()
  return event
end

--- The packaged observer's decision, for scripts without one.
local function packaged_rule()
  local source, name = rouse.embedded("scripts/observer.lua")
  return assert(script_file.load(nil, { source = source, name = name })).table.decide
end

--- Calls the script's rule under its limits; a failure is a message, never an error here.
local function decider(rule)
  return function(job, ctx)
    local ok, verdict, code = task.guard(rule, job, ctx)
    if not ok then
      return nil, ("%s (%s)"):format(verdict, code)
    end
    return verdicts.check(verdict)
  end
end

function Observer:open_kafka()
  local layers = self.settings.kafka
  local admin, message = kafka.admin { properties = properties.resolve("query", layers) }
  if not admin then
    return nil, message
  end
  self.admin = admin
  local consumer
  consumer, message = kafka.consumer { properties = properties.resolve("doorbell", layers) }
  if not consumer then
    return nil, message
  end
  self.doorbell = doorbell.new(consumer, function(event) self:emit(event) end, function(event) self:fault(event) end)
  return true
end

--- Topics and partitions as the cluster has them now, told to the engine.
function Observer:refresh(metadata)
  local found = topics.resolve(self.routes, metadata, self.missing)
  for name, topic in pairs(found) do
    if self.counts[name] ~= topic.count then
      self.counts[name] = topic.count
      local units = {}
      for _, job in ipairs(topic.route.jobs) do
        for _, unit in ipairs(self.engine.units) do
          units[unit.id] = units[unit.id] or unit.job == job.name or nil
        end
      end
      self:emit { kind = "partitions", topic = name, partitions = topic.count, units = units,
        reset = topic.route.reset }
    end
  end
end

function Observer:watch_topics()
  local every = self.script.observe and self.script.observe.refresh or REFRESH
  while true do
    if self.down then
      task.sleep(2)
    else
      self.trouble:wait(every)
    end
    self.trouble:clear()
    local metadata, message, code = self.admin:metadata { timeout = 10 }
    self:report_kafka(metadata ~= nil, message, code)
    if metadata then
      self:refresh(metadata)
      if self.down then
        self.down = false
        self:emit { kind = "reevaluate" }
      end
    end
  end
end

--- Opens the group of claims mode when a route needs it.
function Observer:open_claims(units)
  local names, jobs = {}, {}
  for _, unit in ipairs(units) do
    jobs[unit.job] = true
  end
  local claimed = {}
  for _, unit in ipairs(units) do
    claimed[unit.job] = claimed[unit.job] or unit.mode == "claims"
  end
  for _, route in ipairs(self.routes) do
    for _, job in ipairs(route.jobs) do
      if claimed[job.name] and not names[route.topic] then
        names[route.topic] = true
        names[#names + 1] = route.topic
      end
    end
  end
  if #names == 0 then
    return true
  end
  local group = self.settings.claims_group or "observer-group"
  local consumer, message = kafka.consumer {
    properties = properties.resolve("claims", self.settings.kafka, { ["group.id"] = group }),
  }
  if not consumer then
    return nil, message
  end
  self.claims = claims.new {
    consumer = consumer, group = group, admin = self.admin, jobs = jobs, on_record = self.script.on_record,
    route_of = function(topic) return self:route_of(topic) end,
    emit = function(event) self:emit(event) end, fault = function(event) self:fault(event) end,
  }
  log.info(("claiming records in group %s"):format(group), { topics = table.concat(names, ",") })
  return consumer:subscribe(names)
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
  local names = {}
  for _, route in ipairs(self.routes) do
    for _, job in ipairs(route.jobs) do
      names[job.name] = self.targets:id_of(job)
    end
  end
  local definitions, code
  definitions, message, code = startup.definitions(self.targets, names, self.job_faults)
  if not definitions then
    return nil, message, code == "CREDENTIALS" and startup.CREDENTIALS or startup.UNAVAILABLE
  end
  topics.resolve(self.routes, metadata, {})
  local units
  units, self.lines, self.members = modes.units(self.routes, definitions, {
    claims_group = self.settings.claims_group, on_record = self.script.on_record ~= nil,
    target_of = function(job) return self.targets:id_of(job) end,
  })
  for _, line in ipairs(self.lines) do
    log.info(line)
  end
  local jobs = {}
  for name, definition in pairs(definitions) do
    jobs[name] = definition.env
  end
  self.engine = wake.new {
    units = units, jobs = jobs, decide = decider(self.script.decide or packaged_rule()),
    quota = { codeengine = QUOTA }, renew = renewal(self.script.observe.renew_offsets),
  }
  local ok
  ok, message = self:open_claims(units)
  if not ok then
    return nil, message, startup.CONFIGURATION
  end
  self:refresh(metadata)
  self:emit { kind = "start" }
  return true
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
    effects.perform(self, self.engine:handle(stamp(event or { kind = "timer" })))
  end
end

function Observer:close()
  if self.claims then
    self.claims:commit()
    self.claims.consumer:close { timeout = 5 }
  end
  if self.doorbell then
    self.doorbell.consumer:close { timeout = 5 }
  end
  if self.admin then
    self.admin:close()
  end
  if self.targets then
    self.targets:close()
  end
end

local function read_routes(script, settings)
  if script.observe and script.observe.routes then
    return script.observe.routes
  end
  return kafkadata.parse(settings.kafkadata.text, { file = settings.kafkadata.file })
end

--- Runs an observer script until it is told to stop.
---@param options { script: table, env: table<string, string>, signals: table? }
---@return integer exit code
function observer.run(options)
  local script = options.script
  local settings, problems = environment.observer(options.env, { script = script.observe })
  local function refuse(lines)
    return hold.fault { job_mode = options.env.JOB_MODE, code = startup.CONFIGURATION, message = lines,
      signals = options.signals }
  end
  if not settings then
    return refuse(environment.lines(problems))
  end
  for _, secret in ipairs(settings.secrets) do
    log.secret(secret)
  end
  for _, note in ipairs(settings.notes) do
    log.info(note)
  end
  local routes, errors = read_routes(script, settings)
  if not routes then
    return refuse(errors)
  end
  local self = setmetatable({
    script = script, settings = settings, routes = routes, inbox = task.queue(), missing = {}, counts = {},
    route_index = {}, reports = {}, trouble = task.event(), kafka_report = startup.reporter("Kafka"),
    kafka_state = { reachable = false }, job_faults = {}, lines = {}, members = {}, started_at = task.now(),
  }, Observer)
  self.targets = targets.new(script.observe or {}, settings, http.client { ca_file = settings.ca_file }, options.env)
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
    local helpers = { task.spawn(function() self.doorbell:run() end), task.spawn(function() self:watch_topics() end) }
    if self.claims then
      helpers[#helpers + 1] = task.spawn(function() self.claims:run() end)
    end
    log.info("observing")
    self:loop()
    for _, helper in ipairs(helpers) do
      helper:cancel()
    end
    return 0
  end)
  local stopper = signals and task.spawn(function()
    local name = signals:wait()
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
