-- The throughput benchmark's consumer: a line of the log for each record, as the packaged script writes it.
local log = require "rouse.log"
local meter = require "meter"
local want, count = meter.want, 0

return {
  consume = { idle_exit = 1, headers = false },
  handle = function(record)
    if count == 0 then meter.start() end
    count = count + 1
    log.info("record", log.place(record))
    if count == want then meter.stop() end
    return "done"
  end,
}
