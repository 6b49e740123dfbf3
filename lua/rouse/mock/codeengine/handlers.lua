--- The operations of the mock Code Engine: which request is which, and what each one does. A
--- handler gets the mock and a call (operation, name, query, headers, body) and returns a status
--- and a body, or nil and a refusal.
local json = require "rouse.json"
local store = require "rouse.mock.codeengine.store"
local url = require "rouse.url"
local view = require "rouse.mock.codeengine.view"

local handlers = {}

-- Path below /v2/projects, by number of segments; {p} is the project, {n} the item's name.
local ROUTES = {
  { "GET", "", "projects" },
  { "GET", "/{p}", "project" },
  { "GET", "/{p}/job_runs", "list" },
  { "POST", "/{p}/job_runs", "create" },
  { "GET", "/{p}/job_runs/{n}", "get" },
  { "DELETE", "/{p}/job_runs/{n}", "delete" },
  { "GET", "/{p}/jobs", "jobs" },
  { "POST", "/{p}/jobs", "job_create" },
  { "GET", "/{p}/jobs/{n}", "job" },
  { "PATCH", "/{p}/jobs/{n}", "job_update" },
  { "DELETE", "/{p}/jobs/{n}", "job_delete" },
}

--- Finds the operation of a request.
---@param method string
---@param path string raw
---@return string? operation
---@return string? project
---@return string? name of the job or run
function handlers.route(method, path)
  local below = path:match("^/v2/projects(.*)$")
  if not below then return nil end
  local project, collection, name = below:match("^/([^/]+)/([^/]+)/([^/]+)$")
  if not project then project, collection = below:match("^/([^/]+)/([^/]+)$") end
  if not project then project = below:match("^/([^/]+)$") end
  if not project and below ~= "" then return nil end
  local shape = (project and "/{p}" or "") .. (collection and "/" .. collection or "")
    .. (name and "/{n}" or "")
  for _, route in ipairs(ROUTES) do
    if route[1] == method and route[2] == shape then
      return route[3], project and url.decode(project), name and url.decode(name)
    end
  end
  return nil
end

local function refuse(status, code, message)
  return nil, { status = status, code = code, message = message }
end

-- The one error body that the service documents.
local function missing()
  return refuse(404, "resource_not_found", "Resource not found.")
end

-- The request's JSON object without its nulls.
local function object(call)
  local body = json.decode(call.body or "")
  if type(body) ~= "table" or #body > 0 then
    return refuse(400, "bad_request", "the body is not a JSON object")
  end
  for name, value in pairs(body) do
    if value == json.null then body[name] = nil end
  end
  return body
end

local function listing(mock, call, items, key, path, show)
  local page, rest = store.page(items, call.query, mock.page)
  if not page then return nil, rest end
  local shown = json.array {}
  for position, item in ipairs(page) do shown[position] = show(item) end
  local base = ("%s/v2/projects%s?limit=%d"):format(mock.site.url, path, rest.limit)
  return 200, {
    limit = rest.limit, first = { href = base }, [key] = shown,
    next = rest.start and { href = base .. "&start=" .. rest.start, start = rest.start } or nil,
  }
end

function handlers.projects(mock, call)
  return listing(mock, call, { mock.site }, "projects", "", view.project)
end

function handlers.project(mock)
  return 200, view.project(mock.site)
end

function handlers.list(mock, call)
  return listing(mock, call, mock.store.runs, "job_runs", "/" .. mock.site.project .. "/job_runs",
    function(run) return mock:show_run(run, "list") end)
end

function handlers.create(mock, call)
  local body, refusal = object(call)
  if not body then return nil, refusal end
  call.submitted = body
  local run
  run, refusal = mock.store:create_run(body, mock.site, mock:timing(body.job_name))
  if not run then return nil, refusal end
  call.run = run
  local shown = mock:show_run(run, "create")
  mock:execute(run)
  return 202, shown
end

function handlers.get(mock, call)
  local run = mock.store.runs[call.name]
  if not run then return missing() end
  return 200, mock:show_run(run, "get")
end

function handlers.delete(mock, call)
  local run = mock.store.runs[call.name]
  if not run then return missing() end
  mock.store.runs[call.name] = nil
  mock:stop_run(run)
  return 202
end

function handlers.jobs(mock, call)
  return listing(mock, call, mock.store.jobs, "jobs", "/" .. mock.site.project .. "/jobs",
    function(job) return view.job(job, mock.site) end)
end

function handlers.job(mock, call)
  local job = mock.store.jobs[call.name]
  if not job then return missing() end
  return 200, view.job(job, mock.site)
end

function handlers.job_create(mock, call)
  local body, refusal = object(call)
  if not body then return nil, refusal end
  local job
  job, refusal = mock.store:create_job(body)
  if not job then return nil, refusal end
  return 201, view.job(job, mock.site)
end

function handlers.job_update(mock, call)
  local job = mock.store.jobs[call.name]
  if not job then return missing() end
  local wanted = call.headers["if-match"]
  if not wanted then return refuse(428, "precondition_required", "If-Match is required") end
  if wanted ~= "*" and wanted ~= job.entity_tag then
    return refuse(412, "precondition_failed", "If-Match does not match the entity_tag")
  end
  local body, refusal = object(call)
  if not body then return nil, refusal end
  job, refusal = mock.store:update_job(job, body)
  if not job then return nil, refusal end
  return 200, view.job(job, mock.site)
end

function handlers.job_delete(mock, call)
  if not mock.store.jobs[call.name] then return missing() end
  for _, run in ipairs(mock.store:delete_job(call.name)) do mock:stop_run(run) end
  return 202
end

return handlers
