require "spec.helper"
local faults = require "rouse.mock.codeengine.faults"
local handlers = require "rouse.mock.codeengine.handlers"
local tokens = require "rouse.mock.codeengine.tokens"
local validate = require "rouse.mock.codeengine.validate"

describe("the mock's array specs", function()
  it("expand to sorted indices", function()
    assert.same({ 0 }, validate.array("0"))
    assert.same({ 5, 12, 13, 14, 23 }, validate.array("23,12-14,5,13"))
    assert.same({ 9999999 }, validate.array("9999999"))
    assert.equal(1000, #validate.array("0-999"))
  end)

  it("are refused where the service refuses them", function()
    for _, wrong in ipairs { "", " ", "0--1", "1-", "-1", "01", "1,", ",1", "1, 2", "2-1", "0-1000",
      "12345678", "a", "0-999,1000", ("1,"):rep(126) .. "11" } do
      local indices, message = validate.array(wrong)
      assert.is_nil(indices, wrong)
      assert.matches("scale_array_spec", message)
    end
    assert.is_nil(validate.array(nil))
    assert.is_nil(validate.array(7))
  end)
end)

describe("the mock's rules for a submit", function()
  local job = { image_reference = "i", run_mode = "task", scale_array_spec = "0" }
  local daemon = { image_reference = "i", run_mode = "daemon", scale_array_spec = "0-1" }

  it("take what the service takes", function()
    assert.same({ 0 }, validate.submit({}, job, 53))
    assert.same({ 0, 1 }, validate.submit({ name = "a-1" }, daemon, 53))
    assert.same({ 0 }, validate.submit({ image_reference = "x", scale_retry_limit = 5 }, nil, 53))
    assert.same({ 3 }, validate.submit({ scale_array_spec = "3", image_reference = "i",
      run_env_variables = { { name = "A" }, { type = "literal", name = "B", value = "" },
        { type = "secret_full_reference", reference = "s" } } }, job, 53))
  end)

  it("refuse what it refuses, and say what", function()
    local cases = {
      { { name = "A" }, job, "name must match" }, { { name = "-a" }, job, "name must match" },
      { { name = "a." }, job, "name must match" }, { { name = ("a"):rep(54) }, job, "1 to 53" },
      { { name = "" }, job, "1 to 53" }, { { name = 1 }, job, "1 to 53" },
      { {}, nil, "image_reference" }, { { image_reference = "j" }, job, "image_reference" },
      { { image_secret = "s" }, job, "image_secret must not be set" },
      { { run_service_account = "writer" }, job, "run_service_account must not be set" },
      { { run_service_account = "root", image_reference = "i" }, nil, "run_service_account" },
      { { run_mode = "cron" }, job, "run_mode" },
      { { scale_retry_limit = 1 }, daemon, "not allowed in daemon mode" },
      { { scale_max_execution_time = 1, run_mode = "daemon" }, job, "not allowed in daemon mode" },
      { { scale_retry_limit = 6 }, job, "scale_retry_limit" },
      { { scale_retry_limit = "1" }, job, "scale_retry_limit" },
      { { scale_array_spec = "0--1" }, job, "scale_array_spec" },
      { { run_env_variables = { { type = "literal", value = "x" } } }, job, "run_env_variables%[0%]" },
      { { run_env_variables = { { name = "A", value = 1 } } }, job, "not a string" },
      { { run_env_variables = { { type = "env", name = "A" } } }, job, "unknown type" },
      { { run_env_variables = { { type = "secret_key_reference", name = "A" } } }, job, "reference" },
      { { run_env_variables = "A=1" }, job, "array" },
    }
    for _, case in ipairs(cases) do
      local indices, message = validate.submit(case[1], case[2], 53)
      assert.is_nil(indices, case[3])
      assert.matches(case[3], message)
    end
  end)
end)

describe("fault switches", function()
  it("strike as often as said, on their operations only", function()
    local switches = faults.new()
    assert(switches:set { conflict_transient = 2, slow = { seconds = 0.5, on = "list" } })
    assert.is_nil(switches:take("conflict_transient", "list"))
    assert.is_table(switches:take("conflict_transient", "create"))
    assert.is_table(switches:take("conflict_transient", "create"))
    assert.is_nil(switches:take("conflict_transient", "create"))
    for _ = 1, 10 do assert.equal(0.5, switches:take("slow", "list").seconds) end
    assert.is_nil(switches:take("slow", "get"))
    local on, hits = switches:show()
    assert.same({ slow = { seconds = 0.5, count = "always", on = { "list" } } }, on)
    assert.same({ conflict_transient = 2, slow = 10 }, hits)
  end)

  it("stay as they are unless named, and go off by 0, false or clear", function()
    local switches = faults.new()
    assert(switches:set { html = "always", status = { status = 500, count = 3 }, slow = true })
    assert(switches:set { html = 0 })
    assert(switches:set { slow = false })
    assert.same({ status = { status = 500, count = 3, on = "*" } }, (switches:show()))
    switches:clear()
    assert.same({}, (switches:show()))
  end)

  it("on the API leave IAM alone, and the other way round", function()
    local switches = faults.new()
    assert(switches:set { status = "always", iam_down = "always" })
    assert.is_nil(switches:take("status", "iam"))
    assert.is_table(switches:take("status", "job"))
    assert.is_nil(switches:take("iam_down", "job"))
    assert.equal(503, switches:take("iam_down", "iam").status)
  end)

  it("are refused altogether when one is wrong", function()
    local switches = faults.new()
    for wanted, message in pairs {
      ["did you mean 'slow'"] = { slo = 1 }, ["no fault '%-'"] = { ["-"] = 1 },
      ["no setting 'second'"] = { slow = { second = 1 } }, ["must be a number"] = { slow = { seconds = "1" } },
      ["count must be"] = { slow = -1 }, ["'fly' is not an operation"] = { slow = { on = "fly" } },
    } do
      message.html = 1
      local ok, said = switches:set(message)
      assert.is_nil(ok)
      assert.matches(wanted, said)
    end
    assert.same({}, (switches:show()))
  end)
end)

describe("the mock's tokens", function()
  local clock, source
  local form = { ["content-type"] = "application/x-www-form-urlencoded; charset=utf-8" }
  local grant = "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3A"

  before_each(function()
    clock = 0
    source = tokens.new { api_key = "a+b/c=", clock = function() return clock end,
      now = function() return 1000 end, random = math.random }
  end)

  it("are issued for the API key and are good until they expire", function()
    local status, body = source:issue(form, grant .. "apikey&apikey=a%2Bb%2Fc%3D", 60)
    assert.equal(200, status)
    assert.same({ 60, 1060, "Bearer" }, { body.expires_in, body.expiration, body.token_type })
    assert.is_true(source:good("Bearer " .. body.access_token))
    assert.is_true(source:good(body.access_token))
    clock = 60
    assert.is_false(source:good("Bearer " .. body.access_token))
    local _, another = source:issue(form, grant .. "apikey&apikey=a%2Bb%2Fc%3D")
    assert.not_equal(body.access_token, another.access_token)
    source:expire()
    assert.is_false(source:good("Bearer " .. another.access_token))
    assert.is_false(source:good(nil))
    assert.is_false(source:good("Bearer x"))
  end)

  it("are issued for a container's token of a profile", function()
    assert.equal(200, (source:issue(form, grant .. "cr-token&cr_token=x&profile_id=Profile-1")))
    local status, body = source:issue(form, grant .. "cr-token&cr_token=x")
    assert.same({ 400, "BXNIM0398E" }, { status, body.errorCode })
    source.cr_token = "y"
    assert.equal(400, (source:issue(form, grant .. "cr-token&cr_token=x&profile_name=p")))
  end)

  it("are not issued for anything else", function()
    local status, body = source:issue(form, grant .. "apikey&apikey=wrong")
    assert.same({ 400, "BXNIM0415E" }, { status, body.errorCode })
    assert.equal(400, (source:issue(form, grant .. "apikey&apikey=a+b/c=")))
    assert.equal(400, (source:issue(form, "grant_type=password")))
    assert.equal(400, (source:issue({}, grant .. "apikey&apikey=a%2Bb%2Fc%3D")))
    assert.equal(400, (source:issue(form, nil)))
  end)
end)

describe("the mock's paths", function()
  it("name operations", function()
    for _, case in ipairs {
      { "GET", "/v2/projects", "projects" }, { "GET", "/v2/projects/p", "project", "p" },
      { "GET", "/v2/projects/p/job_runs", "list", "p" },
      { "POST", "/v2/projects/p/job_runs", "create", "p" },
      { "GET", "/v2/projects/p/job_runs/a%2Fb", "get", "p", "a/b" },
      { "DELETE", "/v2/projects/p/job_runs/a", "delete", "p", "a" },
      { "PATCH", "/v2/projects/p/jobs/a", "job_update", "p", "a" },
      { "GET", "/v2/projects/p/apps" }, { "PUT", "/v2/projects/p/job_runs" },
      { "GET", "/v2/projectsp/job_runs" }, { "GET", "/projects/p/job_runs" },
      { "GET", "/v2/projects/p/job_runs/a/b" }, { "GET", "/" },
    } do
      assert.same({ case[3], case[4], case[5] }, { handlers.route(case[1], case[2]) }, case[2])
    end
  end)
end)
