-- Counts the loop's handles once what earlier specs dropped is collected: what a spec leaves behind is the difference.
local task = require "rouse.task"

return function()
  collectgarbage()
  collectgarbage()
  return (task.handles())
end
