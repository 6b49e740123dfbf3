-- The throughput benchmark's consumer: a record at a time, whose value is decoded.
local json = require "rouse.json"
local meter = require "meter"
local want, count = meter.want, 0

return {
  consume = { idle_exit = 1, headers = false },
  handle = function(record)
    if count == 0 then meter.start() end
    count = count + 1
    local payment = json.decode(record.value)
    if not payment.id then return "dead", "no id" end
    if count == want then meter.stop() end
    return "done"
  end,
}
