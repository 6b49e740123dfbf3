require "spec.helper"
local codeengine = require "rouse.target.codeengine"
local http = require "rouse.http"
local iam = require "rouse.target.iam"
local mocked = require "rouse.mock.codeengine"
local settled = require "spec.settled"
local task = require "rouse.task"

-- The Code Engine target and IAM as the observer uses them, on sockets, against the mock.
local mock, target, tokens

local function with(options, fn)
  return function()
    local before = settled()
    assert(task.run(function()
      options.jobs = options.jobs or { a = { env = { CONSUMER_GROUP = "g" } } }
      mock = mocked.new(options)
      assert(mock:start())
      local client = http.client {}
      tokens = iam.new { endpoint = mock:url(), api_key = "mock-api-key", http = client }
      target = assert(codeengine.new {
        base_url = mock:url(), project = mock.site.project, http = client, timeout = 30,
        token = function(rejected) return tokens:token { force = rejected } end,
      })
      fn()
      target:close()
      tokens:close()
      client:close()
      mock:close()
      return true
    end))
    assert.is_true(settled() <= before)
  end
end

local function submit(name, indices)
  return target:submit { job = "a", name = name, indices = indices or { 0 }, env = { X = "1" } }
end

describe("the client against the mock", function()
  it("submits, reads, lists and removes", with({}, function()
    local run = assert(submit("a-1", { 0, 3 }))
    assert.same({ "a-1", "a", "pending", { 0, 3 } }, { run.name, run.job, run.status, run.indices })
    assert.same({ CONSUMER_GROUP = "g", X = "1" }, run.env)
    run = assert(target:get("a-1"))
    assert.same({ "running", 2 }, { run.status, run.running })
    assert.near(task.now(), run.created_at, 30)
    assert.equal("a-1", assert(target:list())[1].name)
    mock:finish("a-1")
    run = assert(target:get("a-1"))
    assert.same({ "completed", 2, { 0, 3 } }, { run.status, run.succeeded, run.succeeded_indices })
    assert.is_true(target:remove("a-1"))
    assert.same({}, target:list())
    assert.same({ name = "a", env = { CONSUMER_GROUP = "g" }, mode = "task" }, target:job("a"))
    assert.equal(1, mock:counters().requests.iam)
  end))

  it("lists every page", with({ page = 3 }, function()
    for i = 1, 10 do assert(submit("a-" .. i)) end
    local names = {}
    for _, run in ipairs(assert(target:list())) do names[run.name] = true end
    for i = 1, 10 do assert.is_true(names["a-" .. i]) end
    assert.equal(4, mock:counters().requests.list)
  end))

  it("gets over tokens that expire, whoever asks at the same time", with({}, function()
    assert(target:list())
    mock:expire_tokens()
    local first = task.spawn(function() return submit("a-1") end)
    local second = task.spawn(function() return submit("a-2") end)
    assert.equal("a-1", first:join().name)
    assert.equal("a-2", second:join().name)
    assert.equal(2, mock:counters().requests.iam)
    mock:faults { unauthorized = "always" }
    assert.equal("UNAUTHORIZED", select(3, target:list()))
    assert.equal(3, mock:counters().requests.iam)
  end))

  it("tells what every fault means", with({ quota = 1 }, function()
    local cases = {
      { { conflict_transient = 1 }, "CONFLICT" }, { { conflict_duplicate = 1 }, "CONFLICT" },
      { { throttle = { count = 1, retry_after = 7 } }, "THROTTLED", 7 },
      { { throttle = { count = 1, retry_after = 60, form = "date" } }, "THROTTLED", 59, 60 },
      { { status = { count = 1, status = 500 } }, "AMBIGUOUS" },
      { { html = { count = 1, status = 502 } }, "AMBIGUOUS" },
      { { html = { count = 1, status = 200 } }, "AMBIGUOUS" },
      { { status = { count = 1, status = 403 } }, "FORBIDDEN" },
      { { drop_before = 1 }, "AMBIGUOUS" },
    }
    for _, case in ipairs(cases) do
      mock:faults(case[1])
      local run, message, code, after = submit("a-1")
      assert.is_nil(run)
      assert.matches("^submit a as a%-1: ", message)
      assert.equal(case[2], code)
      if case[3] then assert.is_true(after >= case[3] - 1 and after <= (case[4] or case[3])) end
    end
    assert.same({}, mock:runs())
    mock:faults { drop_after_create = 1 }
    assert.equal("AMBIGUOUS", select(3, submit("a-1")))
    assert.equal("a-1", assert(target:get("a-1")).name)
    assert.equal("CONFLICT", select(3, submit("a-1")))
    assert.equal("QUOTA", select(3, submit("a-2")))
    assert.equal("NOT_FOUND", select(3, target:submit { job = "b", name = "b-1", indices = { 0 } }))
    mock:faults { slow = { count = 1, seconds = 10 } }
    target.timeout = 0.1
    assert.equal("UNAVAILABLE", select(3, target:list()))
  end))

  it("says refused credentials apart from an IAM that is down", with({}, function()
    mock:faults { iam_refuse = 1 }
    assert.equal("CREDENTIALS", select(3, tokens:token()))
    mock:faults { iam_down = "always" }
    assert.equal("UNAVAILABLE", select(3, tokens:token()))
    assert.equal("UNAVAILABLE", select(3, submit("a-1")))
    mock:faults { iam_down = 0 }
    assert(submit("a-1"))
  end))

  it("is unavailable, and nothing was sent, when nobody listens", with({}, function()
    assert(target:list())
    local there = mock:url()
    mock:close()
    assert.equal("UNAVAILABLE", select(3, submit("a-1")))
    assert.matches("^http://127%.0%.0%.1:%d+$", there)
  end))
end)

describe("the mock's processes", function()
  local function until_status(name, wanted)
    local deadline = task.monotonic() + 60
    local run = assert(target:get(name))
    while run.status ~= wanted do
      assert(task.monotonic() < deadline, name .. " is still " .. tostring(run.status))
      task.sleep(0.005)
      run = assert(target:get(name))
    end
    return run
  end

  local jobs = {
    exits = { command = { "sh", "-c", 'exit $((JOB_INDEX + CODE))' }, env = { CODE = "0" },
      retry_limit = 0 },
    stays = { command = { "sleep", "60" } },
  }

  it("run the indices of a run and say how they ended",
    with({ execute = true, jobs = jobs, environ = { PATH = os.getenv("PATH") } }, function()
      assert(target:submit { job = "exits", name = "e", indices = { 0, 7 } })
      local run = until_status("e", "failed")
      assert.same({ { 0 }, { 7 } }, { run.succeeded_indices, run.failed_indices })
      assert(target:submit { job = "exits", name = "f", indices = { 1, 2 }, env = { CODE = "-1" } })
      run = until_status("f", "failed")
      assert.same({ { 1 }, { 2 } }, { run.succeeded_indices, run.failed_indices })
      mock:faults { pending = { seconds = 0.05, count = 1 } }
      assert(target:submit { job = "exits", name = "p", indices = { 0 } })
      until_status("p", "completed")
    end))

  it("end when their run is deleted, and with the mock",
    with({ execute = true, jobs = jobs, environ = { PATH = os.getenv("PATH") } }, function()
      assert(target:submit { job = "stays", name = "s", indices = { 0 } })
      until_status("s", "running")
      local record = mock.store.runs.s.record
      assert.is_true(target:remove("s"))
      assert.is_true(record.ended:wait(30))
      assert(target:submit { job = "stays", name = "t", indices = { 0, 1 } })
      until_status("t", "running")
      local other = mock.store.runs.t.record
      mock:close()
      assert.is_true(other.ended:is_set())
    end))
end)
