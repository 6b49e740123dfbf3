-- Runs inside embed.c: `stock` is the program's, everything else is Rouse's.
local stock = require "stock"
local task = require "rouse.task"

return function(ctx)
  local wanted = math.tointeger(ctx.args[1] or "4")
  print(("%s: %d"):format(ctx.args[2] or "stock", stock.left()))
  local taking = {}
  for i = 1, 3 do
    taking[i] = task.spawn(function()
      task.sleep(0.001 * i) -- tasks wait side by side; the functions of C are called between the waits
      return stock.take(wanted)
    end)
  end
  for i = 1, 3 do
    local left, message, code = taking[i]:join()
    if code == "ERROR" then error(message, 0) end -- a mistake in a task, not an answer
    print(left or ("%s (%s)"):format(message, code))
  end
end
