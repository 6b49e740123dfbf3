--- How fast a consumer is and what it costs, beside a raw librdkafka loop and kcat in the same run.
local figures = require "bench.figures"
local properties = require "rouse.config.properties"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local median, number, say = figures.median, figures.number, figures.say
local PARTITIONS <const> = 4

local bench = {}

-- What the consumer fetches with, given to the others as well.
local fetch = {}
do
  local own = properties.resolve("consumer", {})
  for _, name in ipairs { "fetch.max.bytes", "queued.max.messages.kbytes", "queued.min.messages" } do
    table.insert(fetch, name .. "=" .. own[name])
  end
end

local function load(scope, count, size)
  local topic = scope:topic { partitions = PARTITIONS, prefix = "load" }
  scope:run({ seconds = 300 }, os.getenv "KAFKA_TOOL", support.brokers, "load", topic, tostring(PARTITIONS),
    tostring(count), tostring(size))
  return topic
end

-- "RECORDS SECONDS" from a process' output: records per second.
local function rate(text, want)
  local records, seconds = text:match("(%d+) ([%d.]+)\n")
  assert(records and tonumber(records) >= want, "a consumer stopped early: " .. text:sub(-2000))
  return tonumber(records) / tonumber(seconds)
end

local function environment(topic, count)
  return support.merge(support.kafka "plaintext", {
    KAFKA_TOPIC = topic, CONSUMER_GROUP = support.name "bench", BENCH_COUNT = tostring(count),
  })
end

-- The lines of its log go where kcat's do.
local function quiet(script)
  return "/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh", support.rouse, "run", script
end

local function raw(topic, count)
  return os.getenv "BENCH_RAW", support.brokers, topic, tostring(PARTITIONS), tostring(count), table.unpack(fetch)
end

local function kcat(topic, count)
  local words = { "/bin/sh", "-c", 'exec kcat "$@" >/dev/null', "sh", "-C", "-q", "-b", support.brokers, "-t", topic,
    "-o", "beginning", "-c", tostring(count), "-f", "%o\n" }
  for _, property in ipairs(fetch) do
    table.move({ "-X", property }, 1, 2, #words + 1, words)
  end
  return table.unpack(words)
end

local function timed(scope, ...)
  local start = task.monotonic()
  scope:run(...)
  return task.monotonic() - start
end

local function throughput(scope, count, size, rounds)
  local topic = load(scope, count, size)
  -- Headers are left unread, as the others beside leave them; reading them is a contestant of its own.
  local function rouse(name, script, headers)
    local env = { BENCH_HEADERS = headers and "true" }
    return { name = name, run = function()
      return rate(scope:run({ env = support.merge(environment(topic, count), env) }, quiet(script)), count)
    end }
  end
  local contestants = {
    { name = "librdkafka alone", run = function() return rate(scope:run(raw(topic, count)), count) end },
    rouse('handle "done"', "bench/handle.lua"),
    rouse("the same, headers read", "bench/handle.lua", true),
    rouse("handle_batch", "bench/handle_batch.lua"),
    rouse("handle, json.decode", "bench/json.lua"),
    rouse("handle, a log line each", "bench/logging.lua"),
    -- From its first record to its last, as the others: a run for one record is taken off.
    { name = "kcat, printing offsets", run = function()
      return (count - 1) / (timed(scope, kcat(topic, count)) - timed(scope, kcat(topic, 1)))
    end },
  }
  contestants[1].run() -- the broker and the page cache are warm from here on
  local rates = figures.alternate(contestants, rounds)
  local yardstick, other = median(rates[1]), median(rates[#contestants])
  say("consumer, %d records of %d bytes, %d partitions, median of %d alternating rounds (least, most):",
    count, size, PARTITIONS, rounds)
  for i, contestant in ipairs(contestants) do
    local m, least, most = median(rates[i])
    say("  %-24s %8.0f records/s (%.0f, %.0f), %.2f of librdkafka alone, %.2f of kcat", contestant.name, m, least, most,
      m / yardstick, m / other)
  end
end

--- Records per second of the consumer, of librdkafka alone and of kcat.
function bench.throughput(scope)
  local count, rounds = number("BENCH_RECORDS", 2000000), number("BENCH_ROUNDS", 7)
  throughput(scope, count, 100, rounds)
  throughput(scope, count // 4, 1024, rounds)
end

-- The most memory a process had.
local function peak(scope, options)
  local process = scope:spawn(options)
  local most = 0
  while not process:ended() do
    most = math.max(most, figures.peak(process.child:pid()) or 0)
    task.sleep(0.01)
  end
  local code = process:finish()
  assert(code == 0, process:text():sub(-2000))
  return most / 1024
end

--- The most memory that a drain takes.
function bench.memory(scope)
  local bytes, size = number("BENCH_BYTES", 1000000000), 1000
  local count = bytes // size
  local topic = load(scope, count, size)
  say("resident memory at its highest, %d records of %d bytes, %d partitions:", count, size, PARTITIONS)
  for _, case in ipairs {
    { 'handle "done"', quiet "bench/handle.lua" }, { "handle_batch", quiet "bench/handle_batch.lua" },
    { "handle that waits", quiet "bench/waiting.lua" }, { "librdkafka alone", raw(topic, count) },
    { "kcat", kcat(topic, count) },
  } do
    say("  %-24s %6.1f MiB", case[1], peak(scope, {
      command = table.move(case, 2, #case, 1, {}), env = environment(topic, count) }))
  end
end

--- Dead letters per second, beside kcat writing as many records.
function bench.letters(scope)
  local count, rounds = number("BENCH_LETTERS", 20000), number("BENCH_ROUNDS", 3)
  local topic, dead = load(scope, count, 100), scope:topic { partitions = PARTITIONS, prefix = "dead" }
  local rates = figures.alternate({
    { run = function()
      return rate(scope:run({ env = support.merge(environment(topic, count), { BENCH_DEAD = dead }) },
        quiet "bench/letters.lua"), count)
    end },
    { run = function()
      return count / timed(scope, "/bin/sh", "-c", 'kcat -C -q -e -b "$1" -t "$2" | kcat -P -b "$1" -t "$3"', "sh",
        support.brokers, topic, dead)
    end },
  }, rounds)
  say("dead letters, %d of 100 bytes, median of %d rounds: %.0f/s; kcat to kcat %.0f/s", count, rounds,
    (median(rates[1])), (median(rates[2])))
end

return bench
