-- Runs a consumer script: `return {consume = {...}, handle = function(record, ctx) ... end}`. Opens
-- the handles, takes the partitions (by joining the group or by JOB_INDEX), and turns the way the
-- session ends into an exit code.

local deadletter = require "rouse.consumer.deadletter"
local environment = require "rouse.config.environment"
local faults = require "rouse.consumer.faults"
local hold = require "rouse.hold"
local index = require "rouse.consumer.index"
local properties = require "rouse.config.properties"
local retry = require "rouse.consumer.retry"
local session = require "rouse.consumer.session"
local start = require "rouse.consumer.start"
local sys = require "rouse.core.sys"
local transaction = require "rouse.consumer.transaction"

local consumer = {}

local SIGNAL_EXIT <const> = { INT = 130, TERM = 143 }

local function merged(given, defaults)
  local result = {}
  for name, value in pairs(defaults) do result[name] = value end
  for name, value in pairs(given or {}) do result[name] = value end
  return result
end

-- The environment's settings, the script's beside them, and the properties of the handles.
local function read_settings(run)
  local consume = run.script.consume
  local settings, problems = environment.consumer(run.env, { script = consume })
  if not settings then return nil, environment.lines(problems) end
  for _, secret in ipairs(settings.secrets) do run.log.secret(secret) end
  for _, note in ipairs(settings.notes) do run.log.info(note) end
  if type(settings.topics) == "string" then settings.topics = { settings.topics } end
  settings.batch = consume.batch or 500
  settings.dead = consume.dead
  -- dead letters carry the record's own, whatever the handler looks at
  settings.headers = consume.headers ~= false or consume.dead ~= nil
  settings.parallel, settings.key = consume.parallel, consume.key
  settings.retry = merged(consume.retry, retry.defaults)
  settings.drain = run.drain or 10
  settings.transactional = consume.transactional
  -- what a transaction holds is seen by others when it is committed
  settings.commit_interval = run.commit_interval or (consume.transactional and 0.1 or 1)
  settings.name = settings.run or ("%s:%d"):format(sys.hostname(), sys.pid())
  settings.properties = properties.resolve("consumer", settings.kafka, {
    ["group.id"] = settings.group,
    ["group.instance.id"] = consume.instance_id,
    ["auto.offset.reset"] = settings.reset,
    -- says when a partition is read to its end, markers of transactions included
    ["enable.partition.eof"] = "true",
  })
  local isolation = settings.properties["isolation.level"] or "read_committed"
  if settings.transactional and isolation ~= "read_committed" then
    return nil, { ("isolation.level is %s, expected read_committed with consume.transactional"):format(isolation) }
  end
  return settings
end

-- Opens the handles into run.opened, to be closed in reverse order.
local function open(run, settings)
  local kafka = run.kafka
  local opened = {}
  run.opened = opened
  local message
  opened.consumer, message = kafka.consumer { properties = settings.properties, headers = settings.headers }
  if not opened.consumer then return nil, message end
  opened.admin, message = kafka.admin { properties = settings.properties }
  if not opened.admin then return nil, message end
  if settings.transactional then
    opened.transactions = transaction.new {
      settings = settings, script = run.script, kafka = kafka, task = run.task, log = run.log,
      properties = function(id)
        return properties.resolve("producer", settings.kafka, { ["transactional.id"] = id })
      end,
    }
    local ok
    ok, message = opened.transactions:try_properties()
    if not ok then return nil, message end
  elseif settings.dead then
    opened.producer, message = kafka.producer {
      properties = properties.resolve("producer", settings.kafka),
    }
    if not opened.producer then return nil, message end
  end
  return opened
end

-- How dead records are written down; nil: they park their partition.
local function burial(run, settings)
  local opened = run.opened
  if not settings.dead then return nil end
  if opened.transactions then
    return function(...) return opened.transactions:bury(...) end
  end
  return deadletter.writer(opened.producer, {
    topic = settings.dead, group = settings.group, index = settings.index, now = run.task.now,
  })
end

local function close(run)
  local opened = run.opened or {}
  -- Who was never let in has nothing to leave.
  local timeout = run.session and run.session.worked and 5 or 0.5
  if opened.transactions and run.session then opened.transactions:close() end
  for _, name in ipairs { "producer", "consumer", "admin" } do
    local handle = opened[name]
    if handle then
      local ok, message, code = handle:close { timeout = timeout }
      if not ok and timeout > 1 then
        run.log.warn("handle not closed in time", { handle = name, reason = message, code = code })
      end
    end
  end
end

-- Errors of the other handle: it may be the first to hear that credentials are refused.
local function watch_admin(s)
  while true do
    local event, _, code = s.admin:poll { timeout = 60 }
    if event and event.kind == "error" then
      s:on_error(event)
    elseif not event and code ~= "TIMEDOUT" then
      return
    end
  end
end

-- The first signal drains; the second ends everything at once, wherever it is.
local function watch_signals(run)
  while true do
    local name = run.signals:wait()
    if name then
      if run.signal then
        run.aborted = name
        run.main:cancel()
      end
      run.signal = run.signal or name
      if run.session then run.session:finish { kind = "signal", name = name } end
      run.bell:set()
    end
  end
end

-- A fault before anything worked; a daemon holds it for a while, or until a signal.
local function fail_start(run, outcome)
  return hold.fault {
    job_mode = run.env.JOB_MODE, code = outcome.exit, message = outcome.message,
    fields = outcome.fields, log = run.log,
    signals = {
      -- watch_signals is the one who waits for them
      wait = function(_, timeout)
        if not run.signal then run.bell:wait(timeout) end
        return run.signal
      end,
    },
  }
end

local function begin(run, s)
  local settings = s.settings
  local by_index, why = index.applies(settings)
  run.log.info("consuming", {
    topic = table.concat(settings.topics, ","), group = settings.group,
    assign = by_index and ("index %d"):format(settings.index) or "group", reason = why,
    idle_exit = settings.idle_exit,
  })
  local poller = s:spawn(s.poll_loop, s)
  s:spawn(s.commit_loop, s)
  s:spawn(watch_admin, s)
  s:spawn(function()
    if settings.dead and not deadletter.check(s) then return end
    return (by_index and start.index or start.group)(s)
  end)
  return poller
end

-- The exit code of a session that has ended and drained.
local function exit_code(run, outcome, clean, parked)
  if outcome.kind == "fault" then return outcome.exit end
  if outcome.kind == "signal" and not clean then return faults.exit.deadline end
  if not parked then return 0 end
  -- The run must end: its observer decides about the next one.
  return run.env.JOB_MODE == "daemon" and 0 or faults.exit.parked
end

local function main(run)
  local task, log = run.task, run.log
  run.bell = task.event()
  run.signals = run.signals or sys.signals { "TERM", "INT" }
  task.spawn(watch_signals, run)
  local settings, problems = read_settings(run)
  if not settings then
    return fail_start(run, faults.at_start(faults.exit.configuration, problems))
  end
  local opened, message = open(run, settings)
  if not opened then
    close(run)
    return fail_start(run, faults.at_start(faults.exit.configuration,
      "Kafka properties: " .. tostring(message)))
  end
  local s = session.new {
    settings = settings, script = run.script, consumer = opened.consumer, admin = opened.admin,
    task = task, log = log, bury = burial(run, settings), transactions = opened.transactions,
    collector = run.collector,
  }
  if opened.transactions then
    opened.transactions.session = s
    s.committer = function(item, timeout) return opened.transactions:commit(item, timeout) end
  end
  run.session = s
  if run.signal then s:finish { kind = "signal", name = run.signal } end
  local poller = begin(run, s)
  local outcome = s:wait()
  log.info("ending", { reason = outcome.name or outcome.kind })
  local clean = s:drain(settings.drain)
  poller:cancel()
  close(run)
  if outcome.kind == "fault" and outcome.message then
    if outcome.start then return fail_start(run, outcome) end
    log.error(outcome.message, outcome.fields)
  end
  return exit_code(run, outcome, clean, s.parked)
end

---@class rouse.consumer.Run
---@field script rouse.Script|table  as loaded, or its table: {consume=, handle=|handle_batch=}
---@field env table<string, string>
---@field signals table|nil  anything with wait() that returns "TERM" or "INT"
---@field drain number|nil  seconds that running handlers get at the end, default 10
---@field collector rouse.consumer.Collector|nil  told when hardly a record waits
---@field commit_interval number|nil  seconds between commits, default 1

---Runs a consumer script to its end, from within a task.
---@param options rouse.consumer.Run
---@return integer exit  0, 65 parked, 69, 70, 75 drain deadline passed, 77 credentials, 78 settings
function consumer.run(options)
  local task = options.task or require "rouse.task"
  local script = options.script
  if script.kind then script = script.table end
  local run = {
    script = script, env = options.env, signals = options.signals, drain = options.drain,
    commit_interval = options.commit_interval, task = task,
    kafka = options.kafka or require "rouse.kafka", log = options.log or require "rouse.log",
    collector = options.collector,
  }
  -- A task of its own: everything the run started ends with it.
  run.main = task.spawn(main, run)
  local exit, problem = run.main:join()
  if run.signals and not options.signals then run.signals:close() end
  if not exit and run.aborted then return SIGNAL_EXIT[run.aborted] end
  if not exit then
    run.log.error("internal error", { reason = tostring(problem) })
    return faults.exit.bug
  end
  return exit
end

return consumer
