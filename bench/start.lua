--- How soon work begins and ends: a consumer's cold start, and a burst of records through the whole system.
local codeengine = require "rouse.mock.codeengine"
local figures = require "bench.figures"
local kafka = require "rouse.kafka"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local median, milliseconds, number, say = figures.median, figures.milliseconds, figures.number, figures.say

local bench = {}

-- From before exec to the first line of output that `pattern` finds.
local function first(scope, options, pattern)
  local start = task.monotonic()
  local process = scope:spawn(options)
  support.wait("the first record", 30, function() return process:text():find(pattern) end, 0.0005)
  local seconds = task.monotonic() - start
  process.child:kill "KILL"
  process:finish()
  return seconds
end

--- From exec to the first record handled, of packaged consumers and of kcat. The broker lets groups join without delay.
function bench.start(scope)
  local rounds = number("BENCH_STARTS", 20)
  local topic = scope:topic { partitions = 4, prefix = "start" }
  scope:produce { topic = topic, partitions = { 0, 1, 2, 3 }, count = 10 }
  local function rouse(env)
    return function()
      return first(scope, { command = { support.rouse, "consumer" }, env = support.merge(support.kafka "plaintext", {
        KAFKA_TOPIC = topic, CONSUMER_GROUP = support.name "start" }, env) }, '"message":"record"')
    end
  end
  local function kcat(...)
    local words = { ... }
    return function()
      local command = { "kcat", "-b", support.brokers, "-u", "-q", "-f", "record %o\n" }
      for _, word in ipairs(words) do table.insert(command, word == "GROUP" and support.name "start" or word) end
      return first(scope, { command = command }, "record")
    end
  end
  local contestants = {
    { name = "rouse consumer, index", run = rouse { ROUSE_ASSIGN = "index", JOB_INDEX = "2", CE_JOBRUN = "run-1" } },
    { name = "kcat -C, one partition", run = kcat("-C", "-t", topic, "-p", "2", "-o", "beginning") },
    { name = "rouse consumer, group", run = rouse {} },
    { name = "kcat -G", run = kcat("-X", "auto.offset.reset=earliest", "-G", "GROUP", topic) },
  }
  local results = figures.alternate(contestants, rounds)
  say("exec to first record handled, median of %d alternating rounds (least, most):", rounds)
  for i, contestant in ipairs(contestants) do
    local m, least, most = median(results[i])
    say("  %-24s %9s (%s, %s)", contestant.name, milliseconds(m), milliseconds(least), milliseconds(most))
  end
end

local PARTITIONS <const> = 4

-- An observer, and a mock Code Engine whose runs are real consumers, by index.
local function system(scope)
  local topic, group = scope:topic { partitions = PARTITIONS, prefix = "burst" }, support.name "burst"
  local access = support.kafka "plaintext"
  local mock = codeengine.new { api_key = "an-api-key", execute = true,
    environ = support.merge(support.environ(), access), jobs = { consumer = {
      command = { "/bin/sh", "-c", 'exec "$0" consumer >/dev/null 2>&1', support.rouse },
      env = { CONSUMER_GROUP = group, KAFKA_TOPIC = topic, IDLE_TIMEOUT = "1", ROUSE_ASSIGN = "index" },
    } } }
  scope:defer(function() mock:close() end)
  assert(mock:start())
  scope:spawn { command = { support.rouse, "observer" }, name = "observer", env = support.merge(access, {
    IAM_API_KEY = "an-api-key", CE_PROJECT_ID = mock.site.project, CE_REGION = "us-south", CE_API_BASE_URL = mock:url(),
    IBMCLOUD_IAM_API_ENDPOINT = mock:url(), kafkadata = ("%s: { jobs: [consumer] }\n"):format(topic) }) }
  return topic, group, mock
end

--- A burst of records on four partitions, until all are committed: observer, job run, consumers.
function bench.burst(scope)
  local rounds, records = number("BENCH_BURSTS", 5), number("BENCH_BURST", 1000)
  local topic, group, mock = system(scope)
  local admin <close> = assert(kafka.admin { properties = { ["bootstrap.servers"] = support.brokers } })
  local list, times = {}, {}
  for i = 1, PARTITIONS do list[i] = { topic = topic, partition = i - 1 } end
  support.wait("a listing of the observer", 60, function() return (mock:counters().requests.list or 0) > 0 end)
  for round = 1, rounds do
    local start = task.monotonic()
    scope:run(os.getenv "KAFKA_TOOL", support.brokers, "load", topic, tostring(PARTITIONS), tostring(records), "100")
    local produced = task.monotonic() - start
    support.wait("all to be committed", 60, function()
      local done = true
      for _, item in ipairs(assert(admin:group_offsets { group = group, partitions = list, timeout = 10 })) do
        done = done and not item.error and (item.offset or 0) >= round * (records // PARTITIONS)
      end
      return done
    end)
    times[round] = task.monotonic() - start
    say("  burst %d: produced within %s, committed after %s", round, milliseconds(produced), milliseconds(times[round]))
    support.wait("the runs to end", 60, function()
      for _, run in ipairs(mock:runs()) do
        if run.status ~= "completed" and run.status ~= "failed" then return false end
      end
      return true
    end)
    -- Longer than the five seconds in which the observer looks again at a job that was active.
    task.sleep(8)
  end
  local m, least, most = median(times)
  say("burst of %d records on %d partitions to all committed, median of %d: %s (%s, %s)", records, PARTITIONS, rounds,
    milliseconds(m), milliseconds(least), milliseconds(most))
end

return bench
