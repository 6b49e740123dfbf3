-- The memory benchmark's consumer that is slower than the broker: it waits for something now and then.
local task = require "rouse.task"

return {
  consume = { idle_exit = 1 },
  handle = function(record)
    if record.offset % 100 == 0 then task.sleep(0.001) end
    return "done"
  end,
}
