require "spec.helper"
local json = require "rouse.json"
local run = require "rouse.target.run"
local time = require "rouse.target.time"

describe("a job run's JSON", function()
  local answer

  before_each(function()
    answer = json.decode [[{
      "name": "payments-consumer-1", "job_name": "payments-consumer",
      "created_at": "2026-01-05T11:41:35Z", "scale_array_spec": "0,3-5", "status": "running",
      "run_env_variables": [
        {"type": "literal", "name": "CONSUMER_GROUP", "value": "payments-group"},
        {"type": "literal", "name": "EMPTY"},
        {"type": "secret_key_reference", "name": "PASSWORD", "reference": "s", "key": "k"},
        {"type": "secret_full_reference", "reference": "s"}],
      "status_details": {"requested": 0, "pending": 1, "running": 1, "succeeded": 1, "failed": 1,
        "unknown": 0, "succeeded_indices": "3", "failed_indices": "4",
        "completion_time": "2026-01-05T11:42:35.250+01:00"}
    }]]
  end)

  it("becomes the run table", function()
    assert.same({
      name = "payments-consumer-1", job = "payments-consumer", created_at = 1767613295,
      completed_at = 1767609755.25, status = "running", requested = 0, pending = 1, running = 1,
      succeeded = 1, failed = 1, unknown = 0, indices = { 0, 3, 4, 5 }, succeeded_indices = { 3 },
      failed_indices = { 4 }, env = { CONSUMER_GROUP = "payments-group", EMPTY = "" },
    }, run.from_json(answer))
  end)

  it("may lack status and status_details, as right after a submit", function()
    answer.status, answer.status_details = nil, nil
    local read = run.from_json(answer)
    assert.is_nil(read.status)
    assert.is_nil(read.running)
    assert.same({ 0, 3, 4, 5 }, read.indices)
    assert.same({}, read.succeeded_indices)
  end)

  it("may hold null or nonsense anywhere but in the name", function()
    local read = run.from_json(json.decode [[{"name": "a", "job_name": null, "status": "sleeping",
      "status_details": null, "run_env_variables": {"x": 1}, "scale_array_spec": null,
      "created_at": "yesterday"}]])
    assert.same({ name = "a", indices = { 0 }, succeeded_indices = {}, failed_indices = {}, env = {} },
      read)
    read = run.from_json(json.decode [[{"name": "a", "scale_array_spec": "x-y",
      "status_details": {"running": -1, "failed": "2", "failed_indices": 7},
      "run_env_variables": [null, 3, {"type": "literal"}]}]])
    assert.same({ name = "a", indices = {}, succeeded_indices = {}, failed_indices = {}, env = {} },
      read)
  end)

  it("without a name is no run", function()
    answer.name = json.null
    assert.is_nil(run.from_json(answer))
    assert.is_nil(run.from_json("a"))
    assert.is_nil(run.from_json(nil))
  end)

  it("takes variables sorted by name", function()
    assert.same({
      { type = "literal", name = "A", value = "2" }, { type = "literal", name = "B", value = "1" },
    }, run.variables { B = "1", A = "2" })
    assert.same({}, run.variables(nil))
  end)
end)

describe("a point in time", function()
  it("is read from RFC 3339 whatever the local time zone", function()
    assert.equal(0, time.from_rfc3339("1970-01-01T00:00:00Z"))
    assert.equal(951827696, time.from_rfc3339("2000-02-29T12:34:56Z"))
    assert.equal(1767613295, time.from_rfc3339("2026-01-05T13:41:35+02:00"))
    assert.equal(1767613295, time.from_rfc3339("2026-01-05T06:11:35-05:30"))
    assert.near(1767613295.5, time.from_rfc3339("2026-01-05T11:41:35.500000001Z"), 1e-6)
  end)

  it("is nil for anything else", function()
    for _, wrong in ipairs { "", "2026-01-05", "2026-13-05T11:41:35Z", "2026-01-05T11:41:35",
      "2026-01-05T11:41:35Zx", 17, true } do
      assert.is_nil(time.from_rfc3339(wrong))
    end
  end)

  it("survives writing and reading", function()
    for _, seconds in ipairs { 0, 951827696, 1767613295, 4102444799 } do
      assert.equal(seconds, time.from_rfc3339(time.to_rfc3339(seconds)))
      assert.equal(seconds, time.from_http_date(time.to_http_date(seconds)))
    end
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", time.to_http_date(784111777))
    assert.is_nil(time.from_http_date("Sunday, 06-Nov-94 08:49:37 GMT"))
    assert.is_nil(time.from_http_date("Sun, 06 Nop 1994 08:49:37 GMT"))
  end)
end)
