--- IBM Cloud Code Engine as a wake target: job runs through its REST API v2.
--- Speaks version 2025-07-10 of the API, which pins the shapes this file reads.
local arrayspec = require "rouse.arrayspec"
local json = require "rouse.json"
local log = require "rouse.log"
local reply = require "rouse.target.reply"
local run = require "rouse.target.run"
local task = require "rouse.task"
local url = require "rouse.url"

---@class rouse.target.codeengine
---@field private base string
---@field private project string
---@field private token fun(rejected: string?): string?, string?, string?
---@field private http table
---@field private timeout number
---@field private now fun(): number
local CodeEngine = { __name = "rouse.target.codeengine" }
CodeEngine.__index = CodeEngine

local codeengine = {}

local VERSION <const> = "2025-07-10"
local PAGE <const> = 100
local MAX_PAGES <const> = 1000
local MAX_BODY <const> = 10 * 1024

--- Finds the API's address with its /v2. Inside a container CE_API_BASE_URL has no /v2; elsewhere
--- people write it.
---@param base_url string?
---@param region string?
---@return string? url
---@return string? message
---@return string? code
function codeengine.base(base_url, region)
  if base_url and base_url ~= "" then
    local trimmed = base_url:gsub("/+$", "")
    return trimmed:match("/v2$") and trimmed or trimmed .. "/v2"
  end
  if region and region ~= "" then
    return ("https://api.%s.codeengine.cloud.ibm.com/v2"):format(region)
  end
  -- IBM's SDK falls back to one fixed region here, and everybody else gets 404s.
  return nil, "neither CE_API_BASE_URL nor CE_REGION is known", "INVALID"
end

--- Builds the body of a submit. Never image, limits or retries: the job's definition has them, and
--- a daemon refuses the last two.
---@param wake rouse.wake
---@return table? body
---@return string? message
---@return string? code
function codeengine.submission(wake)
  if #wake.indices == 0 then
    return nil, ("submit %s: no indices"):format(wake.job), "INVALID"
  end
  local spec, message = arrayspec.format(wake.indices)
  if not spec then return nil, ("submit %s: %s"):format(wake.job, message), "INVALID" end
  return {
    job_name = wake.job,
    name = wake.name,
    scale_array_spec = spec,
    scale_array_size_variable_override = wake.array_size,
    run_env_variables = json.array(run.variables(wake.env)),
  }
end

---@class rouse.target.codeengine.options
---@field base_url string? as CE_API_BASE_URL
---@field region string? as CE_REGION, used where there is no base_url
---@field project string the project's id
---@field token fun(rejected: string?): string?, string?, string? any token but the rejected one
---@field http table an HTTP client; stays the caller's
---@field timeout number? of one request, default 30
---@field now (fun(): number)? epoch seconds

---@class rouse.wake
---@field job string
---@field name string? the run's; without it the platform invents one
---@field indices integer[]
---@field env table<string, string>?
---@field array_size integer? JOB_ARRAY_SIZE, default: the number of indices

--- Opens the target.
---@param options rouse.target.codeengine.options
---@return rouse.target.codeengine? target
---@return string? message
---@return string? code
function codeengine.new(options)
  local base, message, code = codeengine.base(options.base_url, options.region)
  if not base then return nil, message, code end
  return setmetatable({
    base = base,
    project = assert(options.project, "codeengine.new: project is missing"),
    token = assert(options.token, "codeengine.new: token is missing"),
    http = assert(options.http, "codeengine.new: http is missing"),
    timeout = options.timeout or 30,
    now = options.now or task.now,
  }, CodeEngine)
end

---@private
function CodeEngine:url(path, query)
  query = query or {}
  query.version = VERSION
  return ("%s/projects/%s%s?%s"):format(self.base, url.encode(self.project), path, url.query(query))
end

-- One exchange with a token; `rejected` is a token to be replaced first.
---@private
function CodeEngine:send(call, rejected)
  local token, message, code = self.token(rejected)
  if not token then
    -- Nothing was sent, so a create is not ambiguous.
    return nil, message, code == "CREDENTIALS" and "UNAUTHORIZED" or "UNAVAILABLE"
  end
  local headers = { Authorization = "Bearer " .. token, Accept = "application/json" }
  if call.body then headers["Content-Type"] = "application/json" end
  local response, failure, failed = self.http:request {
    method = call.method, url = self:url(call.path, call.query), headers = headers,
    body = call.body, timeout = self.timeout,
  }
  if not response then return nil, reply.lost(call.operation, call.what, failure, failed) end
  return response, token
end

--- Sends a call and returns the answer if it is 2xx.
---@private
---@return table? response
---@return string? message
---@return string? code
---@return number? retry_after
function CodeEngine:call(call)
  local response, second, code = self:send(call)
  if not response then return nil, second, code end
  if response.status == 401 then
    response, second, code = self:send(call, second)
    if not response then return nil, second, code end
  end
  if response.status >= 200 and response.status < 300 then return response end
  local message, failed, retry_after =
    reply.failure(call.operation, call.what, response, self.now())
  log.debug("code engine refused a request", {
    operation = call.operation, status = response.status, code = failed,
    request_id = reply.request_id(response.headers), trace = reply.trace(response),
  })
  return nil, message, failed, retry_after
end

---@private
function CodeEngine:read(operation, what, path, query)
  local response, message, code, retry_after =
    self:call { operation = operation, what = what, method = "GET", path = path, query = query }
  if not response then return nil, message, code, retry_after end
  local value = reply.decode(response.body)
  if type(value) ~= "table" then
    return nil, ("%s: http %d without a JSON object"):format(what, response.status), "UNAVAILABLE"
  end
  return value
end

--- Submits a job run.
---@param wake rouse.wake
---@return rouse.run? run
---@return string? message
---@return string? code CONFLICT, AMBIGUOUS (it may have been carried out), INVALID, NOT_FOUND (no such
--- job), FORBIDDEN, QUOTA, THROTTLED, UNAUTHORIZED or UNAVAILABLE
---@return number? retry_after
function CodeEngine:submit(wake)
  local body, message, code = codeengine.submission(wake)
  if not body then return nil, message, code end
  local what = ("submit %s as %s"):format(wake.job, wake.name or "a new run")
  local encoded = json.encode(body, { sorted = true })
  if #encoded > MAX_BODY then
    return nil, ("%s: %d bytes, a job run has at most %d"):format(what, #encoded, MAX_BODY),
      "INVALID"
  end
  local response, failure, failed, retry_after = self:call {
    operation = "create", what = what, method = "POST", path = "/job_runs", body = encoded,
  }
  if not response then return nil, failure, failed, retry_after end
  local answer = reply.decode(response.body)
  if type(answer) ~= "table" then
    return nil, ("%s: http %d without a JSON object"):format(what, response.status), "AMBIGUOUS"
  end
  -- What the answer leaves out is what was asked for.
  for name, value in pairs(body) do
    if answer[name] == nil or answer[name] == json.null then answer[name] = value end
  end
  local result = run.from_json(answer)
  if not result then return nil, what .. ": the answer names no run", "AMBIGUOUS" end
  return result
end

--- Lists the project's job runs, every page.
---@return rouse.run[]? runs
---@return string? message
---@return string? code
---@return number? retry_after
function CodeEngine:list()
  local runs, seen, start = {}, {}, nil
  for _ = 1, MAX_PAGES do
    local page, message, code, retry_after =
      self:read("list", "list job runs", "/job_runs", { limit = PAGE, start = start })
    if not page then return nil, message, code, retry_after end
    if type(page.job_runs) ~= "table" then
      -- Taken as an empty list it would say that nobody works.
      return nil, "list job runs: the answer has no job_runs", "UNAVAILABLE"
    end
    for _, answer in ipairs(page.job_runs) do runs[#runs + 1] = run.from_json(answer) end
    local following = type(page.next) == "table" and page.next.start or nil
    if type(following) ~= "string" or following == "" then return runs end
    if seen[following] then break end
    seen[following], start = true, following
  end
  return nil, "list job runs: the pages never end", "UNAVAILABLE"
end

--- Reads one job run.
---@param name string
---@return rouse.run? run
---@return string? message
---@return string? code NOT_FOUND when there is none (any more)
---@return number? retry_after
function CodeEngine:get(name)
  local what = "get job run " .. name
  local answer, message, code, retry_after = self:read("get", what, "/job_runs/" .. url.encode(name))
  if not answer then return nil, message, code, retry_after end
  local result = run.from_json(answer)
  if not result then return nil, what .. ": the answer names no run", "UNAVAILABLE" end
  return result
end

--- Deletes a job run, which ends its instances. A run that is gone already is a success.
---@param name string
---@return true? removed
---@return string? message
---@return string? code
---@return number? retry_after
function CodeEngine:remove(name)
  local response, message, code, retry_after = self:call {
    operation = "delete", what = "delete job run " .. name, method = "DELETE",
    path = "/job_runs/" .. url.encode(name),
  }
  if response or code == "NOT_FOUND" then return true end
  return nil, message, code, retry_after
end

--- Reads a job's definition.
---@param name string
---@return { name: string, env: table<string, string>, mode: string }? job
---@return string? message
---@return string? code NOT_FOUND when there is none
---@return number? retry_after
function CodeEngine:job(name)
  local answer, message, code, retry_after =
    self:read("job", "get job " .. name, "/jobs/" .. url.encode(name))
  if not answer then return nil, message, code, retry_after end
  local mode = answer.run_mode
  return {
    name = type(answer.name) == "string" and answer.name or name,
    env = run.literals(answer.run_env_variables),
    mode = mode == "daemon" and "daemon" or "task",
  }
end

--- Nothing of its own is open: the HTTP client belongs to who made it.
function CodeEngine:close() end -- luacheck: ignore 212

return codeengine
