-- The throughput benchmark's consumer: a record at a time.
local meter = require "meter"
local want, count = meter.want, 0

return {
  consume = { idle_exit = 1, headers = os.getenv "BENCH_HEADERS" == "true" },
  handle = function()
    if count == 0 then meter.start() end
    count = count + 1
    if count == want then meter.stop() end
    return "done"
  end,
}
