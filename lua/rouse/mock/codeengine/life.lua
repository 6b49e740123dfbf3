--- How a run of the mock Code Engine lives: by time, by a test's hand, or as told by real
--- processes. Pure: the clock is an argument.
local instances = require "rouse.target.instances"

---@class rouse.mock.timing
---@field pending number? seconds until the instances run
---@field running number? seconds until they end, from then; nil for never
---@field result "succeeded"|"failed"|nil
---@field executed boolean? real processes say the rest

---@class rouse.mock.change
---@field index integer? nil: all of them
---@field status rouse.instance.status
---@field reason string?

local life = {}

--- Gives a new run its instances. `timing` moves them by time: pending (seconds until they run) and
--- running (seconds until they end; nil for never), both from the run's creation on.
---@param run table
---@param indices integer[]
---@param timing rouse.mock.timing
function life.begin(run, indices, timing)
  run.instances = instances.new(indices)
  run.timing = timing
end

local ORDER = { requested = 1, pending = 2, running = 3, succeeded = 4, failed = 4 }

--- Moves a run on to where it should be at `now`. Runs of real processes only become pending here.
---@param run table
---@param now number epoch seconds
function life.advance(run, now)
  local timing, age = run.timing, now - run.created_at
  local target = "pending"
  if not timing.executed and not run.held then
    local starts = timing.pending or 0
    if age >= starts then target = "running" end
    if timing.running and age >= starts + timing.running then
      target = timing.result or "succeeded"
    end
  end
  for index, instance in run.instances:each() do
    if instance.status ~= "unknown" and ORDER[instance.status] < ORDER[target] then
      if ORDER[target] == 4 and not instance.started_at then
        run.instances:set(index, "running", now)
      end
      run.instances:set(index, target, now)
    end
  end
end

--- Moves instances by hand. From then on time moves this run no more.
---@param run table
---@param now number
---@param change rouse.mock.change
---@return boolean moved
function life.set(run, now, change)
  local moved = false
  run.held = true
  for index, instance in run.instances:each() do
    if change.index == nil or change.index == index then
      local finishes = change.status == "succeeded" or change.status == "failed"
      if finishes and not instance.started_at then run.instances:set(index, "running", now) end
      moved = run.instances:set(index, change.status, now, { reason = change.reason }) or moved
    end
  end
  return moved
end

--- Tells whether all instances of a run have finished.
---@param run table
---@return boolean
function life.finished(run)
  local status = run.instances:status()
  return status == "completed" or status == "failed"
end

return life
