--- The run table that every target returns, made from a job run as Code Engine's REST API shows it.
--- Pure. Everything in the answer may be missing, so everything is read defensively.
local arrayspec = require "rouse.arrayspec"
local time = require "rouse.target.time"

---@class rouse.run
---@field name string
---@field job string?
---@field created_at number? epoch seconds
---@field completed_at number?
---@field status "pending"|"running"|"completed"|"failed"|nil nil when the answer does not say
---@field requested integer?
---@field pending integer?
---@field running integer?
---@field succeeded integer?
---@field failed integer?
---@field unknown integer?
---@field indices integer[] what the run was asked to start
---@field succeeded_indices integer[]
---@field failed_indices integer[]
---@field env table<string, string> the run's own literal variables

local run = {}

local STATUSES = { pending = true, running = true, completed = true, failed = true }
local COUNTS = { "requested", "pending", "running", "succeeded", "failed", "unknown" }

local function text(value)
  return type(value) == "string" and value ~= "" and value or nil
end

local function count(value)
  local number = type(value) == "number" and math.tointeger(value) or nil
  return number and number >= 0 and number or nil
end

local function indices(spec)
  return text(spec) and arrayspec.parse(spec) or {}
end

--- Collects the literal variables of a `run_env_variables` array.
---@param variables any
---@return table<string, string>
function run.literals(variables)
  local env = {}
  if type(variables) ~= "table" then return env end
  for _, variable in ipairs(variables) do
    if type(variable) == "table" and (variable.type == "literal" or not text(variable.type)) then
      local name, value = text(variable.name), variable.value
      if name then env[name] = type(value) == "string" and value or "" end
    end
  end
  return env
end

--- Writes variables as the `run_env_variables` array, sorted by name.
---@param env table<string, string>?
---@return table[]
function run.variables(env)
  local variables = {}
  for name, value in pairs(env or {}) do
    variables[#variables + 1] = { type = "literal", name = name, value = value }
  end
  table.sort(variables, function(a, b) return a.name < b.name end)
  return variables
end

--- Reads one job run.
---@param answer any a decoded JSON object
---@return rouse.run? run nil when there is no name, so nothing to go by
function run.from_json(answer)
  if type(answer) ~= "table" or not text(answer.name) then return nil end
  local details = type(answer.status_details) == "table" and answer.status_details or {}
  local result = {
    name = answer.name,
    job = text(answer.job_name),
    created_at = time.from_rfc3339(answer.created_at),
    completed_at = time.from_rfc3339(details.completion_time),
    status = STATUSES[answer.status] and answer.status or nil,
    -- Without a spec the platform starts index 0.
    indices = text(answer.scale_array_spec) and indices(answer.scale_array_spec) or { 0 },
    succeeded_indices = indices(details.succeeded_indices),
    failed_indices = indices(details.failed_indices),
    env = run.literals(answer.run_env_variables),
  }
  for _, name in ipairs(COUNTS) do result[name] = count(details[name]) end
  return result
end

return run
