--- The instances of one job run and what Code Engine would show of them. Pure; used where runs are
--- really started: by the process target and the mock Code Engine.
---@alias rouse.instance.status "requested"|"pending"|"running"|"succeeded"|"failed"|"unknown"

---@class rouse.instances
---@field indices integer[]
---@field private by_index table<integer, table>
local Instances = { __name = "rouse.instances" }
Instances.__index = Instances

local instances = {}

local BUCKETS = { "requested", "pending", "running", "succeeded", "failed", "unknown" }
local KNOWN = {}
for _, name in ipairs(BUCKETS) do KNOWN[name] = true end

--- Makes the instances of a run, all requested.
---@param indices integer[] ascending
---@return rouse.instances
function instances.new(indices)
  local by_index = {}
  for _, index in ipairs(indices) do by_index[index] = { status = "requested", retries = 0 } end
  return setmetatable({ indices = indices, by_index = by_index }, Instances)
end

--- Moves an instance. Unknown indices are ignored, and so is news of a finished instance.
---@param index integer
---@param status rouse.instance.status
---@param now number epoch seconds
---@param details { reason: string?, retries: integer? }?
---@return boolean moved
function Instances:set(index, status, now, details)
  assert(KNOWN[status], "no such status")
  local instance = self.by_index[index]
  if not instance or instance.finished_at then return false end
  instance.status = status
  if details and details.reason then instance.reason = details.reason end
  if details and details.retries then instance.retries = details.retries end
  if status == "running" then instance.started_at = now end
  if status == "succeeded" or status == "failed" then instance.finished_at = now end
  return true
end

--- Returns an instance's status, nil where there is none.
---@param index integer
---@return rouse.instance.status?
function Instances:status_of(index)
  return self.by_index[index] and self.by_index[index].status
end

--- Calls for each index in ascending order.
---@return fun(): integer?, table?
function Instances:each()
  local at = 0
  return function()
    at = at + 1
    local index = self.indices[at]
    return index, index and self.by_index[index]
  end
end

--- Counts the instances by status and lists their indices.
---@return table<rouse.instance.status, integer[]>
function Instances:buckets()
  local buckets = {}
  for _, name in ipairs(BUCKETS) do buckets[name] = {} end
  for index, instance in self:each() do
    local bucket = buckets[instance.status]
    bucket[#bucket + 1] = index
  end
  return buckets
end

--- Derives the run's status: pending until one instance runs, then running until all have finished.
---@return "pending"|"running"|"completed"|"failed" status
---@return number? completed_at
function Instances:status()
  local finished, failed, started, last = 0, false, false, nil
  for _, instance in self:each() do
    if instance.finished_at then
      finished = finished + 1
      last = math.max(last or instance.finished_at, instance.finished_at)
    end
    failed = failed or instance.status == "failed"
    started = started or instance.started_at ~= nil or instance.finished_at ~= nil
  end
  if finished == #self.indices then return failed and "failed" or "completed", last end
  return started and "running" or "pending"
end

--- Adds status, counts and index lists to a run table.
---@param target table
---@return table target
function Instances:describe(target)
  local buckets = self:buckets()
  target.status, target.completed_at = self:status()
  for _, name in ipairs(BUCKETS) do target[name] = #buckets[name] end
  target.succeeded_indices = buckets.succeeded
  target.failed_indices = buckets.failed
  return target
end

return instances
