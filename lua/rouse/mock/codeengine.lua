--- A Code Engine and an IAM on one local port, for any client: the REST API v2 of job runs and jobs
--- with its rules, tokens, and switches for what goes wrong in real life. Runs are executed as
--- local processes, moved by time, or by hand.
---
--- Beside the real paths: GET, PUT, DELETE /mock/faults (see faults.lua), GET, DELETE
--- /mock/requests, DELETE /mock/tokens.
local faults = require "rouse.mock.codeengine.faults"
local http = require "rouse.http"
local json = require "rouse.json"
local life = require "rouse.mock.codeengine.life"
local options = require "rouse.options"
local process = require "rouse.target.process"
local run = require "rouse.target.run"
local service = require "rouse.mock.codeengine.service"
local store = require "rouse.mock.codeengine.store"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local tokens = require "rouse.mock.codeengine.tokens"
local view = require "rouse.mock.codeengine.view"

---@class rouse.mock.codeengine
---@field store rouse.mock.store
---@field site table
---@field page integer
local Mock = { __name = "rouse.mock.codeengine" }
Mock.__index = Mock

local codeengine = {}

local OPTIONS = {
  { name = "jobs", type = "table", doc = "name -> {command=, env=, mode=, retry_limit=, cwd=}" },
  { name = "api_key", type = "string", default = "mock-api-key" },
  { name = "cr_token", type = "string", doc = "the only container token that IAM takes" },
  { name = "project", type = "string", default = "4e49b3e0-27a8-48d2-a784-c7ee48bb863b" },
  { name = "region", type = "string", default = "us-south" },
  { name = "host", type = "string", default = "127.0.0.1" },
  { name = "port", type = "number", default = 0 },
  { name = "page", type = "number", default = 100, doc = "most items on a page" },
  { name = "execute", type = "boolean", default = false, doc = "run jobs that have a command" },
  { name = "environ", type = "table", doc = "what every process starts from" },
  { name = "timing", type = "table", doc = "seconds from submit: pending, running; result" },
  { name = "quota", type = "number", default = 100 },
  { name = "quota_status", type = "number", default = 403 },
  { name = "name_limit", type = "number", default = 53 },
  { name = "grace", type = "number", default = 10, doc = "from SIGTERM to SIGKILL" },
  { name = "retry_delay", type = "number", default = 1, doc = "before an index is retried" },
  { name = "stdout", type = "string", default = "inherit" },
  { name = "stderr", type = "string", default = "inherit" },
  { name = "now", type = "function", doc = "epoch seconds, for time-driven runs" },
}

--- Makes the mock; nothing listens before `start`.
---@param given table see OPTIONS
---@return rouse.mock.codeengine
function codeengine.new(given)
  local set = options.check(given or {}, OPTIONS, "mock.codeengine.new")
  local self = setmetatable({
    settings = set, page = set.page, now = set.now or task.now, switches = faults.new(),
    commands = {}, requests = {}, statuses = {}, submits = {},
    site = { -- also the one item of the list of projects
      project = set.project, region = set.region, url = "http://mock.invalid", sequence = 1,
    },
  }, Mock)
  self.site.created_at = self.now()
  self.store = store.new {
    now = self.now, random = sys.random, quota = set.quota, quota_status = set.quota_status,
    name_limit = set.name_limit,
  }
  self.tokens = tokens.new {
    api_key = set.api_key, cr_token = set.cr_token, clock = task.monotonic, now = task.now,
    random = sys.random,
  }
  for name, job in pairs(set.jobs or {}) do self:add_job(name, job) end
  return self
end

--- Adds a job; raises if the service would refuse it.
---@param name string
---@param job rouse.target.process.job
function Mock:add_job(name, job)
  local added, refusal = self.store:create_job {
    name = name, image_reference = "local/" .. name, run_mode = job.mode,
    run_env_variables = run.variables(job.env), run_commands = job.command,
    scale_retry_limit = job.mode ~= "daemon" and job.retry_limit or nil,
  }
  if not added then error(("job %s: %s"):format(name, refusal.message), 2) end
  if job.command then self.commands[name] = { command = job.command, cwd = job.cwd } end
end

--- Listens and serves in tasks of the calling task, until that ends or `close`.
---@return true? started
---@return string? message
---@return string? code
function Mock:start()
  local set = self.settings
  local server, message, code = http.server { host = set.host, port = set.port }
  if not server then return nil, message, code end
  self.server = server
  self.site.url = ("http://%s:%d"):format(set.host, server:port())
  if set.execute then
    self.executor = process.new {
      environ = set.environ or {}, grace = set.grace, retry_delay = set.retry_delay,
      stdout = set.stdout, stderr = set.stderr,
    }
  end
  self.serving = task.spawn(function()
    while true do
      local request = server:accept {}
      if not request then return end
      task.spawn(function() service.serve(self, request) end)
    end
  end)
  return true
end

--- Returns where it is reached, as CE_API_BASE_URL: without /v2. IAM is there too.
---@return string
function Mock:url()
  return self.site.url
end

-- What the next run's life will be.
---@package
function Mock:timing(job)
  local delayed = self.switches:take("pending", "create")
  local timing = self.settings.timing or {}
  return {
    pending = delayed and delayed.seconds or timing.pending, running = timing.running,
    result = timing.result, executed = self.executor ~= nil and self.commands[job] ~= nil,
  }
end

---@package
function Mock:show_run(item, operation)
  local shown = view.run(item, self.site)
  if self.switches:take("omit_status_details", operation) then
    shown.status, shown.status_details = nil, nil
  end
  return shown
end

-- Starts the processes of a run, after its time as pending.
---@package
function Mock:execute(item)
  if not item.timing.executed then return end
  local job = self.commands[item.job_name]
  local env = store.environment(item)
  for name, value in pairs(view.injected(self.site, item)) do env[name] = value end
  item.record = self.executor:start {
    name = item.name, job = item.job_name, command = job.command, cwd = job.cwd, env = env,
    indices = item.instances.indices, array_size = item.scale_array_size_variable_override,
    mode = item.run_mode, retry_limit = item.scale_retry_limit, delay = item.timing.pending,
    on = function(index, status, details)
      item.instances:set(index, status, self.now(), details)
    end,
  }
end

---@package
function Mock:stop_run(item)
  if item.record then self.executor:stop_soon(item.record) end
end

--- Turns fault switches on and off; raises on an unknown one.
---@param values table<string, any>
function Mock:faults(values)
  local ok, message = self.switches:set(values)
  if not ok then error("mock:faults: " .. message, 2) end
end

--- Ends every token that was issued.
function Mock:expire_tokens()
  self.tokens:expire()
end

--- Returns what was asked so far, as GET /mock/requests: by operation, by operation and status, and
--- every submit with the time it arrived (at: epoch, monotonic: this machine's CLOCK_MONOTONIC).
---@return { requests: table<string, integer>, statuses: table, submits: table[] }
function Mock:counters()
  return { requests = self.requests, statuses = self.statuses, submits = json.array(self.submits) }
end

--- Forgets what was asked so far.
function Mock:reset_requests()
  self.requests, self.statuses, self.submits = {}, {}, {}
end

--- Returns the runs as a target's `list` does, in the order of their submits.
---@return rouse.run[]
function Mock:runs()
  self.store:sweep()
  local page = store.page(self.store.runs, {}, math.maxinteger)
  local runs = {}
  for position, item in ipairs(page --[[@as table]]) do
    local shown = run.from_json(view.run(item, self.site)) --[[@as rouse.run]]
    shown.created_at = item.created_at
    runs[position] = shown
  end
  return runs
end

--- Moves a run by hand: all its instances, or one. A run whose processes really run follows those.
---@param name string
---@param change rouse.mock.change? status: default succeeded
---@return boolean moved
function Mock:finish(name, change)
  local item = self.store.runs[name] or error("mock:finish: no run " .. tostring(name), 2)
  change = change or {}
  local moved = life.set(item, self.now(), {
    index = change.index, status = change.status or "succeeded", reason = change.reason,
  })
  self.store:sweep()
  return moved
end

--- Stops serving, ends every process and waits for it.
function Mock:close()
  local server = self.server
  if not server then return end
  self.server = nil
  self.serving:cancel()
  self.serving:join()
  if self.executor then self.executor:close() end
  server:close()
end

return codeengine
