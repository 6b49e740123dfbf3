--- What the mock Code Engine refuses in a submit: the limits and grammars of the real service.
--- Pure. The status codes are 400 and the texts our own; the service publishes neither.
local validate = {}

local MAX_INDEX_DIGITS <const> = 7
local MAX_INSTANCES <const> = 1000
local MAX_SPEC <const> = 253
validate.MAX_RUN_BYTES = 10 * 1024

local STRINGS = {
  image_reference = 256, image_secret = 253, run_mode = 6, run_service_account = 7,
  scale_cpu_limit = 10, scale_memory_limit = 10, scale_ephemeral_storage_limit = 10,
}
local INTEGERS = {
  run_as_user = { 0, math.maxinteger }, scale_array_size_variable_override = { 1, 10000000 },
  scale_max_execution_time = { 0, 86400 }, scale_retry_limit = { 0, 5 },
}
local LISTS = { "run_arguments", "run_commands", "run_env_variables", "run_volume_mounts" }
local ACCOUNTS = { default = true, manager = true, none = true, reader = true, writer = true }
local VARIABLE_TYPES = {
  literal = true, config_map_full_reference = true, secret_full_reference = true,
  config_map_key_reference = true, secret_key_reference = true,
}

--- Checks the name of a job or a run.
---@param name any
---@param limit integer most characters
---@return true? ok
---@return string? message
function validate.name(name, limit)
  if type(name) ~= "string" or #name < 1 or #name > limit then
    return nil, ("name must have 1 to %d characters"):format(limit)
  end
  if not name:match("^[a-z0-9]$") and not name:match("^[a-z0-9][%-a-z0-9]*[a-z0-9]$") then
    return nil, "name must match ^[a-z0-9]([\\-a-z0-9]*[a-z0-9])?$"
  end
  return true
end

local function number(digits)
  if #digits > MAX_INDEX_DIGITS or digits:match("^0%d") then return nil end
  return math.tointeger(digits)
end

--- Expands an array spec. Independent of the client's own parser, so that one can prove the other.
---@param spec any
---@return integer[]? indices ascending, each once
---@return string? message
function validate.array(spec)
  local refused = "scale_array_spec is not a list of indices and ranges: " .. tostring(spec)
  if type(spec) ~= "string" or #spec < 1 or #spec > MAX_SPEC then return nil, refused end
  local seen, indices = {}, {}
  for item in (spec .. ","):gmatch("([^,]*),") do
    local from, to = item:match("^(%d+)%-(%d+)$")
    from = from or item:match("^%d+$")
    local first, last = from and number(from), from and number(to or from)
    if not first or not last or last < first then return nil, refused end
    if last - first >= MAX_INSTANCES then
      return nil, "scale_array_spec has more than 1000 indices"
    end
    for index = first, last do
      if not seen[index] then
        seen[index] = true
        indices[#indices + 1] = index
      end
    end
  end
  if #indices > MAX_INSTANCES then return nil, "scale_array_spec has more than 1000 indices" end
  table.sort(indices)
  return indices
end

local function variable(item, position)
  local where = ("run_env_variables[%d]"):format(position)
  if type(item) ~= "table" then return nil, where .. " is not an object" end
  local kind = item.type or "literal"
  if not VARIABLE_TYPES[kind] then return nil, where .. " has an unknown type" end
  if kind == "literal" or kind:match("_key_reference$") then
    if type(item.name) ~= "string" or not item.name:match("^[%a_][%w_.%-]*$") then
      return nil, where .. " has no valid name"
    end
  end
  if kind == "literal" and item.value ~= nil and type(item.value) ~= "string" then
    return nil, where .. " has a value that is not a string"
  end
  if kind ~= "literal" and type(item.reference) ~= "string" then
    return nil, where .. " has no reference"
  end
  return true
end

local function types(body)
  for name, limit in pairs(STRINGS) do
    local value = body[name]
    if value ~= nil and (type(value) ~= "string" or #value > limit) then
      return nil, ("%s must be a string of at most %d characters"):format(name, limit)
    end
  end
  for name, range in pairs(INTEGERS) do
    local value = body[name]
    if value ~= nil and (math.type(value) ~= "integer" or value < range[1] or value > range[2]) then
      return nil, ("%s must be an integer from %d to %d"):format(name, range[1], range[2])
    end
  end
  for _, name in ipairs(LISTS) do
    if body[name] ~= nil and type(body[name]) ~= "table" then
      return nil, name .. " must be an array"
    end
  end
  return true
end

--- Checks the members that jobs and runs share.
---@param body table
---@return true? ok
---@return string? message
function validate.template(body)
  local ok, message = types(body)
  if not ok then return nil, message end
  local mode = body.run_mode
  if mode and mode ~= "task" and mode ~= "daemon" then
    return nil, "run_mode must be task or daemon"
  end
  if body.run_service_account and not ACCOUNTS[body.run_service_account] then
    return nil, "run_service_account is unknown"
  end
  for position, item in ipairs(body.run_env_variables or {}) do
    ok, message = variable(item, position - 1)
    if not ok then return nil, message end
  end
  return true
end

--- Checks a submit against the job it names.
---@param body table
---@param job table? the job's members, nil for a run without a job
---@param name_limit integer
---@return integer[]? indices
---@return string? message
function validate.submit(body, job, name_limit)
  local ok, message = validate.template(body)
  if not ok then return nil, message end
  if body.name ~= nil then
    ok, message = validate.name(body.name, name_limit)
    if not ok then return nil, message end
  end
  if not job and not body.image_reference then
    return nil, "either job_name or image_reference is required"
  end
  if job and body.image_reference and body.image_reference ~= job.image_reference then
    return nil, "image_reference must not differ from the job's"
  end
  for _, member in ipairs { "image_secret", "run_service_account" } do
    if job and body[member] then
      return nil, member .. " must not be set on a job run, which references a job template"
    end
  end
  local mode = body.run_mode or job and job.run_mode or "task"
  if mode == "daemon" and (body.scale_max_execution_time or body.scale_retry_limit) then
    return nil, "scale_max_execution_time and scale_retry_limit are not allowed in daemon mode"
  end
  return validate.array(body.scale_array_spec or job and job.scale_array_spec or "0")
end

return validate
