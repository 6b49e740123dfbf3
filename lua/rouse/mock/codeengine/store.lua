--- Jobs and runs of the mock Code Engine, with the rules of the service. No I/O: the clock and the
--- ids come in.
local json = require "rouse.json"
local life = require "rouse.mock.codeengine.life"
local validate = require "rouse.mock.codeengine.validate"
local view = require "rouse.mock.codeengine.view"

---@class rouse.mock.store
---@field jobs table<string, table>
---@field runs table<string, table>
local Store = { __name = "rouse.mock.store" }
Store.__index = Store

local store = {}

-- What a job has unless it says otherwise; the defaults of the service's command line.
local DEFAULTS = {
  run_mode = "task", scale_array_spec = "0", scale_cpu_limit = "1", scale_memory_limit = "4G",
  scale_ephemeral_storage_limit = "400M", scale_max_execution_time = 7200, scale_retry_limit = 3,
}
local INHERITED = {
  "image_reference", "image_secret", "run_arguments", "run_commands", "run_as_user", "run_mode",
  "run_service_account", "run_compute_resource_token_enabled", "run_volume_mounts",
  "scale_array_spec", "scale_cpu_limit", "scale_memory_limit", "scale_ephemeral_storage_limit",
  "scale_max_execution_time", "scale_retry_limit",
}

---@class rouse.mock.store.options
---@field now fun(): number epoch seconds
---@field random fun(): number in [0, 1), for ids and invented names
---@field quota integer? runs in the project, default 100
---@field quota_status integer? the answer to a submit over it; the real one is unknown, default 403
---@field name_limit integer? of a run's name, default 53 as the service's command line says

--- Makes an empty store.
---@param options rouse.mock.store.options
---@return rouse.mock.store
function store.new(options)
  return setmetatable({
    now = options.now, random = options.random, quota = options.quota or 100,
    quota_status = options.quota_status or 403, name_limit = options.name_limit or 53,
    jobs = {}, runs = {}, sequence = 0,
  }, Store)
end

local function refuse(status, code, message)
  return nil, { status = status, code = code, message = message }
end

---@private
function Store:digits(count, letters)
  local parts = {}
  for i = 1, count do
    local at = 1 + math.floor(self.random() * #letters)
    parts[i] = letters:sub(at, at)
  end
  return table.concat(parts)
end

--- Invents a UUID.
---@return string
function Store:uuid()
  local hex = self:digits(32, "0123456789abcdef")
  return ("%s-%s-%s-%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(13, 16), hex:sub(17, 20),
    hex:sub(21))
end

---@private
function Store:stamp(item)
  self.sequence = self.sequence + 1
  item.sequence, item.id, item.created_at = self.sequence, self:uuid(), self.now()
  return item
end

--- Adds or replaces a job from a body as in POST /jobs.
---@param body table
---@return table? job
---@return table? refusal status, code, message
function Store:create_job(body)
  local ok, message = validate.name(body.name, 63)
  if ok then ok, message = validate.template(body) end
  if not ok then return refuse(400, "bad_request", message) end
  if not body.image_reference then
    return refuse(400, "bad_request", "image_reference is required")
  end
  if self.jobs[body.name] then
    return refuse(409, "resource_already_exists", "A job of that name exists.")
  end
  local job = self:stamp { name = body.name, run_env_variables = body.run_env_variables }
  for _, member in ipairs(INHERITED) do
    job[member] = body[member]
    if job[member] == nil then job[member] = DEFAULTS[member] end
  end
  job.entity_tag = self:digits(12, "0123456789")
  self.jobs[job.name] = job
  return job
end

--- Changes a job as PATCH /jobs/{name}; null removes a member.
---@param job table
---@param body table
---@return table? job
---@return table? refusal
function Store:update_job(job, body)
  local ok, message = validate.template(body)
  if not ok then return refuse(400, "bad_request", message) end
  job.run_env_variables = body.run_env_variables or job.run_env_variables
  for _, member in ipairs(INHERITED) do
    if body[member] ~= nil then job[member] = body[member] end
  end
  job.entity_tag = self:digits(12, "0123456789")
  return job
end

-- The job's variables, replaced by name by the run's.
local function merge(job, own)
  local merged, position = {}, {}
  for _, list in ipairs { job and job.run_env_variables or {}, own or {} } do
    for _, variable in ipairs(list) do
      local copy = {
        type = variable.type or "literal", name = variable.name, value = variable.value,
        key = variable.key, reference = variable.reference, prefix = variable.prefix,
      }
      local key = variable.name or "\0" .. variable.reference
      position[key] = position[key] or #merged + 1
      merged[position[key]] = copy
    end
  end
  return merged
end

--- Returns the literal variables of a run as a table.
---@param run table
---@return table<string, string>
function store.environment(run)
  local env = {}
  for _, variable in ipairs(run.run_env_variables) do
    if variable.type == "literal" then env[variable.name] = variable.value or "" end
  end
  return env
end

---@private
function Store:count()
  local count = 0
  for _ in pairs(self.runs) do count = count + 1 end
  return count
end

local function run_of(body, job)
  local run = {
    name = body.name, job_name = body.job_name,
    run_env_variables = merge(job, body.run_env_variables),
    scale_array_size_variable_override = body.scale_array_size_variable_override,
  }
  for _, member in ipairs(INHERITED) do
    run[member] = body[member]
    if run[member] == nil and job then run[member] = job[member] end
    if run[member] == nil then run[member] = DEFAULTS[member] end
  end
  return run
end

--- Creates a run from a body as in POST /job_runs.
---@param body table
---@param site table where the mock is reached, see view
---@param timing table see life
---@return table? run
---@return table? refusal status, code, message
function Store:create_run(body, site, timing)
  local job = body.job_name and self.jobs[body.job_name]
  if body.job_name ~= nil and not job then
    return refuse(404, "resource_not_found", "Resource not found.")
  end
  local indices, message = validate.submit(body, job, self.name_limit)
  if not indices then return refuse(400, "bad_request", message) end
  if body.name and self.runs[body.name] then
    return refuse(409, "resource_already_exists", "A job run of that name exists.")
  end
  if self:count() >= self.quota then
    return refuse(self.quota_status, "quota_exceeded",
      ("exceeded quota: %d job runs, used %d"):format(self.quota, self:count()))
  end
  local run = self:stamp(run_of(body, job))
  while not run.name or self.runs[run.name] do
    local letters = self:digits(5, "bcdfghjklmnpqrstvwxz2456789")
    run.name = ("%s-jobrun-%s"):format(body.job_name or "run", letters)
  end
  life.begin(run, indices, timing)
  local shown = view.run(run, site)
  shown.status, shown.status_details = nil, nil
  if #json.encode(shown) > validate.MAX_RUN_BYTES then
    return refuse(400, "bad_request", "size limit exceeded: a job run has at most 10 KiB")
  end
  self.runs[run.name] = run
  return run
end

--- Moves every run on to now, and drops the finished ones that want it.
function Store:sweep()
  local now = self.now()
  for name, run in pairs(self.runs) do
    life.advance(run, now)
    if life.finished(run) and store.environment(run).CE_REMOVE_COMPLETED_JOBS == "IMMEDIATELY" then
      self.runs[name] = nil
    end
  end
end

--- Deletes a job and, as the service does, all its runs.
---@param name string
---@return table[] runs those deleted
function Store:delete_job(name)
  local deleted = {}
  self.jobs[name] = nil
  for run_name, run in pairs(self.runs) do
    if run.job_name == name then
      deleted[#deleted + 1] = run
      self.runs[run_name] = nil
    end
  end
  return deleted
end

--- Cuts a page out of jobs or runs, oldest first. A page token stays good while items come and go.
---@param items table<string, table>
---@param query { limit: string?, start: string?, job_name: string? }
---@param most integer the largest page
---@return table[]? page
---@return table refusal_or_rest refusal, or limit and start (of the next page, nil on the last)
function store.page(items, query, most)
  local limit = query.limit and math.tointeger(query.limit) or most
  if query.limit and (not query.limit:match("^%d+$") or limit < 1) then
    return refuse(400, "bad_request", "limit must be a positive integer")
  end
  limit = math.min(limit, most)
  local after = 0
  if query.start then
    after = math.tointeger(query.start:match("^page%-(%d+)$"))
    if not after then
      return refuse(400, "bad_request", "start is not a page token of this list")
    end
  end
  local sorted = {}
  for _, item in pairs(items) do
    if item.sequence > after and (not query.job_name or item.job_name == query.job_name) then
      sorted[#sorted + 1] = item
    end
  end
  table.sort(sorted, function(a, b) return a.sequence < b.sequence end)
  local page = table.move(sorted, 1, math.min(limit, #sorted), 1, {})
  local more = #sorted > limit
  return page, { limit = limit, start = more and ("page-%d"):format(page[#page].sequence) or nil }
end

return store
