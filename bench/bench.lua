-- The figures, printed and never asserted. Run by bench/run, beside a real broker; without arguments all of them.
local support = require "spec.kafka.support"

-- In the order in which they run.
local order = { "start", "burst", "single", "latency", "crowd", "rearm", "payload", "idle", "bursts", "letters",
  "memory", "throughput" }
local benches = {}
for _, module in ipairs { "bench.observer", "bench.bursts", "bench.consumer", "bench.start" } do
  for name, measure in pairs(require(module)) do
    benches[name] = measure
  end
end

local wanted = #arg > 0 and arg or order
local failed = false
for _, name in ipairs(wanted) do
  local measure = benches[name] or error("no benchmark '" .. name .. "'", 0)
  local failure = support.run(measure, 1800)
  if failure then
    failed = true
    print(name .. ": " .. tostring(failure))
  end
end
os.exit(failed and 1 or 0, true)
