--- An in-memory Code Engine: job runs with unique names, instances per index, and a quota. What it shows may lag behind what is
--- so (`shown`); what is so is in `instances`. Plain data; faults and latencies are the world's.
local Project = { __name = "rouse.sim.codeengine" }
Project.__index = Project

local codeengine = {}

codeengine.QUOTA = 100

---@param options { jobs: table<string, table<string, string>>, quota: integer?, vanish: boolean? } jobs: environment of each
function codeengine.new(options)
  return setmetatable({
    jobs = options.jobs, quota = options.quota or codeengine.QUOTA, vanish = options.vanish, runs = {}, by_name = {},
    ended = {}, created = 0, removed = 0, version = 0, history = {},
  }, Project)
end

local function copy(run)
  local result = {}
  for name, value in pairs(run) do
    result[name] = value
  end
  return result
end

--- Every run as the API shows it.
function Project:list()
  local list = {}
  for i, run in ipairs(self.runs) do
    list[i] = copy(run.shown)
  end
  return list
end

function Project:get(name)
  local run = self.by_name[name]
  return run and copy(run.shown)
end

--- Remembers the list as it is, for listings that answer with an older state.
function Project:remember(clock)
  local history = self.history
  history[#history + 1] = { clock = clock, runs = self:list() }
  if #history > 4 then
    table.remove(history, 1)
  end
end

--- The oldest state still remembered.
---@return table[]|nil runs, number? clock
function Project:recall()
  local old = self.history[1]
  if not old then
    return nil
  end
  local list = {}
  for i, run in ipairs(old.runs) do
    list[i] = copy(run)
  end
  return list, old.clock
end

--- Creates a run. Its instances wait until they are started.
---@param wake { job: string, name: string, indices: integer[], env: table<string, string> }
---@return table|nil run, string? code
function Project:create(wake, wall)
  if not self.jobs[wake.job] then
    return nil, "NOT_FOUND"
  elseif self.by_name[wake.name] then
    return nil, "CONFLICT"
  elseif #self.runs >= self.quota then
    return nil, "QUOTA"
  end
  local run = { name = wake.name, job = wake.job, env = wake.env, instances = {}, live = #wake.indices }
  for _, index in ipairs(wake.indices) do
    run.instances[index] = { index = index, state = "pending" }
  end
  run.shown = {
    name = wake.name, job = wake.job, created_at = wall, status = "pending", requested = 0, pending = #wake.indices,
    running = 0, succeeded = 0, failed = 0, indices = wake.indices, succeeded_indices = {}, failed_indices = {},
    env = wake.env,
  }
  self.runs[#self.runs + 1] = run
  self.by_name[wake.name] = run
  self.created = self.created + 1
  self.version = self.version + 1
  return run
end

local function with(list, value)
  local result = { value }
  for _, item in ipairs(list) do
    result[#result + 1] = item
  end
  table.sort(result)
  return result
end

--- Shows that an instance runs now.
function Project:show_running(run)
  local shown = run.shown
  shown.status, shown.pending, shown.running = "running", math.max(0, shown.pending - 1), shown.running + 1
end

--- Shows that an instance has ended; the run is over with its last one, and may then vanish by itself.
function Project:show_ended(run, index, ok, wall, clock)
  local shown = run.shown
  if shown.running > 0 then
    shown.running = shown.running - 1
  else
    shown.pending = math.max(0, shown.pending - 1)
  end
  local count, indices = ok and "succeeded" or "failed", ok and "succeeded_indices" or "failed_indices"
  shown[count], shown[indices] = shown[count] + 1, with(shown[indices], index)
  if shown.succeeded + shown.failed == #shown.indices then
    shown.status, shown.completed_at = shown.failed > 0 and "failed" or "completed", wall
    if self.vanish then
      self:remove(run.name)
      self.vanished = clock
    end
  end
  self.version = self.version + 1
end

function Project:remove(name)
  local run = self.by_name[name]
  if not run then
    return false
  end
  self.by_name[name] = nil
  for i, candidate in ipairs(self.runs) do
    if candidate == run then
      table.remove(self.runs, i)
    end
  end
  self.removed = self.removed + 1
  self.version = self.version + 1
  return true
end

return codeengine
