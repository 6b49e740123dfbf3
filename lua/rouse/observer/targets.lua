--- The targets an observer submits to. A job's target is a kind ("codeengine", "process") or a table with `kind` and that kind's
--- settings; without one observe.target counts, else Code Engine. Targets stay open over a reload: their runs go on.
local codeengine = require "rouse.target.codeengine"
local iam = require "rouse.target.iam"
local json = require "rouse.json"
local process = require "rouse.target.process"

---@class rouse.Targets
---@field open table<string, table> id → target, shared by all plans of an observer
---@field ids table<string, string> key of a spec → id
---@field redefined table<string, table> id → jobs that a process target has with this plan
local Targets = { __name = "rouse.targets" }
Targets.__index = Targets

local targets = {}

local KINDS = {}

function KINDS.codeengine(self)
  local settings = self.settings
  local auth = iam.new {
    endpoint = settings.iam.endpoint, api_key = settings.iam.api_key, cr_token_file = settings.iam.cr_token_file,
    profile_name = settings.iam.profile_name, profile_id = settings.iam.profile_id, http = self.http,
  }
  return codeengine.new {
    base_url = settings.codeengine.base_url, project = settings.codeengine.project,
    region = settings.codeengine.region, http = self.http,
    token = function(force) return auth:token { force = force } end,
  }
end

function KINDS.process(self, spec)
  return process.new { jobs = spec.jobs or {}, environ = self.environ }
end

-- A job's target as a table, and what tells it from others: two that are written alike are one.
local function spec_of(self, job)
  local spec = job.target or self.default
  spec = type(spec) == "table" and spec or { kind = spec }
  return spec, spec.kind == "codeengine" and spec.kind or json.encode(spec, { sorted = true })
end

--- The id of a job's target.
---@param job table
---@return string
function Targets:id_of(job)
  local _, key = spec_of(self, job)
  return self.ids[key]
end

function Targets:get(id)
  return self.redefined[id] and setmetatable({ jobs = self.redefined[id] }, { __index = self.open[id] })
    or self.open[id]
end

-- An id for a spec that is not known: that of an open target of the kind which nobody uses any more, else a new one.
local function give(self, spec, used)
  local number, id = 1, spec.kind
  while used[id] do
    number = number + 1
    id = spec.kind .. "#" .. number
  end
  if not self.open[id] then
    self.open[id] = KINDS[spec.kind](self, spec)
  elseif spec.kind == "process" then
    self.redefined[id] = spec.jobs or {}
  end
  return id
end

--- The targets for other routes. What is open stays open, under its id; nothing changes before `adopt`.
---@param observe table the script's observe table
---@param settings table from rouse.config.environment
---@param routes table[]
---@return rouse.Targets|nil, string? message
function Targets:plan(observe, settings, routes)
  local plan = setmetatable({
    open = self.open, http = self.http, environ = self.environ, ids = {}, redefined = {}, settings = settings,
    default = observe.target or "codeengine",
  }, Targets)
  local used, fresh = {}, {}
  for _, route in ipairs(routes) do
    for _, job in ipairs(route.jobs) do
      local spec, key = spec_of(plan, job)
      if spec.kind == "codeengine" and not settings.codeengine then
        return nil, ("job %s is Code Engine's, the observer's target is not: name codeengine in observe.target"):format(
          job.name)
      elseif self.ids[key] then
        plan.ids[key], used[self.ids[key]] = self.ids[key], true
      else
        fresh[#fresh + 1] = { spec = spec, key = key }
      end
    end
  end
  for _, item in ipairs(fresh) do
    if not plan.ids[item.key] then
      plan.ids[item.key] = give(plan, item.spec, used)
      used[plan.ids[item.key]] = true
    end
  end
  return plan
end

--- From now on these are the observer's targets.
---@return rouse.Targets self
function Targets:adopt()
  for id, jobs in pairs(self.redefined) do
    self.open[id]:define(jobs)
  end
  self.redefined = {}
  return self
end

function Targets:close()
  for _, target in pairs(self.open) do
    target:close()
  end
  self.http:close()
end

--- Without any target; `plan` opens them.
---@param http table the client that all targets share
---@param environ table<string, string> for child processes
---@return rouse.Targets
function targets.new(http, environ)
  return setmetatable({ open = {}, ids = {}, redefined = {}, http = http, environ = environ }, Targets)
end

return targets
