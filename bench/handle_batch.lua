-- The throughput benchmark's consumer: a batch at a time.
local meter = require "meter"
local want, count = meter.want, 0

return {
  consume = { idle_exit = 1, headers = false },
  handle_batch = function(records)
    if count == 0 then meter.start() end
    count = count + #records
    if count >= want then meter.stop() end
    return "done"
  end,
}
