--- Tasks: coroutines on the loop. Calls that wait look like plain calls, take `timeout` in seconds and return
--- `nil, message, code` when they fail; they work in any task. A task ends when the tasks it started have ended; those still
--- running when its function returns are cancelled.
local core = require "rouse.core.task"

local task = {
  spawn = core.spawn,
  sleep = core.sleep,
  park = core.park,
  current = core.current,
  now = core.now,
  monotonic = core.monotonic,
  run = core.run,
  guard = core.guard,
  cursor = core.cursor,
  handles = core.handles,
  memory = core.memory,
}

--- Runs fn in a task of its own for at most `seconds`; then it is cancelled.
---@param seconds number
---@param fn function
---@return any ... results of fn, or nil, message, code ("TIMEDOUT" when the time was over)
function task.within(seconds, fn, ...)
  local child = core.spawn(fn, ...)
  local results = table.pack(child:join(seconds))
  if results[1] == nil and results[3] == "TIMEDOUT" then
    child:cancel()
  end
  return table.unpack(results, 1, results.n)
end

local Event = { __name = "rouse.event" }
Event.__index = Event

--- A flag that tasks wait for.
function task.event()
  return setmetatable({ waiting = {}, value = false }, Event)
end

--- Raises the flag: everybody who waits goes on.
function Event:set()
  self.value = true
  for waiting in pairs(self.waiting) do
    waiting:unpark()
  end
  self.waiting = {}
end

function Event:clear()
  self.value = false
end

function Event:is_set()
  return self.value
end

--- Waits until the flag is up.
---@param timeout number? seconds
---@return true|nil, string?, string?
function Event:wait(timeout)
  local deadline = timeout and core.monotonic() + timeout
  local me = core.current()
  while not self.value do
    self.waiting[me] = true
    local left = deadline and math.max(0, deadline - core.monotonic())
    local ok, message, code = core.park(left or -1)
    if not ok and not self.value then
      self.waiting[me] = nil
      return nil, message, code
    end
  end
  return true
end

local Queue = { __name = "rouse.queue" }
Queue.__index = Queue

--- An unbounded first-in first-out queue between tasks.
function task.queue()
  return setmetatable({ first = 1, last = 0, filled = task.event() }, Queue)
end

function Queue:put(value)
  self.last = self.last + 1
  self[self.last] = value
  self.filled:set()
end

function Queue:size()
  return self.last - self.first + 1
end

--- The oldest value; waits while there is none.
---@param timeout number? seconds
---@return any|nil, string?, string?
function Queue:get(timeout)
  local deadline = timeout and core.monotonic() + timeout
  while self.first > self.last do
    self.filled:clear()
    local ok, message, code = self.filled:wait(deadline and math.max(0, deadline - core.monotonic()))
    if not ok then
      return nil, message, code
    end
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  return value
end

--- Replacements for the coroutine library that keep a script's own coroutines under its CPU limit.
task.coroutine = {
  create = core.cocreate,
  resume = coroutine.resume,
  yield = coroutine.yield,
  status = coroutine.status,
  isyieldable = coroutine.isyieldable,
  running = coroutine.running,
  close = coroutine.close,
}

function task.coroutine.wrap(fn)
  local co = core.cocreate(fn)
  local function check(ok, ...)
    if not ok then
      error((...), 0)
    end
    return ...
  end
  return function(...)
    return check(coroutine.resume(co, ...))
  end
end

return task
