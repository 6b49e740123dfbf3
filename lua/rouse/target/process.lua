--- Child processes as a wake target: one child per index, with the variables that Code Engine
--- injects and the states that it would show. For one machine, the demo, and the mock Code Engine,
--- which runs its job runs with it.
local instances = require "rouse.target.instances"
local nursery = require "rouse.target.nursery"
local process = require "rouse.process"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

---@class rouse.target.process.job
---@field command string[]? without one the job cannot be run
---@field env table<string, string>?
---@field mode "task"|"daemon"|nil default task
---@field retry_limit integer? of a task's index, default 0; a daemon is restarted until it exits 0
---@field cwd string?

---@class rouse.target.process
---@field private jobs table<string, rouse.target.process.job>
---@field private runs table<string, table>
---@field private active table<table, true>
---@field private nursery rouse.nursery
local Process = { __name = "rouse.target.process" }
Process.__index = Process

local target = {}

local MAX_RETRY_DELAY <const> = 30
local NAME_LETTERS <const> = "bcdfghjklmnpqrstvwxz2456789"

---@class rouse.target.process.options
---@field jobs table<string, rouse.target.process.job>?
---@field environ table<string, string>? what every child starts from
---@field grace number? from SIGTERM to SIGKILL, default 10
---@field retry_delay number? before the first retry of an index, doubled after each, default 1
---@field stdout "inherit"|"null"|"stderr"|nil "stderr": what children print goes to our stderr
---@field stderr "inherit"|"null"|nil

---@class rouse.target.process.record
---@field name string
---@field job string
---@field command string[]
---@field env table<string, string> the job's and the run's, merged
---@field indices integer[]
---@field array_size integer?
---@field mode "task"|"daemon"
---@field retry_limit integer
---@field cwd string?
---@field delay number? seconds before the processes start
---@field on fun(index: integer, status: string, details: table)

--- Opens the target; to be called inside a task, whose end kills what still runs.
---@param options rouse.target.process.options
---@return rouse.target.process
function target.new(options)
  return setmetatable({
    jobs = options.jobs or {},
    environ = options.environ or {},
    grace = options.grace or 10,
    retry_delay = options.retry_delay or 1,
    stdout = options.stdout or "inherit",
    stderr = options.stderr or "inherit",
    runs = {},
    active = {}, -- records with processes, also those whose book somebody else keeps
    nursery = nursery.new(),
  }, Process)
end

--- Invents a run's name as Code Engine does.
---@param job string
---@return string
function target.generate_name(job)
  local letters = {}
  for i = 1, 5 do
    local at = 1 + math.floor(sys.random() * #NAME_LETTERS)
    letters[i] = NAME_LETTERS:sub(at, at)
  end
  return ("%s-jobrun-%s"):format(job, table.concat(letters))
end

local function merge(...)
  local result = {}
  for _, from in ipairs { ... } do
    for name, value in pairs(from) do result[name] = value end
  end
  return result
end

--- Builds the environment of one instance.
---@param record rouse.target.process.record
---@param index integer
---@param retry integer
---@return table<string, string>
function target.injected(record, index, retry)
  return {
    JOB_INDEX = tostring(index),
    JOB_ARRAY_SIZE = tostring(record.array_size or #record.indices),
    JOB_INDEX_RETRY_COUNT = tostring(retry),
    JOB_RETRY_LIMIT = tostring(record.retry_limit),
    JOB_MODE = record.mode,
    CE_JOB = record.job,
    CE_JOBRUN = record.name,
    HOSTNAME = ("%s-%d-%d"):format(record.name, index, retry),
  }
end

-- Our stdout may be a pipe that nobody reads any more, which would stop the children.
local function forward(child)
  local chunk = child:read { stream = "stdout" }
  while chunk do
    io.stderr:write(chunk)
    chunk = child:read { stream = "stdout" }
  end
end

-- Starts the child of an index and waits for its end. Returns whether it exited 0, and else why
-- not.
---@private
function Process:attempt(record, index, retry)
  local child, message = process.spawn {
    command = record.command,
    env = merge(self.environ, record.env, target.injected(record, index, retry)),
    cwd = record.cwd,
    stdout = self.stdout == "stderr" and "pipe" or self.stdout,
    stderr = self.stderr,
    group = true, -- as in a container, nothing that the command starts outlives it
  }
  if not child then return false, "ExecutableNotFound", message end
  local _ <close> = setmetatable({}, { __close = function()
    record.children[index] = nil
    child:close()
  end })
  record.children[index] = child
  if self.stdout == "stderr" then task.spawn(forward, child) end
  record.on(index, "running", { retries = retry })
  -- A stop that came between the request and the start found no child to signal.
  if record.stopping then child:kill("TERM") end
  local ended = child:wait()
  if ended.code == 0 and not ended.signal then return true end
  return false, ("ContainerExitedCode%d"):format(ended.code) -- of a signal: 128 and its number
end

-- An index from its first attempt to its end.
---@private
function Process:instance(record, index)
  local _ <close> = setmetatable({}, { __close = function()
    record.alive = record.alive - 1
    if record.alive == 0 then
      self.active[record] = nil
      record.ended:set()
    end
  end })
  local retry, delay = 0, self.retry_delay
  record.on(index, "pending", {})
  if record.delay then record.stop:wait(record.delay) end
  while not record.stopping do
    local done, reason, missing = self:attempt(record, index, retry)
    if done then return record.on(index, "succeeded", {}) end
    local last = record.mode ~= "daemon" and retry >= record.retry_limit
    if last or missing or record.stopping then
      return record.on(index, "failed", { reason = reason, retries = retry })
    end
    retry = retry + 1
    record.on(index, "pending", { reason = reason, retries = retry })
    record.stop:wait(delay)
    delay = math.min(delay * 2, MAX_RETRY_DELAY)
  end
  record.on(index, "failed", {})
end

--- Starts the processes of a run that somebody else keeps the book of; `on` hears of every change
--- of an index, and must not raise.
---@param record rouse.target.process.record
---@return rouse.target.process.record record to be given to `stop`
function Process:start(record)
  record.children, record.alive = {}, #record.indices
  record.stop, record.ended = task.event(), task.event()
  self.active[record] = true
  for _, index in ipairs(record.indices) do
    self.nursery:spawn(function() self:instance(record, index) end)
  end
  return record
end

-- Asks the processes of a run to end, and wakes what waits for a retry.
local function interrupt(record)
  record.stopping = true
  record.stop:set()
  for _, child in pairs(record.children) do child:kill("TERM") end
end

-- Ends the processes of runs: SIGTERM for all, SIGKILL for those that outlast the grace period.
---@private
function Process:finish(records)
  for _, record in ipairs(records) do interrupt(record) end
  local deadline = task.monotonic() + self.grace
  for _, record in ipairs(records) do
    if not record.ended:wait(math.max(0, deadline - task.monotonic())) then
      for _, child in pairs(record.children) do child:kill("KILL") end
      record.ended:wait()
    end
  end
end

--- Ends the processes of a run: SIGTERM, and SIGKILL when the grace period is over. Waits.
---@param record rouse.target.process.record
function Process:stop(record)
  self:finish { record }
end

--- Ends the processes of a run without waiting for it.
---@param record rouse.target.process.record
function Process:stop_soon(record)
  self.nursery:spawn(function() self:stop(record) end)
end

local function describe(record)
  return record.instances:describe {
    name = record.name, job = record.job, created_at = record.created_at,
    indices = table.move(record.indices, 1, #record.indices, 1, {}),
    env = merge(record.own_env),
  }
end

--- Submits a run: one child per index.
---@param wake rouse.wake
---@return rouse.run? run
---@return string? message
---@return string? code NOT_FOUND, CONFLICT or INVALID
function Process:submit(wake)
  local job = self.jobs[wake.job]
  if not job then return nil, ("submit %s: no such job"):format(wake.job), "NOT_FOUND" end
  if not job.command then
    return nil, ("submit %s: the job has no command"):format(wake.job), "INVALID"
  end
  if #wake.indices == 0 then return nil, ("submit %s: no indices"):format(wake.job), "INVALID" end
  local name = wake.name or target.generate_name(wake.job)
  if self.runs[name] then
    return nil, ("submit %s: a run %s exists"):format(wake.job, name), "CONFLICT"
  end
  local record = {
    name = name, job = wake.job, created_at = task.now(), own_env = merge(wake.env or {}),
    command = job.command, cwd = job.cwd, env = merge(job.env or {}, wake.env or {}),
    indices = wake.indices, array_size = wake.array_size, instances = instances.new(wake.indices),
    mode = job.mode or "task", retry_limit = job.retry_limit or 0,
  }
  function record.on(index, status, details)
    record.instances:set(index, status, task.now(), details)
  end
  self.runs[name] = self:start(record)
  return describe(record)
end

--- Lists all runs, finished ones too until they are removed, by name.
---@return rouse.run[]
function Process:list()
  local runs = {}
  for _, record in pairs(self.runs) do runs[#runs + 1] = describe(record) end
  table.sort(runs, function(a, b) return a.name < b.name end)
  return runs
end

--- Reads a run.
---@param name string
---@return rouse.run? run
---@return string? message
---@return string? code
function Process:get(name)
  local record = self.runs[name]
  if not record then return nil, ("get %s: no such run"):format(name), "NOT_FOUND" end
  return describe(record)
end

--- Removes a run and ends its processes. It stays listed until they have ended: listed, it still
--- covers.
---@param name string
---@return true
function Process:remove(name)
  local record = self.runs[name]
  if record then
    self:stop(record)
    self.runs[name] = nil
  end
  return true
end

--- Takes other definitions of jobs; runs go on as they were started.
---@param jobs table<string, rouse.target.process.job>
function Process:define(jobs)
  self.jobs = jobs
end

--- Reads a job's definition.
---@param name string
---@return { name: string, env: table<string, string>, mode: string }? job
---@return string? message
---@return string? code
function Process:job(name)
  local job = self.jobs[name]
  if not job then return nil, ("get job %s: no such job"):format(name), "NOT_FOUND" end
  return { name = name, env = merge(job.env or {}), mode = job.mode or "task" }
end

--- Ends every process, all at the same time, and waits.
function Process:close()
  local records = {}
  for record in pairs(self.active) do records[#records + 1] = record end
  self:finish(records)
  self.runs = {}
  self.nursery:close()
end

return target
