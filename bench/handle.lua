-- The throughput benchmark's consumer: a record at a time.
local meter = require "meter"

return {
  consume = { idle_exit = 1 },
  handle = function()
    meter.add(1)
    return "done"
  end,
}
