--- How fast a consumer is, beside a raw librdkafka loop and kcat in the same run.
local figures = require "bench.figures"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local median, number, say = figures.median, figures.number, figures.say

local bench = {}

-- "RECORDS SECONDS" from a process' output: records per second.
local function rate(text, want)
  local records, seconds = text:match("(%d+) ([%d.]+)\n")
  assert(records and tonumber(records) >= want, "a consumer stopped early: " .. text:sub(-2000))
  return tonumber(records) / tonumber(seconds)
end

--- Records per second of the consumer, of librdkafka alone and of kcat, alternating.
function bench.throughput(scope)
  local records, rounds = number("BENCH_RECORDS", 2000000), number("BENCH_ROUNDS", 5)
  local size, partitions = 100, 4
  local topic = scope:topic { partitions = partitions, prefix = "load" }
  local count = tostring(records)
  scope:run(os.getenv "KAFKA_TOOL", support.brokers, "load", topic, tostring(partitions), count,
    tostring(size))
  local fetch = {
    "fetch.max.bytes=4000000", "queued.min.messages=1000000", "queued.max.messages.kbytes=16384",
  }

  local function rouse(script)
    return function()
      return rate(scope:run({
        env = support.merge(support.kafka "plaintext", {
          KAFKA_TOPIC = topic, CONSUMER_GROUP = support.name "bench", BENCH_COUNT = count,
          ROUSE_KAFKA = "security.protocol=plaintext;" .. table.concat(fetch, ";"),
        }),
        -- the lines of the log go where kcat's do
      }, "/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh", support.rouse, "run", script), records)
    end
  end
  local contestants = {
    { name = "librdkafka alone", run = function()
      return rate(scope:run(os.getenv "BENCH_RAW", support.brokers, topic, tostring(partitions),
        count, table.unpack(fetch)), records)
    end },
    { name = 'rouse, handle "done"', run = rouse "bench/handle.lua" },
    { name = "rouse, handle_batch", run = rouse "bench/handle_batch.lua" },
    { name = "rouse, a log line each", run = rouse "bench/logging.lua" },
    { name = "kcat, printing offsets", run = function()
      local start = task.monotonic()
      scope:run("/bin/sh", "-c", 'exec kcat "$@" >/dev/null', "sh", "-C", "-q",
        "-b", support.brokers, "-t", topic, "-o", "beginning", "-c", count, "-f", "%o\n",
        "-X", fetch[1])
      return records / (task.monotonic() - start)
    end },
  }
  local rates = {}
  for _ = 1, rounds do
    for i, contestant in ipairs(contestants) do
      rates[i] = rates[i] or {}
      table.insert(rates[i], contestant.run())
    end
  end
  local yardstick = median(rates[1])
  say("consumer, %d records of %d bytes, %d partitions, median of %d alternating rounds:",
    records, size, partitions, rounds)
  for i, contestant in ipairs(contestants) do
    local m = median(rates[i])
    say("  %-24s %9.0f records/s, %.2f of librdkafka alone", contestant.name, m, m / yardstick)
  end
end

return bench
