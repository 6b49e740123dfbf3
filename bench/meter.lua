-- Says how fast a benchmark's records came: prints "RECORDS SECONDS", first to last, when all of them are there. Handlers count
-- by themselves, as the raw loop does.
local task = require "rouse.task"

local meter = { want = tonumber(os.getenv "BENCH_COUNT") }
local first

--- The first record is there.
function meter.start()
  first = task.monotonic()
end

--- The last record is there.
function meter.stop()
  print(("%d %.6f"):format(meter.want, task.monotonic() - first))
end

return meter
