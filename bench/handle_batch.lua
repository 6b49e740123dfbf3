-- The throughput benchmark's consumer: a batch at a time.
local meter = require "meter"

return {
  consume = { idle_exit = 1 },
  handle_batch = function(records)
    meter.add(#records)
    return "done"
  end,
}
