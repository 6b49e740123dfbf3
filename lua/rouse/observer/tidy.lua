--- A start takes several times the memory of what stays: it is given back when the start is over, and so is, now and then, what
--- a burst took.
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local tidy = {}

-- Seconds. The doorbell's partitions have moved to where they stay by then, and no minute's reading of commits is under way.
local FIRST, EVERY = 55, 600

--- Runs until it is cancelled.
function tidy.run()
  local pause = FIRST
  while true do
    task.sleep(pause)
    collectgarbage()
    sys.trim()
    pause = EVERY
  end
end

return tidy
