require "spec.helper"
local codeengine = require "rouse.mock.codeengine"
local http = require "rouse.http"
local json = require "rouse.json"
local settled = require "spec.settled"
local task = require "rouse.task"

local mock, client, token, clock

local FORM = "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=mock-api-key"

-- Runs a function beside a mock, and fails on whatever either leaves behind.
local function with(options, fn)
  return function()
    local before = settled()
    assert(task.run(function()
      clock = 1767613295
      options.now = function() return clock end
      mock = codeengine.new(options)
      assert(mock:start())
      client, token = http.client {}, nil
      fn()
      client:close()
      mock:close()
      return true
    end))
    assert.is_true(settled() <= before)
  end
end

local function raw(method, path, body, headers)
  return client:request { method = method, url = mock:url() .. path, body = body,
    headers = headers or {}, timeout = 60 }
end

local function fetch_token()
  local response = assert(raw("POST", "/identity/token", FORM,
    { ["Content-Type"] = "application/x-www-form-urlencoded" }))
  return response, json.decode(response.body)
end

-- One API call; the body is a table and comes back as one.
local function api(method, path, body, headers)
  if not token then token = select(2, fetch_token()).access_token end
  headers = headers or {}
  headers.Authorization = headers.Authorization or "Bearer " .. token
  headers["Content-Type"] = body and "application/json" or nil
  local response, message, code = raw(method,
    path:match("^/mock") and path or "/v2/projects/" .. mock.site.project .. path,
    type(body) == "table" and json.encode(body) or body, headers)
  if not response then return nil, message, code end
  return response.status, response.body ~= "" and json.decode(response.body) or nil, response
end

local JOBS = {
  ["payments-consumer"] = { env = { CONSUMER_GROUP = "payments-group", KAFKA_TOPIC = "payments",
    ROUSE_ASSIGN = "index" } },
  always = { mode = "daemon" },
  brief = { env = { CE_REMOVE_COMPLETED_JOBS = "IMMEDIATELY" } },
}

local function submit(name, extra)
  local body = { job_name = "payments-consumer", name = name, scale_array_spec = "0,3" }
  for key, value in pairs(extra or {}) do body[key] = value end
  return api("POST", "/job_runs", body)
end

-- What `validate:"required"` in IBM's Go SDK asks of every answer.
local REQUIRED = {
  run = { "computed_env_variables", "run_arguments", "run_commands", "run_env_variables",
    "run_volume_mounts" },
  job = { "computed_env_variables", "entity_tag", "image_reference", "name", "run_arguments",
    "run_commands", "run_env_variables", "run_mode", "run_service_account", "run_volume_mounts",
    "scale_array_spec", "scale_cpu_limit", "scale_ephemeral_storage_limit", "scale_memory_limit" },
}

local function has_all(object, kind)
  for _, member in ipairs(REQUIRED[kind]) do
    assert.is_not_nil(object[member], kind .. " lacks " .. member)
    assert.not_equal(json.null, object[member])
  end
  for _, name in ipairs { "computed_env_variables", "run_env_variables" } do
    for _, variable in ipairs(object[name]) do assert.is_string(variable.type) end
  end
end

describe("the mock IAM", function()
  it("issues tokens that the API takes, with and without Bearer", with({}, function()
    local response, body = fetch_token()
    assert.equal(200, response.status)
    assert.equal(3600, body.expires_in)
    assert.equal("Bearer", body.token_type)
    assert.equal(200, (api("GET", "/job_runs", nil, { Authorization = body.access_token })))
    assert.equal(401, (api("GET", "/job_runs", nil, { Authorization = "Bearer x" })))
    assert.equal(401, raw("GET", "/v2/projects").status)
    mock:expire_tokens()
    assert.equal(401, (api("GET", "/job_runs", nil, { Authorization = body.access_token })))
  end))

  it("refuses, fails and shortens lives at the switch", with({}, function()
    mock:faults { iam_refuse = 1, iam_down = 1, token_expiry = { seconds = 0, count = 1 } }
    assert.equal(503, fetch_token().status)
    local response, body = fetch_token()
    assert.same({ 400, "BXNIM0415E" }, { response.status, body.errorCode })
    response, body = fetch_token()
    assert.same({ 200, 0 }, { response.status, body.expires_in })
    assert.equal(401, (api("GET", "/job_runs", nil, { Authorization = body.access_token })))
  end))
end)

describe("a submit to the mock", function()
  it("is answered 202 with the whole run", with({ jobs = JOBS }, function()
    local status, run = submit("payments-1", { scale_array_size_variable_override = 4,
      run_env_variables = { { type = "literal", name = "ROUSE_ASSIGN", value = "group" },
        { type = "literal", name = "EXTRA", value = "1" } } })
    assert.equal(202, status)
    has_all(run, "run")
    assert.same({ "payments-1", "payments-consumer", "task", "0,3", "pending", "job_run_v2" },
      { run.name, run.job_name, run.run_mode, run.scale_array_spec, run.status, run.resource_type })
    assert.equal(2, run.status_details.requested)
    assert.equal("2026-01-05T11:41:35Z", run.created_at)
    local env = {}
    for _, variable in ipairs(run.run_env_variables) do env[variable.name] = variable.value end
    assert.same({ CONSUMER_GROUP = "payments-group", KAFKA_TOPIC = "payments", ROUSE_ASSIGN = "group",
      EXTRA = "1" }, env)
    for _, variable in ipairs(run.computed_env_variables) do env[variable.name] = variable.value end
    assert.same({ "4", "payments-1", mock.site.project },
      { env.JOB_ARRAY_SIZE, env.CE_JOBRUN, env.CE_PROJECT_ID })
    assert.matches("^%x+%-%x+%-%x+%-%x+%-%x+$", run.id)
  end))

  it("without a name gets one", with({ jobs = JOBS }, function()
    local _, run = submit(nil)
    assert.matches("^payments%-consumer%-jobrun%-%w%w%w%w%w$", run.name)
  end))

  it("is refused as the service would", with({ jobs = JOBS, quota = 3 }, function()
    local function refused(expected, code, status, body, response)
      assert.equal(expected, status)
      assert.equal(code, body.errors[1].code)
      assert.is_string(body.errors[1].message)
      assert.equal(expected, body.status_code)
      assert.matches("^codeengine%-api%-%x+$", body.trace)
      assert.equal(39 + 8, #body.trace)
      assert.is_string(response.headers["x-request-id"])
    end
    refused(404, "resource_not_found", submit("a", { job_name = "nobody" }))
    refused(400, "bad_request", submit("Not-A-Name"))
    refused(400, "bad_request", submit("a", { scale_array_spec = "0--1" }))
    refused(400, "bad_request", api("POST", "/job_runs", "{"))
    refused(400, "bad_request", api("POST", "/job_runs", "[1]"))
    refused(400, "bad_request", submit("a", { job_name = "always", scale_retry_limit = 2 }))
    refused(400, "bad_request", submit("a", { run_env_variables = {
      { type = "literal", name = "BIG", value = ("x"):rep(10240) } } }))
    assert.equal(202, (submit("a")))
    refused(409, "resource_already_exists", submit("a"))
    assert.equal(202, (submit("b")))
    assert.equal(202, (submit("c")))
    refused(403, "quota_exceeded", submit("d"))
    assert.equal(202, (api("DELETE", "/job_runs/c")))
    assert.equal(202, (submit("d")))
    refused(404, "resource_not_found", api("GET", "/job_runs/c"))
    refused(404, "resource_not_found", api("DELETE", "/job_runs/c"))
    refused(400, "bad_request", api("GET", "/job_runs?version=today"))
    assert.equal(200, (api("GET", "/job_runs?version=2025-07-10")))
  end))

  it("is written down with the time it arrived", with({ jobs = JOBS }, function()
    local before, monotonic = task.now(), task.monotonic()
    submit("a")
    submit("a")
    api("GET", "/job_runs")
    local _, seen = api("GET", "/mock/requests")
    assert.same({ create = 2, list = 1, iam = 1 }, seen.requests)
    assert.same({ ["202"] = 1, ["409"] = 1 }, seen.statuses.create)
    assert.equal(2, #seen.submits)
    local first, second = seen.submits[1], seen.submits[2]
    assert.same({ "a", "payments-consumer", "0,3", 202, true },
      { first.name, first.job, first.indices, first.status, first.created })
    assert.same({ "a", 409, false }, { second.name, second.status, second.created })
    assert.is_true(first.at >= before and first.at <= task.now())
    assert.is_true(first.monotonic >= monotonic and second.monotonic >= first.monotonic)
    api("DELETE", "/mock/requests")
    _, seen = api("GET", "/mock/requests")
    assert.same({}, seen.submits)
  end))
end)

describe("a run of the mock", function()
  local function state(name)
    local _, run = api("GET", "/job_runs/" .. name)
    return run and run.status, run and run.status_details
  end

  it("moves by time", with({ jobs = JOBS, timing = { pending = 2, running = 3 } }, function()
    submit("a")
    local status, details = state("a")
    assert.equal("pending", status)
    assert.same({ 0, 2, 0 }, { details.requested, details.pending, details.running })
    assert.equal("0,3", details.pending_indices)
    clock = clock + 2
    status, details = state("a")
    assert.equal("running", status)
    assert.equal("0,3", details.running_indices)
    assert.equal("2026-01-05T11:41:37Z", details.start_time)
    clock = clock + 3
    status, details = state("a")
    assert.equal("completed", status)
    assert.same({ 0, 2, "", "0,3" }, { details.running, details.succeeded, details.running_indices,
      details.succeeded_indices })
    assert.equal("2026-01-05T11:41:40Z", details.completion_time)
    assert.equal("succeeded", details.indices_details["3"].status)
  end))

  it("moves by hand, index by index", with({ jobs = JOBS }, function()
    submit("a")
    assert.equal("running", state("a"))
    assert.is_true(mock:finish("a", { index = 3, status = "failed", reason = "OOMKilled" }))
    local status, details = state("a")
    assert.equal("running", status)
    assert.same({ 1, 1, "3" }, { details.running, details.failed, details.failed_indices })
    assert.equal("OOMKilled", details.indices_details["3"].last_failure_reason)
    mock:finish("a", { index = 0, status = "unknown" })
    assert.equal(1, select(2, state("a")).unknown)
    mock:finish("a")
    assert.equal("failed", state("a"))
    assert.is_false(mock:finish("a"))
    assert.same({ "failed", { 0 }, { 3 } }, { mock:runs()[1].status, mock:runs()[1].succeeded_indices,
      mock:runs()[1].failed_indices })
    assert.has_error(function() mock:finish("b") end)
  end))

  it("vanishes when it ends and wants to", with({ jobs = JOBS }, function()
    submit("a", { job_name = "brief" })
    assert.equal("running", state("a"))
    mock:finish("a")
    assert.equal(404, (api("GET", "/job_runs/a")))
  end))

  it("stays pending at the switch, and may say nothing of itself", with({ jobs = JOBS }, function()
    mock:faults { pending = { seconds = 30, count = 1 }, omit_status_details = 1 }
    local _, run = submit("a")
    assert.is_nil(run.status)
    assert.is_nil(run.status_details)
    has_all(run, "run")
    assert.equal("pending", state("a"))
    clock = clock + 30
    assert.equal("running", state("a"))
    submit("b")
    assert.equal("running", state("b"))
  end))
end)

describe("the mock's lists", function()
  it("are cut into pages that survive changes", with({ jobs = JOBS, page = 2 }, function()
    for _, name in ipairs { "e", "d", "c", "b", "a" } do assert.equal(202, (submit(name))) end
    local names, start, pages = {}, nil, 0
    repeat
      local status, page = api("GET", "/job_runs?limit=100" .. (start and "&start=" .. start or ""))
      assert.equal(200, status)
      assert.equal(2, page.limit)
      assert.is_string(page.first.href)
      for _, run in ipairs(page.job_runs) do
        has_all(run, "run")
        names[#names + 1] = run.name
      end
      start = page.next and page.next.start
      if start then assert.matches("start=" .. start:gsub("%-", "%%-"), page.next.href) end
      if pages == 0 then api("DELETE", "/job_runs/d") end
      pages = pages + 1
    until not start
    assert.same({ "e", "d", "c", "b", "a" }, names)
    assert.equal(3, pages)
    assert.equal(400, (api("GET", "/job_runs?limit=0")))
    assert.equal(400, (api("GET", "/job_runs?start=nonsense")))
    local _, page = api("GET", "/job_runs?limit=1&job_name=always")
    assert.same({}, page.job_runs)
    assert.is_nil(page.next)
    assert.equal(1, page.limit)
  end))

  it("exist for jobs and projects too", with({ jobs = JOBS }, function()
    local status, page = api("GET", "/jobs")
    assert.equal(200, status)
    assert.equal(3, #page.jobs)
    for _, job in ipairs(page.jobs) do has_all(job, "job") end
    local _, project = api("GET", "")
    assert.equal("active", project.status)
    local response = raw("GET", "/v2/projects", nil, { Authorization = token })
    assert.equal(project.id, json.decode(response.body).projects[1].id)
    assert.equal(404, raw("GET", "/v2/projects/other/jobs", nil, { Authorization = token }).status)
    assert.equal(404, raw("GET", "/v2/nonsense", nil, { Authorization = token }).status)
  end))
end)

describe("a job of the mock", function()
  it("is created, read, changed and deleted with its runs", with({ jobs = JOBS }, function()
    local status, job = api("POST", "/jobs", { name = "new", image_reference = "i",
      run_env_variables = { { type = "literal", name = "A", value = "1" } } })
    assert.equal(201, status)
    has_all(job, "job")
    assert.equal(409, (api("POST", "/jobs", { name = "new", image_reference = "i" })))
    assert.equal(400, (api("POST", "/jobs", { name = "other" })))
    assert.equal(202, (submit("a", { job_name = "new" })))
    local change = { run_env_variables = { { type = "literal", name = "A", value = "2" } } }
    assert.equal(428, (api("PATCH", "/jobs/new", change)))
    assert.equal(412, (api("PATCH", "/jobs/new", change, { ["If-Match"] = "0" })))
    status, job = api("PATCH", "/jobs/new", change, { ["If-Match"] = job.entity_tag })
    assert.same({ 200, "2" }, { status, job.run_env_variables[1].value })
    assert.equal(202, (api("DELETE", "/jobs/new")))
    assert.equal(404, (api("GET", "/jobs/new")))
    assert.equal(404, (api("GET", "/job_runs/a")))
  end))
end)

describe("the mock's fault switches", function()
  it("are set, shown and cleared over HTTP", with({}, function()
    local status, shown = api("PUT", "/mock/faults", { throttle = { retry_after = 3, on = "list" } })
    assert.equal(200, status)
    assert.same({ throttle = { retry_after = 3, form = "seconds", count = "always", on = { "list" } } },
      shown.faults)
    assert.matches("429", shown.known.throttle)
    assert.equal(429, (api("GET", "/job_runs")))
    status, shown = api("PUT", "/mock/faults", '{"throttle": null, "slow": 0}')
    assert.same({ 200, {}, { throttle = 1 } }, { status, shown.faults, shown.hits })
    status, shown = api("PUT", "/mock/faults", { throtle = 1 })
    assert.equal(400, status)
    assert.matches("did you mean 'throttle'", shown.message)
    assert.equal(400, (api("PUT", "/mock/faults", "nonsense")))
    mock:faults { html = 1 }
    status, shown = api("DELETE", "/mock/faults")
    assert.same({ 200, {} }, { status, shown.faults })
    assert.equal(404, raw("GET", "/mock/other").status)
    assert.has_error(function() mock:faults { htm = 1 } end)
  end))

  it("strike before anything is done", with({ jobs = JOBS }, function()
    local wanted = {
      { { conflict_transient = 1 }, 409 }, { { conflict_duplicate = 1 }, 409 },
      { { status = { status = 500, count = 1 } }, 500 }, { { unauthorized = 1 }, 401 },
      { { throttle = { count = 1, retry_after = 60, form = "date" } }, 429 },
    }
    for _, case in ipairs(wanted) do
      mock:faults(case[1])
      local status, body, response = submit("a")
      assert.equal(case[2], status)
      assert.is_string(body.errors[1].message)
      if status == 429 then assert.matches("^%a%a%a, .* GMT$", response.headers["retry-after"]) end
    end
    mock:faults { html = 1 }
    local response = raw("GET", "/v2/projects/x/job_runs", nil, { Authorization = token })
    assert.equal(502, response.status)
    assert.matches("<html>", response.body)
    mock:faults { drop_before = 1 }
    local status, _, code = submit("a")
    assert.is_nil(status)
    assert.equal("LOST", code)
    assert.same({}, mock:runs())
    assert.equal(202, (submit("a")))
  end))

  it("strike after the run was created", with({ jobs = JOBS }, function()
    mock:faults { drop_after_create = 1 }
    local status, _, code = submit("a")
    assert.is_nil(status)
    assert.equal("LOST", code)
    assert.equal(200, (api("GET", "/job_runs/a")))
    assert.equal(409, (submit("a")))
    mock:faults { status_after_create = 1 }
    assert.equal(504, (submit("b")))
    assert.equal(200, (api("GET", "/job_runs/b")))
    assert.is_true(mock:counters().submits[1].created)
  end))

  it("delay one answer and not the others", with({ jobs = JOBS }, function()
    mock:faults { slow = { seconds = 60, count = 1, on = "create" } }
    local order = {}
    assert(fetch_token())
    token = select(2, fetch_token()).access_token
    local slow = task.spawn(function()
      local status, _, code = raw("POST", "/v2/projects/" .. mock.site.project .. "/job_runs",
        json.encode { job_name = "always", name = "a" }, { Authorization = token })
      order[#order + 1] = "slow"
      return status, code
    end)
    local deadline = task.monotonic() + 30
    while not mock.store.runs.a and task.monotonic() < deadline do task.sleep(0.002) end
    assert.equal(200, (api("GET", "/job_runs/a")))
    assert.same({}, order)
    slow:cancel()
  end))
end)
