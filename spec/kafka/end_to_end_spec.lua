-- The whole system on a real broker: records from kcat, an observer process, the mock Code Engine, real consumer
-- processes that drain and exit. What is left behind is asked of the broker with librdkafka alone.
require "spec.helper"
local arrayspec = require "rouse.arrayspec"
local codeengine = require "rouse.mock.codeengine"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local IDLE = 2
local JOB = "payments-consumer"

-- A topic, its job in a mock Code Engine and everything an observer needs to know, in one of the three ways to run.
local function system(scope, options)
  local topic, group = scope:topic { partitions = 4, prefix = "payments" }, support.name "consumers"
  local kafka = support.kafka(options.listener)
  local log = scope:log "consumers"
  local mock = codeengine.new {
    api_key = "an-api-key", project = "4e49b3e0-27a8-48d2-a784-c7ee48bb863b", execute = true,
    environ = support.merge(support.environ(), kafka),
    jobs = {
      [JOB] = {
        command = { "/bin/sh", "-c", 'exec "$0" consumer >>"$1" 2>&1', support.rouse, log },
        env = { CONSUMER_GROUP = group, KAFKA_TOPIC = topic, IDLE_TIMEOUT = tostring(IDLE),
                ROUSE_ASSIGN = options.mode == "index" and "index" or nil },
      },
    },
  }
  scope:defer(function() mock:close() end)
  assert(mock:start())
  return {
    scope = scope, topic = topic, group = group, mock = mock,
    env = support.merge(kafka, {
      IAM_API_KEY = "an-api-key", CE_PROJECT_ID = "4e49b3e0-27a8-48d2-a784-c7ee48bb863b", CE_REGION = "us-south",
      CE_API_BASE_URL = mock:url(), IBMCLOUD_IAM_API_ENDPOINT = mock:url(), CE_JOB = "observer", JOB_MODE = "task",
      OBSERVER_CONSUMER_GROUP = options.mode == "claims" and support.name "observers" or nil,
      kafkadata = ("%s:\n  partitions: 4\n  jobs:\n  - %s\n"):format(topic, JOB),
    }),
  }
end

local function observe(sut)
  sut.observer = sut.scope:spawn { command = { support.rouse, "observer" }, env = sut.env, name = "observer" }
  return sut.observer
end

local function finished(run)
  return run.status == "completed" or run.status == "failed"
end

-- Waits until every record is committed and every run has ended; no instance may have failed.
local function settle(sut, seconds)
  support.wait("everything consumed and every run ended", seconds or 60, function()
    assert(not sut.observer or not sut.observer:ended(), "the observer ended")
    local runs = sut.mock:runs()
    for _, run in ipairs(runs) do
      if not finished(run) then
        return false
      end
    end
    return sut.scope:left(sut.group, sut.topic) == 0
  end)
  for _, run in ipairs(sut.mock:runs()) do
    assert.equal("completed", run.status, run.name)
  end
end

-- At the end: the group committed the end of every partition that ever had a record; the observer ends as it should.
local function nothing_left(sut)
  local left, rows = sut.scope:left(sut.group, sut.topic)
  assert.equal(0, left)
  for _, row in ipairs(rows) do
    if row.end_offset > 0 then
      assert.equal(row.end_offset, row.committed, "partition " .. row.partition)
    end
  end
  assert.equal(143, (sut.observer:terminate()))
  assert.is_nil(sut.observer:text():find(support.password, 1, true), "the password is in the observer's output")
end

-- The runs submitted so far, also those that are no longer listed.
local function submits(sut)
  local created = {}
  for _, submit in ipairs(sut.mock:counters().submits) do
    if submit.created then
      table.insert(created, submit)
    end
  end
  return created
end

-- The indices that runs from number `first` on were submitted for, once each.
local function indices(sut, first)
  local seen, list = {}, {}
  for i, submit in ipairs(submits(sut)) do
    for _, index in ipairs(i >= first and arrayspec.parse(submit.indices) or {}) do
      if not seen[index] then
        seen[index] = true
        table.insert(list, index)
      end
    end
  end
  table.sort(list)
  return list
end

local function round_trip(mode, listener)
  return function(scope)
    local sut = system(scope, { mode = mode, listener = listener })
    observe(sut)
    scope:produce { topic = sut.topic, partitions = { 1, 3 }, count = 10 }
    settle(sut)
    if mode == "index" then
      assert.same({ 1, 3 }, indices(sut, 1))
    end
    local before = #submits(sut)
    scope:produce { topic = sut.topic, partitions = { 0 }, count = 1 }
    settle(sut)
    assert.is_true(#submits(sut) > before, "the second record woke nobody")
    if mode == "index" then
      assert.same({ 0 }, indices(sut, before + 1))
    end
    nothing_left(sut)
  end
end

local function backlog(mode, listener)
  return function(scope)
    local sut = system(scope, { mode = mode, listener = listener })
    scope:produce { topic = sut.topic, partitions = { 0, 2 }, count = 100 }
    observe(sut)
    settle(sut)
    nothing_left(sut)
  end
end

local function restart(mode, listener)
  return function(scope)
    local sut = system(scope, { mode = mode, listener = listener })
    observe(sut)
    scope:produce { topic = sut.topic, partitions = { 0, 1, 2, 3 }, count = 500 }
    support.wait("the first run", 30, function() return #submits(sut) > 0 end)
    scope:restart_broker()
    scope:produce { topic = sut.topic, partitions = { 0, 1, 2, 3 }, count = 50 }
    settle(sut, 120)
    -- And from quiet again, on connections that were all lost meanwhile.
    scope:restart_broker()
    scope:produce { topic = sut.topic, partitions = { 2 }, count = 1 }
    settle(sut, 120)
    nothing_left(sut)
  end
end

-- Records that land around the moments in which a consumer decides to leave, commits, exits and is seen as ended.
local function exit_race(mode, listener)
  return function(scope)
    local sut = system(scope, { mode = mode, listener = listener })
    observe(sut)
    scope:produce { topic = sut.topic, partitions = { 0 }, count = 1 }
    settle(sut)
    for round = 0, 5 do
      scope:produce { topic = sut.topic, partitions = { 0 }, count = 1 }
      support.wait("the record", 30, function() return scope:left(sut.group, sut.topic) == 0 end)
      task.sleep(IDLE - 0.4 + 0.2 * round)
    end
    settle(sut)
    nothing_left(sut)
  end
end

-- Observers that die without a word while they have something to do, and start again: nothing is kept on disk.
local function crash(mode, listener)
  return function(scope)
    local sut = system(scope, { mode = mode, listener = listener })
    -- A killed member stays in its group for this long, and the next one waits for it.
    sut.env.ROUSE_KAFKA = sut.env.ROUSE_KAFKA .. ";session.timeout.ms=6000"
    for round = 1, 3 do
      local before = #submits(sut)
      observe(sut)
      scope:produce { topic = sut.topic, partitions = { round }, count = 20 }
      -- Once before its first decision, once with a run under way, once again.
      if round > 1 then
        support.wait("a run", 30, function() return #submits(sut) > before end)
      end
      sut.observer.child:kill("KILL")
      sut.observer:finish()
      sut.observer = nil
    end
    observe(sut)
    settle(sut)
    nothing_left(sut)
  end
end

-- Two at once see the same records; for each partition with work there is one instance, not two.
local function two_observers(mode, listener)
  return function(scope)
    local sut = system(scope, { mode = mode, listener = listener })
    local other = observe(sut)
    observe(sut)
    scope:produce { topic = sut.topic, partitions = { 0, 2 }, count = 20 }
    settle(sut)
    assert.same({ 0, 2 }, indices(sut, 1))
    local instances = 0
    for _, submit in ipairs(submits(sut)) do
      instances = instances + #arrayspec.parse(submit.indices)
    end
    assert.equal(2, instances)
    assert.equal(143, (other:terminate()))
    nothing_left(sut)
  end
end

describe("lag mode with index assignment", function()
  it("wakes one instance a partition, and again after a quiet time", support.scoped(round_trip("index", "plaintext")))
  it("finds a backlog that was there before the observer", support.scoped(backlog("index", "plaintext")))
  it("goes on after the broker was restarted", support.scoped(restart("index", "plaintext"), 300))
  it("forgets nothing when observers are killed", support.scoped(crash("index", "plaintext")))
  it("wakes once when two observers watch", support.scoped(two_observers("index", "plaintext")))
  it("strands no record around a consumer's exit", support.scoped(exit_race("index", "plaintext"), 180))
end)

describe("lag mode with index assignment over SASL_SSL, as on Code Engine", function()
  it("wakes one instance a partition, and again after a quiet time", support.scoped(round_trip("index", "sasl")))
  it("finds a backlog that was there before the observer", support.scoped(backlog("index", "sasl")))
  it("goes on after the broker was restarted", support.scoped(restart("index", "sasl"), 300))
end)

describe("lag mode with consumers that join their group", function()
  it("wakes consumers, and again after a quiet time", support.scoped(round_trip("group", "plaintext")))
  it("goes on after the broker was restarted", support.scoped(restart("group", "sasl"), 300))
end)

describe("claims mode", function()
  it("wakes consumers, and again after a quiet time", support.scoped(round_trip("claims", "plaintext")))
  it("finds a backlog that was there before the observer", support.scoped(backlog("claims", "sasl")))
  it("forgets nothing when observers are killed", support.scoped(crash("claims", "plaintext"), 180))
  it("goes on after the broker was restarted", support.scoped(restart("claims", "plaintext"), 300))
end)

describe("refused credentials", function()
  for _, command in ipairs { "observer", "consumer" } do
    it("end the " .. command .. " with 77, naming mechanism and user and no secret", support.scoped(function(scope)
      local sut = system(scope, { mode = "index", listener = "sasl" })
      local env = support.merge(sut.env, {
        MESSAGEHUB_PASSWORD = "a-wrong-secret", KAFKA_TOPIC = sut.topic, CONSUMER_GROUP = sut.group,
      })
      local process = scope:spawn { command = { support.rouse, command }, env = env, name = command }
      assert.equal(77, (process:finish(60)))
      assert.truthy(process:text():find("PLAIN", 1, true))
      assert.truthy(process:text():find("token", 1, true))
      assert.is_nil(process:text():find("a-wrong-secret", 1, true), "the secret is in the output")
    end))
  end
end)
