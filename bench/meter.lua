-- Counts a benchmark's records and prints "RECORDS SECONDS", first to last, when all of them are there.
local task = require "rouse.task"

local meter = {}
local want = tonumber(os.getenv "BENCH_COUNT")
local count, first = 0, nil

--- Counts n more records.
---@param n integer
function meter.add(n)
  first = first or task.monotonic()
  count = count + n
  if count >= want then
    print(("%d %.6f"):format(count, task.monotonic() - first))
    want = math.huge
  end
end

return meter
