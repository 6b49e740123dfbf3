-- The dead letter benchmark's consumer: nothing is good enough. The last record comes when the letters of nearly all others are
-- acknowledged.
local meter = require "meter"
local want, count = meter.want, 0

return {
  consume = { idle_exit = 1, dead = os.getenv "BENCH_DEAD" },
  handle = function()
    if count == 0 then meter.start() end
    count = count + 1
    if count == want then meter.stop() end
    return "dead", "a benchmark"
  end,
}
