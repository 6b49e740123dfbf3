--- How the mock Code Engine answers one request: faults, token, version, operation, counters.
local faults = require "rouse.mock.codeengine.faults"
local handlers = require "rouse.mock.codeengine.handlers"
local json = require "rouse.json"
local log = require "rouse.log"
local store = require "rouse.mock.codeengine.store"
local task = require "rouse.task"
local time = require "rouse.target.time"

local service = {}

local MAX_SUBMITS <const> = 10000

local function refuse(mock, request, status, code, message, headers)
  headers = headers or {}
  headers["Content-Type"] = "application/json"
  local trace = "codeengine-api-" .. mock.store:uuid():gsub("-", "")
  headers["X-Request-Id"] = trace
  request:respond { status = status, headers = headers, body = json.encode {
    errors = json.array { { code = code, message = message } }, trace = trace, status_code = status,
  } }
  return status
end

-- Strikes with a fault that keeps the request from being carried out; returns the status it
-- answered.
local function strike(mock, request, operation)
  local function on(name) return mock.switches:take(name, operation) end
  if on("drop_before") then
    request:drop()
    return 0
  end
  if on("unauthorized") then return refuse(mock, request, 401, "unauthorized", "Unauthorized.") end
  local throttle = on("throttle")
  if throttle then
    local after = tostring(math.ceil(throttle.retry_after))
    if throttle.form == "date" then after = time.to_http_date(task.now() + throttle.retry_after) end
    return refuse(mock, request, 429, "too_many_requests", "Rate limit exceeded.",
      { ["Retry-After"] = after })
  end
  local html = on("html")
  if html then
    request:respond { status = html.status, headers = { ["Content-Type"] = "text/html" },
      body = "<html><body><h1>Bad Gateway</h1></body></html>" }
    return html.status
  end
  local status = on("status")
  if status then
    return refuse(mock, request, status.status, "mock_fault", "The fault switch says so.")
  end
  if on("conflict_transient") then
    return refuse(mock, request, 409, "conflict", "Operation cannot be fulfilled on "
      .. "resourcequotas: the object has been modified; please apply your changes to the latest "
      .. "version and try again")
  end
  if on("conflict_duplicate") then
    return refuse(mock, request, 409, "resource_already_exists", "A job run of that name exists.")
  end
end

local function answer(mock, request, operation, status, body)
  local slow = mock.switches:take("slow", operation)
  if slow then task.sleep(slow.seconds) end
  local headers = { ["X-Request-Id"] = mock.store:uuid() }
  if body then headers["Content-Type"] = "application/json" end
  request:respond { status = status, headers = headers, body = body and json.encode(body) or "" }
  return status
end

local function api(mock, request, call)
  local operation = call.operation
  local struck = strike(mock, request, operation)
  if struck then return struck end
  if not mock.tokens:good(request.headers.authorization) then
    return refuse(mock, request, 401, "unauthorized", "The token is missing, unknown or expired.")
  end
  local version = call.query.version
  if version and not version:match("^%d%d%d%d%-%d%d%-%d%d$") then
    return refuse(mock, request, 400, "bad_request", "version is not a date")
  end
  if call.project and call.project ~= mock.site.project then
    return refuse(mock, request, 404, "resource_not_found", "Resource not found.")
  end
  mock.store:sweep()
  local status, body = handlers[operation](mock, call)
  if not status then return refuse(mock, request, body.status, body.code, body.message) end
  if call.run and mock.switches:take("drop_after_create", operation) then
    request:drop()
    return 0
  end
  local after = call.run and mock.switches:take("status_after_create", operation)
  if after then return refuse(mock, request, after.status, "mock_fault", "The run was created.") end
  return answer(mock, request, operation, status, body)
end

local function iam(mock, request)
  local down = mock.switches:take("iam_down", "iam")
  if down then
    return answer(mock, request, "iam", down.status,
      { errorMessage = "The service is unavailable." })
  end
  if mock.switches:take("iam_refuse", "iam") then
    return answer(mock, request, "iam", 400, { errorCode = "BXNIM0415E",
      errorMessage = "Provided API key could not be found." })
  end
  local expiry = mock.switches:take("token_expiry", "iam")
  return answer(mock, request, "iam",
    mock.tokens:issue(request.headers, request.body, expiry and expiry.seconds))
end

-- The mock's own paths.
local function control(mock, request)
  local what = request.method .. " " .. request.path
  local function show(status, body)
    request:respond { status = status, headers = { ["Content-Type"] = "application/json" },
      body = json.encode(body, { sorted = true }) }
  end
  if what == "PUT /mock/faults" then
    local wanted = json.decode(request.body or "")
    local ok, message
    if type(wanted) == "table" then
      for name, value in pairs(wanted) do
        if value == json.null then wanted[name] = false end
      end
      ok, message = mock.switches:set(wanted)
    end
    if not ok then return show(400, { message = message or "the body is not a JSON object" }) end
  elseif what == "DELETE /mock/faults" then
    mock.switches:clear()
  elseif what == "DELETE /mock/requests" then
    mock:reset_requests()
  elseif what == "DELETE /mock/tokens" then
    mock.tokens:expire()
  elseif what == "GET /mock/requests" then
    return show(200, mock:counters())
  elseif what ~= "GET /mock/faults" then
    return refuse(mock, request, 404, "resource_not_found", "Resource not found.")
  end
  local on, hits = mock.switches:show()
  show(200, { faults = on, hits = hits, known = faults.DOC })
end

local function count(mock, operation, status)
  mock.requests[operation] = (mock.requests[operation] or 0) + 1
  local statuses = mock.statuses[operation] or {}
  mock.statuses[operation] = statuses
  local key = status == 0 and "dropped" or tostring(status)
  statuses[key] = (statuses[key] or 0) + 1
end

local function note_submit(mock, call, at, monotonic, status)
  local submitted = call.submitted or {}
  mock.submits[#mock.submits + 1] = {
    name = call.run and call.run.name or submitted.name, job = submitted.job_name,
    indices = call.run and call.run.scale_array_spec or submitted.scale_array_spec,
    env = call.run and store.environment(call.run) or nil,
    created = call.run ~= nil, status = status, at = at, monotonic = monotonic,
  }
  if #mock.submits > MAX_SUBMITS then table.remove(mock.submits, 1) end
end

-- One request, from its arrival to its answer.
function service.serve(mock, request)
  local at, monotonic = task.now(), task.monotonic()
  if request.path:match("^/mock/") then return control(mock, request) end
  if request.path == "/identity/token" and request.method == "POST" then
    return count(mock, "iam", iam(mock, request))
  end
  local operation, project, name = handlers.route(request.method, request.path)
  if not operation then
    count(mock, "unknown", 404)
    return refuse(mock, request, 404, "resource_not_found", "Resource not found.")
  end
  local call = {
    operation = operation, project = project, name = name, query = request.query or {},
    headers = request.headers, body = request.body,
  }
  local status = api(mock, request, call)
  count(mock, operation, status)
  if operation == "create" then note_submit(mock, call, at, monotonic, status) end
  log.debug("mock code engine", { operation = operation, name = name, status = status })
end

return service
