--- A place for tasks that must outlive whoever asked for them. A task ends what it spawned when it
--- returns, so a token fetch that several callers share, or a process that a request started,
--- cannot be the child of one of them. A nursery belongs to the task that opened it and ends with
--- it.
local task = require "rouse.task"

---@class rouse.nursery
---@field private queue table
---@field private keeper table
local Nursery = { __name = "rouse.nursery" }
Nursery.__index = Nursery

local nursery = {}

--- Opens a nursery; to be called inside a task.
---@return rouse.nursery
function nursery.new()
  local queue = task.queue()
  local keeper = task.spawn(function()
    while true do task.spawn(queue:get()) end
  end)
  return setmetatable({ queue = queue, keeper = keeper }, Nursery)
end

--- Runs a function as a task of the nursery, soon.
---@param fn fun()
function Nursery:spawn(fn)
  assert(self.keeper, "nursery: closed")
  self.queue:put(fn)
end

--- Cancels what runs here and waits until it has ended.
function Nursery:close()
  local keeper = self.keeper
  if not keeper then return end
  self.keeper = nil
  keeper:cancel()
  keeper:join()
end

return nursery
