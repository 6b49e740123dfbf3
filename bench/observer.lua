--- What an observer costs and how fast it is: wake latency, re-arming, bytes during a burst and idle cost, beside a real broker.
local doorbell = require "rouse.observer.doorbell"
local figures = require "bench.figures"
local kafka = require "rouse.kafka"
local roles = require "rouse.config.properties"
local support = require "spec.kafka.support"
local task = require "rouse.task"
local traffic = require "bench.traffic"

local milliseconds, number, quantile, say = figures.milliseconds, figures.number, figures.quantile, figures.say
local usage = figures.usage

local bench = {}

-- What a figure is to be seen beside: what we aim at, and the sample that this replaces, as measured on another machine.
local SAMPLE <const> = "; the sample it replaces, on another machine: "
local BESIDE <const> = {
  single = "aims: p50 < 5 ms, p99 < 25 ms" .. SAMPLE .. "p50 251 ms, p99 504 ms",
  latency = "no aim for this size" .. SAMPLE .. "p50 251 ms, p99 504 ms at 4 partitions",
  crowd = "aims: p50 < 20 ms, p99 < 60 ms" .. SAMPLE .. "450 to 1400 ms",
  [4] = "no aim for this size" .. SAMPLE .. "10 requests/s, 0.3 % of a core, 20 to 25 MB resident",
  [1200] = "aims: < 5 requests/s, < 50 KB/s, < 0.3 % of a core, < 15 MB resident" .. SAMPLE
    .. "1718 requests/s, 100 KB/s sent, 138 KB/s received, 29 % of a core, 20 to 25 MB resident",
}

local function environment(mock, kafkadata)
  return support.merge(support.kafka "plaintext", {
    IAM_API_KEY = "an-api-key", CE_PROJECT_ID = mock.site.project, CE_REGION = "us-south",
    CE_API_BASE_URL = mock:url(), IBMCLOUD_IAM_API_ENDPOINT = mock:url(), kafkadata = kafkadata,
  })
end

-- Topics (of four partitions) and their jobs. The benchmark itself plays their runs: it commits for the group, then finishes
-- the run.
local function system(scope, count, partitions)
  local codeengine = require "rouse.mock.codeengine"
  local jobs, routes, lines = {}, {}, {}
  for i = 1, count do
    local topic = scope:topic { partitions = partitions or 4, prefix = "wake" }
    local route = { topic = topic, group = support.name "wakers", job = "job-" .. i }
    jobs[route.job] = {
      env = {
        CONSUMER_GROUP = route.group, KAFKA_TOPIC = route.topic, ROUSE_ASSIGN = "index",
        -- Else a minute of this would fill the project's quota of runs.
        CE_REMOVE_COMPLETED_JOBS = "IMMEDIATELY",
      },
    }
    table.insert(lines, ("%s:\n  jobs:\n  - %s\n"):format(route.topic, route.job))
    routes[i] = route
  end
  local mock = codeengine.new { api_key = "an-api-key", jobs = jobs }
  scope:defer(function() mock:close() end)
  assert(mock:start())
  return routes, mock, environment(mock, table.concat(lines))
end

local function observe(scope, env)
  return scope:spawn { command = { support.rouse, "observer" }, env = env, name = "observer" }
end

-- Waits until the observer listed the runs once more and had a moment to act on it.
local function listed(mock)
  local before = mock:counters().requests.list or 0
  support.wait("a listing of the observer", 90, function()
    return (mock:counters().requests.list or 0) > before
  end)
end

-- A group that never committed would be woken from the start; these begin at the end of an empty topic.
local function commit(admin, route, partition, offset)
  local answer = assert(admin:alter_group_offsets {
    group = route.group, timeout = 10,
    partitions = { { topic = route.topic, partition = partition, offset = offset } },
  })
  assert(not answer[1].error, answer[1].error)
end

-- Waits for the submit of a job whose run was created, past the first `before` submits; nil when there was none for 90 s.
local function submitted(mock, job, before)
  local found
  pcall(support.wait, "the submit", 90, function()
    local submits = mock:counters().submits
    for i = before + 1, #submits do
      if submits[i].job == job and submits[i].created then
        found = submits[i]
        return true
      end
    end
  end)
  return found
end

-- What the ways to measure the latency have in common: who asks the broker, who produces, and the delays so far.
local function stopwatch(scope)
  local properties = { ["bootstrap.servers"] = support.brokers }
  local admin = assert(kafka.admin { properties = properties })
  scope:defer(function() admin:close { timeout = 5 } end)
  local producer = assert(kafka.producer {
    properties = support.merge(properties, {
      ["linger.ms"] = "0", ["socket.nagle.disable"] = "true",
    }),
  })
  scope:defer(function() producer:close { timeout = 5 } end)
  return { admin = admin, producer = producer, delays = {}, missed = 0 }
end

-- One record and its submit, then the commit that a consumer would make and the run's end.
local function wake(watch, mock, route, partition)
  local before = #mock:counters().submits
  local report = assert(watch.producer:produce {
    topic = route.topic, partition = partition, value = "x", timeout = 10,
  })
  local acknowledged = task.monotonic()
  local submit = submitted(mock, route.job, before)
  if submit then
    table.insert(watch.delays, submit.monotonic - acknowledged)
  else
    watch.missed = watch.missed + 1
  end
  commit(watch.admin, route, partition, report.offset + 1)
  for _, run in ipairs(mock:runs()) do
    if run.job == route.job and run.status ~= "completed" then
      mock:finish(run.name)
    end
  end
end

local function tell(watch, beside)
  table.sort(watch.delays)
  say("  p50 %s, p99 %s, worst %s; not woken within 90 s: %d", milliseconds(quantile(watch.delays, 0.5)),
    milliseconds(quantile(watch.delays, 0.99)), milliseconds(watch.delays[#watch.delays]), watch.missed)
  say("  %s", beside)
end

--- Record acknowledged -> POST job_runs arrived, for a topic of four partitions and nothing else. Several observers, each with
--- its own, take turns: between its wakes each of them has to see the run's end and to rest.
function bench.single(scope)
  local wakes, observers = number("BENCH_WAKES", 200), 10
  local watch, players = stopwatch(scope), {}
  for i = 1, observers do
    local routes, mock, env = system(scope, 1, 4)
    local observer = observe(scope, env)
    listed(mock)
    players[i] = function()
      for round = 1, math.max(1, wakes // observers) do
        wake(watch, mock, routes[1], (round - 1) % 4)
        listed(mock)
        task.sleep(1 + math.random() * 0.5) -- until a fetch includes the partition again
      end
      observer:terminate()
      return true
    end
  end
  task.sleep(5) -- the first use of the broker's offsets topic is not what is measured
  for i, player in ipairs(players) do
    players[i] = task.spawn(function()
      task.sleep(i * 0.6)
      return player()
    end)
  end
  for _, player in ipairs(players) do
    assert(player:join())
  end
  say("record acknowledged to job run submitted, lag mode, %d records on a topic of 4 partitions:", #watch.delays)
  tell(watch, BESIDE.single)
end

-- One of the sizes of bench.latency: `count` topics are routed and armed, records come for the first `width` of them.
local function latency(scope, count, partitions, settle, beside)
  local wakes, width = number("BENCH_WAKES", 200), 25
  local routes, mock, env = system(scope, count, partitions)
  local watch = stopwatch(scope)
  local observer = observe(scope, env)
  listed(mock)
  task.sleep(settle) -- the first use of the broker's offsets topic is not what is measured

  -- Each route on its own: a record, its submit, the commit a consumer would make, the run's end, and quiet until the
  -- observer must have seen it. The routes are staggered: the observer sees one record at a time.
  local function play(route, rounds, offset)
    task.sleep(offset)
    for round = 1, rounds do
      wake(watch, mock, route, (round - 1) % 4)
      -- Longer than the five seconds in which an active job is looked at again, and a fetch in its way.
      task.sleep(8)
    end
    return true
  end
  local players = {}
  for i = 1, width do
    players[i] = task.spawn(play, routes[i], math.max(1, wakes // width), i * 0.25)
  end
  for _, player in ipairs(players) do
    assert(player:join())
  end
  observer:terminate()
  say("record acknowledged to job run submitted, lag mode, %d records on %d topics, armed %d partitions of %d topics:",
    #watch.delays, width, count * partitions, count)
  tell(watch, beside)
end

--- Record acknowledged -> POST job_runs arrived, one record at a time on routes that are quiet.
function bench.latency(scope)
  latency(scope, 25, 4, 5, BESIDE.latency)
end

--- The same where so many partitions are armed that they rest on the patient handle.
function bench.crowd(scope)
  latency(scope, 100, 12, number("BENCH_SETTLE", 65), BESIDE.crowd)
end

--- From arming a partition where a record waits to the ring, beside a fetch that is under way without it.
function bench.rearm(scope)
  local rounds = number("BENCH_ARMINGS", 200)
  local topic = scope:topic { partitions = 4, prefix = "rearm" }
  local properties = { ["bootstrap.servers"] = support.brokers }
  local producer = assert(kafka.producer { properties = support.merge(properties, { ["linger.ms"] = "0" }) })
  scope:defer(function() producer:close { timeout = 5 } end)
  local rung, at = task.event(), nil
  local bell = assert(doorbell.open({ override = support.merge(properties, { ["security.protocol"] = "plaintext" }) },
    function() at = task.monotonic() rung:set() end, error))
  scope:defer(function() bell:close { timeout = 5 } end)
  local server = task.spawn(bell.run, bell)
  for partition = 1, 3 do -- something for the fetch to wait for
    bell:set(topic, partition, 0)
  end
  bell:flush()
  task.sleep(2)
  local delays = {}
  for _ = 1, rounds do
    local report = assert(producer:produce { topic = topic, partition = 0, value = "x", timeout = 10 })
    task.sleep(math.random() * 0.3) -- anywhere in a wait of the fetch
    rung:clear()
    local armed = task.monotonic()
    bell:set(topic, 0, report.offset)
    bell:flush()
    assert(rung:wait(30))
    table.insert(delays, at - armed)
  end
  server:cancel()
  table.sort(delays)
  say("partition armed again to its ring, %d times: p50 %s, p99 %s, worst %s (a fetch waits for 250 ms)", rounds,
    milliseconds(quantile(delays, 0.5)), milliseconds(quantile(delays, 0.99)), milliseconds(delays[#delays]))
end

--- What an observer reads while records pour into topics whose runs are at work.
function bench.payload(scope)
  local megabytes, size, count, partitions = number("BENCH_MEGABYTES", 200), 1000, 4, 4
  local port = support.brokers:match(":(%d+)$")
  local routes, mock, env = system(scope, count, partitions)
  local observer = observe(scope, env)
  listed(mock)
  local every = {}
  for partition = 0, partitions - 1 do
    every[#every + 1] = partition
  end
  for _, route in ipairs(routes) do
    scope:produce { topic = route.topic, partitions = every }
  end
  support.wait("every partition to be covered", 60, function()
    local covered = 0
    for _, run in ipairs(mock:runs()) do
      covered = covered + run.requested + run.pending + run.running
    end
    return covered >= count * partitions
  end)
  local pid = observer.child:pid()
  local first = traffic.of(scope, pid, port)
  for _, route in ipairs(routes) do
    scope:run(os.getenv "KAFKA_TOOL", support.brokers, "load", route.topic, tostring(partitions),
      tostring(megabytes * 1000000 // size // count), tostring(size))
  end
  task.sleep(6) -- until it has looked once more
  local last = traffic.of(scope, pid, port)
  observer:terminate()
  local received = (last.received - first.received) / 1000
  say("a burst of %d MB for runs that are at work: the observer received %.1f KB in all, %.2f KB for each MB produced",
    megabytes, received, received / megabytes)
end

-- A C program that has libcurl loaded and holds the same partitions with one consumer of librdkafka, set as the patient one.
local function floor(scope, routes, partitions)
  local command = { os.getenv "BENCH_FLOOR", support.brokers, tostring(partitions) }
  local layers, own = { override = { ["security.protocol"] = "plaintext" } }, { ["socket.timeout.ms"] = "25000" }
  own["fetch.wait.max.ms"] = tostring(doorbell.PATIENCE * 1000)
  for name, value in pairs(roles.resolve("doorbell", layers, own)) do
    table.insert(command, name .. "=" .. value)
  end
  for _, route in ipairs(routes) do
    table.insert(command, route.topic)
  end
  return scope:spawn { command = command, name = "idle_floor" }
end

-- A line on what a process did since `before`.
local function cost(what, pid, seconds, before, now)
  local resident, after, own, mapped = usage(pid)
  say("%s, %d s: resident %.1f MiB (its own %.1f, mapped files %.1f), CPU %.2f %% of a core, %.1f requests/s, "
    .. "%.1f KB/s sent, %.1f KB/s received", what, seconds, resident / 1024, own / 1024, mapped / 1024,
    100 * (after - before.cpu) / seconds, (now.requests - before.requests) / seconds,
    (now.sent - before.sent) / seconds / 1000, (now.received - before.received) / seconds / 1000)
end

--- What an observer with nothing to do costs, and beside it the floor: what the libraries cost that it stands on.
function bench.idle(scope)
  local settle, seconds = number("BENCH_SETTLE", 65), number("BENCH_IDLE", 120)
  local port = support.brokers:match(":(%d+)$")
  for _, size in ipairs { { 1, 4 }, { 100, 12 } } do
    local routes, mock, env = system(scope, size[1], size[2])
    local observer = observe(scope, env)
    listed(mock)
    local bare = floor(scope, routes, size[2])
    task.sleep(settle)
    local pids, before, now = { observer.child:pid(), bare.child:pid() }, {}, {}
    for i, pid in ipairs(pids) do
      before[i] = traffic.of(scope, pid, port)
      before[i].cpu = select(2, usage(pid))
    end
    task.sleep(seconds)
    for i, pid in ipairs(pids) do
      now[i] = traffic.of(scope, pid, port)
    end
    local names = { ("idle observer, %d topics, %d partitions"):format(size[1], size[1] * size[2]),
      "  the floor, one bare consumer of librdkafka on the same partitions, libcurl loaded" }
    for i, pid in ipairs(pids) do
      cost(names[i], pid, seconds, before[i], now[i])
    end
    say("  %s", BESIDE[size[1] * size[2]])
    bare.child:kill "KILL"
    bare:finish()
    observer:terminate()
  end
end

return bench
