--- Jobs and runs of the mock Code Engine as the REST API shows them, with every member that IBM's
--- SDK requires. Pure.
local arrayspec = require "rouse.arrayspec"
local json = require "rouse.json"
local time = require "rouse.target.time"

local view = {}

local function array(value)
  return json.array(value or {})
end

local function literals(values)
  local variables = {}
  for name, value in pairs(values) do
    variables[#variables + 1] = { type = "literal", name = name, value = tostring(value) }
  end
  table.sort(variables, function(a, b) return a.name < b.name end)
  return variables
end

--- Lists what the platform adds to the environment of a run's instances.
---@param site { project: string, region: string, url: string }
---@param run table?
---@return table<string, string>
function view.injected(site, run)
  local env = {
    CE_API_BASE_URL = site.url,
    CE_DOMAIN = site.region .. ".codeengine.appdomain.cloud",
    CE_PROJECT_ID = site.project,
    CE_REGION = site.region,
    CE_SUBDOMAIN = "mock-0000",
  }
  if run then
    env.CE_JOB, env.CE_JOBRUN = run.job_name, run.name
    env.JOB_ARRAY_SIZE = tostring(run.scale_array_size_variable_override or #run.instances.indices)
    env.JOB_MODE = run.run_mode
    env.JOB_RETRY_LIMIT = run.run_mode == "task" and tostring(run.scale_retry_limit) or nil
  end
  return env
end

-- The members that jobs and runs share.
local function template(source, site, computed)
  return {
    id = source.id,
    name = source.name,
    project_id = site.project,
    region = site.region,
    created_at = time.to_rfc3339(source.created_at),
    image_reference = source.image_reference,
    image_secret = source.image_secret,
    run_arguments = array(source.run_arguments),
    run_commands = array(source.run_commands),
    run_as_user = source.run_as_user or 0,
    run_compute_resource_token_enabled = source.run_compute_resource_token_enabled or false,
    run_mode = source.run_mode,
    run_service_account = source.run_service_account or "default",
    run_env_variables = array(source.run_env_variables),
    computed_env_variables = array(literals(computed)),
    run_volume_mounts = array(source.run_volume_mounts),
    scale_array_spec = source.scale_array_spec,
    scale_array_size_variable_override = source.scale_array_size_variable_override,
    scale_cpu_limit = source.scale_cpu_limit,
    scale_memory_limit = source.scale_memory_limit,
    scale_ephemeral_storage_limit = source.scale_ephemeral_storage_limit,
    scale_max_execution_time = source.run_mode == "task" and source.scale_max_execution_time or nil,
    scale_retry_limit = source.run_mode == "task" and source.scale_retry_limit or nil,
  }
end

local function moment(seconds)
  return seconds and time.to_rfc3339(seconds) or nil
end

--- Shows status and status_details of a run.
---@param run table
---@return string status
---@return table details
function view.status(run)
  local status, completed_at = run.instances:status()
  local buckets, details, started = run.instances:buckets(), {}, nil
  for name, indices in pairs(buckets) do details[name] = #indices end
  for _, name in ipairs { "pending", "running", "succeeded", "failed" } do
    details[name .. "_indices"] = arrayspec.format(buckets[name])
  end
  details.indices_details = {}
  for index, instance in run.instances:each() do
    local at = instance.started_at
    if at then started = math.min(started or at, at) end
    if instance.status ~= "requested" then
      details.indices_details[tostring(index)] = {
        status = instance.status, retries = instance.retries,
        last_failure_reason = instance.reason, started_at = moment(at),
        finished_at = moment(instance.finished_at),
      }
    end
  end
  details.start_time, details.completion_time = moment(started), moment(completed_at)
  return status, details
end

--- Shows a job run.
---@param run table
---@param site { project: string, region: string, url: string }
---@return table
function view.run(run, site)
  local shown = template(run, site, view.injected(site, run))
  shown.job_name = run.job_name
  shown.resource_type = "job_run_v2"
  shown.href = ("%s/v2/projects/%s/job_runs/%s"):format(site.url, site.project, run.name)
  shown.status, shown.status_details = view.status(run)
  return shown
end

--- Shows a job.
---@param job table
---@param site { project: string, region: string, url: string }
---@return table
function view.job(job, site)
  local shown = template(job, site, view.injected(site))
  shown.entity_tag = job.entity_tag
  shown.resource_type = "job_v2"
  shown.href = ("%s/v2/projects/%s/jobs/%s"):format(site.url, site.project, job.name)
  return shown
end

--- Shows the project.
---@param site { project: string, region: string, url: string, created_at: number }
---@return table
function view.project(site)
  local account = ("0"):rep(32)
  return {
    id = site.project, name = "mock", region = site.region, status = "active",
    resource_type = "project_v2", account_id = account, resource_group_id = account,
    created_at = moment(site.created_at),
    crn = ("crn:v1:mock:public:codeengine:%s:a/%s:%s::"):format(site.region, account, site.project),
    href = ("%s/v2/projects/%s"):format(site.url, site.project),
  }
end

return view
