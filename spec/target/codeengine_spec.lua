require "spec.helper"
local codeengine = require "rouse.target.codeengine"
local json = require "rouse.json"

-- An HTTP client that answers from a list and keeps what it was asked.
local function scripted(answers)
  local http = { asked = {} }
  function http:request(request)
    self.asked[#self.asked + 1] = request
    local answer = table.remove(answers, 1) or error("no answer left for " .. request.url)
    if answer.code then return nil, answer.message or "it broke", answer.code end
    local body = answer.body
    return { status = answer.status or 200, headers = answer.headers or {},
      body = type(body) == "table" and json.encode(body) or body or "" }
  end
  return http
end

local function open(answers, token)
  local http = scripted(answers)
  local target = assert(codeengine.new {
    base_url = "https://api.example/", project = "p-1", http = http,
    token = token or function() return "t-1" end, now = function() return 784111777 end,
  })
  return target, http
end

local wake = { job = "payments-consumer", name = "payments-consumer-7", indices = { 0, 3 },
  env = { B = "2", A = "1" } }

describe("the Code Engine target's address", function()
  it("is the base URL with one /v2, else made from the region, else refused", function()
    assert.equal("https://a/v2", codeengine.base("https://a", nil))
    assert.equal("https://a/v2", codeengine.base("https://a/", "eu-de"))
    assert.equal("https://a/v2", codeengine.base("https://a/v2", nil))
    assert.equal("https://a/v2", codeengine.base("https://a/v2/", nil))
    assert.equal("https://api.eu-de.codeengine.cloud.ibm.com/v2", codeengine.base("", "eu-de"))
    local url, message, code = codeengine.base(nil, "")
    assert.is_nil(url)
    assert.matches("CE_REGION", message)
    assert.equal("INVALID", code)
    assert.is_nil(codeengine.new { project = "p", http = {}, token = print })
  end)
end)

describe("a submit", function()
  it("posts name, array spec and sorted literals, and nothing that a job template forbids", function()
    local target, http = open { { status = 202, body = { name = "payments-consumer-7",
      job_name = "payments-consumer", status = "pending", scale_array_spec = "0,3" } } }
    local run = assert(target:submit(wake))
    local asked = http.asked[1]
    assert.equal("POST", asked.method)
    assert.equal("https://api.example/v2/projects/p-1/job_runs?version=2025-07-10", asked.url)
    assert.same({ Authorization = "Bearer t-1", Accept = "application/json",
      ["Content-Type"] = "application/json" }, asked.headers)
    assert.equal(30, asked.timeout)
    assert.same({
      job_name = "payments-consumer", name = "payments-consumer-7", scale_array_spec = "0,3",
      run_env_variables = { { type = "literal", name = "A", value = "1" },
        { type = "literal", name = "B", value = "2" } },
    }, json.decode(asked.body))
    assert.equal("pending", run.status)
    assert.same({ 0, 3 }, run.indices)
    assert.same({ A = "1", B = "2" }, run.env)
  end)

  it("takes what the answer leaves out from what was asked", function()
    local target = open { { status = 201, body = { id = "x", scale_array_spec = json.null } } }
    local run = assert(target:submit(wake))
    assert.equal("payments-consumer-7", run.name)
    assert.equal("payments-consumer", run.job)
    assert.same({ 0, 3 }, run.indices)
    assert.is_nil(run.status)
  end)

  it("refuses before sending what the service would refuse", function()
    local target, http = open {}
    local scattered = {}
    for i = 0, 200 do scattered[#scattered + 1] = i * 2 end
    for _, wrong in ipairs {
      { job = "a", indices = {} }, { job = "a", indices = scattered },
      { job = "a", indices = { 0 }, env = { BIG = ("x"):rep(10240) } },
    } do
      local run, message, code = target:submit(wrong)
      assert.is_nil(run)
      assert.equal("INVALID", code)
      assert.matches("submit a", message)
    end
    assert.equal(0, #http.asked)
  end)

  it("hands on the status codes as the caller's codes", function()
    local cases = {
      { { status = 409 }, "CONFLICT" }, { { status = 500 }, "AMBIGUOUS" },
      { { code = "LOST" }, "AMBIGUOUS" }, { { code = "TIMEDOUT" }, "AMBIGUOUS" },
      { { code = "CONNECT" }, "UNAVAILABLE" }, { { code = "TLS" }, "UNAVAILABLE" },
      { { status = 404 }, "NOT_FOUND" }, { { status = 400 }, "INVALID" },
      { { status = 200, body = "<html>" }, "AMBIGUOUS" }, { { status = 200, body = "" }, "AMBIGUOUS" },
      { { status = 200, body = "[1]" }, "AMBIGUOUS", unnamed = true },
    }
    for _, case in ipairs(cases) do
      local target = open { case[1] }
      local asked = case.unnamed and { job = "a", indices = { 0 } } or wake
      local run, message, code = target:submit(asked)
      assert.is_nil(run)
      assert.equal(case[2], code)
      assert.matches("submit", message)
    end
    local target = open { { status = 429, headers = { ["retry-after"] = "7" } } }
    local _, _, code, after = target:submit(wake)
    assert.same({ "THROTTLED", 7 }, { code, after })
  end)

  it("sends nothing without a token", function()
    for refused, code in pairs { CREDENTIALS = "UNAUTHORIZED", UNAVAILABLE = "UNAVAILABLE" } do
      local target, http = open({}, function() return nil, "iam: no", refused end)
      local run, message, got = target:submit(wake)
      assert.is_nil(run)
      assert.equal("iam: no", message)
      assert.equal(code, got)
      assert.equal(0, #http.asked)
    end
  end)
end)

describe("a refused token", function()
  it("is replaced once, and the request sent again", function()
    local rejected = {}
    local function token(old)
      rejected[#rejected + 1] = old or "none"
      return old and "t-2" or "t-1"
    end
    local target, http = open({ { status = 401 }, { status = 202, body = { name = "a" } } }, token)
    assert.equal("a", assert(target:submit(wake)).name)
    assert.same({ "none", "t-1" }, rejected)
    assert.equal("Bearer t-2", http.asked[2].headers.Authorization)
    assert.equal(http.asked[1].body, http.asked[2].body)
  end)

  it("is the caller's problem when the new one is refused too", function()
    local target, http = open { { status = 401 }, { status = 401 } }
    local run, _, code = target:get("a")
    assert.is_nil(run)
    assert.equal("UNAUTHORIZED", code)
    assert.equal(2, #http.asked)
  end)
end)

describe("the list of runs", function()
  local function page(names, start)
    local runs = json.array {}
    for i, name in ipairs(names) do runs[i] = { name = name } end
    return { body = { limit = 2, job_runs = runs, next = start and { start = start } or nil } }
  end

  it("follows the pages to the last", function()
    local target, http = open { page({ "a", "b" }, "s 1&x"), page({ "c" }, "s2"), page {} }
    local runs = assert(target:list())
    assert.same({ "a", "b", "c" }, { runs[1].name, runs[2].name, runs[3].name })
    local base = "https://api.example/v2/projects/p-1/job_runs?limit=100&"
    assert.equal(base .. "version=2025-07-10", http.asked[1].url)
    assert.equal(base .. "start=s%201%26x&version=2025-07-10", http.asked[2].url)
    assert.equal(base .. "start=s2&version=2025-07-10", http.asked[3].url)
  end)

  it("is a failure, not a short list, when a page fails or repeats", function()
    local target = open { page({ "a" }, "s1"), { status = 503 } }
    assert.equal("UNAVAILABLE", select(3, target:list()))
    target = open { page({ "a" }, "s1"), page({ "b" }, "s1") }
    local runs, message, code = target:list()
    assert.is_nil(runs)
    assert.matches("never end", message)
    assert.equal("UNAVAILABLE", code)
    target = open { { body = { limit = 100 } } }
    assert.is_nil(target:list())
    target = open { { body = "<html>" } }
    assert.is_nil(target:list())
  end)

  it("leaves out what has no name", function()
    local target = open { { body = { job_runs = { { name = "a" }, json.null, { id = "x" } } } } }
    assert.equal(1, #assert(target:list()))
  end)
end)

describe("single runs and jobs", function()
  it("are read by escaped name", function()
    local target, http = open { { body = { name = "a/b", run_mode = "daemon" } } }
    assert.equal("a/b", assert(target:get("a/b")).name)
    assert.equal("https://api.example/v2/projects/p-1/job_runs/a%2Fb?version=2025-07-10",
      http.asked[1].url)
  end)

  it("are NOT_FOUND when there is none", function()
    local target = open { { status = 404 }, { status = 404 } }
    assert.equal("NOT_FOUND", select(3, target:get("a")))
    assert.equal("NOT_FOUND", select(3, target:job("a")))
  end)

  it("are removed, also when they are gone already", function()
    local target = open { { status = 202 }, { status = 404 }, { status = 500 } }
    assert.is_true(target:remove("a"))
    assert.is_true(target:remove("a"))
    assert.equal("UNAVAILABLE", select(3, target:remove("a")))
  end)

  it("give a job's literals and mode", function()
    local target, http = open { { body = { name = "j", run_mode = "daemon", run_env_variables = {
      { type = "literal", name = "CONSUMER_GROUP", value = "g" },
      { type = "config_map_key_reference", name = "X", reference = "c", key = "k" } } } },
      { body = {} } }
    assert.same({ name = "j", mode = "daemon", env = { CONSUMER_GROUP = "g" } }, target:job("j"))
    assert.same({ name = "k", mode = "task", env = {} }, target:job("k"))
    assert.equal("https://api.example/v2/projects/p-1/jobs/j?version=2025-07-10", http.asked[1].url)
  end)
end)
