--- The targets an observer submits to, opened when first named. A job's target is a kind ("codeengine", "process") or a table
--- with `kind` and that kind's settings; without one observe.target counts, else Code Engine.
local codeengine = require "rouse.target.codeengine"
local iam = require "rouse.target.iam"
local process = require "rouse.target.process"

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

--- The id of a job's target; opens it.
---@param job table
---@return string
function Targets:id_of(job)
  local spec = job.target or self.default
  local id = self.ids[spec]
  if not id then
    local kind = type(spec) == "table" and spec.kind or spec
    id = self.open[kind] and kind .. "#" .. self.count or kind
    self.count = self.count + 1
    self.ids[spec] = id
    self.open[id] = KINDS[kind](self, type(spec) == "table" and spec or {})
  end
  return id
end

function Targets:get(id)
  return self.open[id]
end

function Targets:close()
  for _, target in pairs(self.open) do
    target:close()
  end
  self.http:close()
end

---@param observe table the script's observe table
---@param settings table from rouse.config.environment
---@param http table the client that all targets share
---@param environ table<string, string> for child processes
function targets.new(observe, settings, http, environ)
  return setmetatable({
    open = {}, ids = {}, count = 1, settings = settings, http = http, environ = environ,
    default = observe.target or "codeengine",
  }, Targets)
end

return targets
