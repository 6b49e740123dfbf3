--- Plays seeds, and makes a failing schedule small: steps are left out as long as the same invariant breaks.
local schedule = require "rouse.sim.schedule"
local world = require "rouse.sim.world"

local campaign = {}

local REST = 2400 -- seconds after the last fault within which everything has to have been consumed

local function copy(config, steps)
  local result = {}
  for name, value in pairs(config) do
    result[name] = value
  end
  result.steps = {}
  for i, step in ipairs(steps) do
    result.steps[i] = step
  end
  return setmetatable(result, nil)
end

local function busy(w)
  if w.oracle:waiting() then
    return true
  end
  for _, run in ipairs(w.project.runs) do
    if run.live > 0 then
      return true
    end
  end
  return false
end

--- Plays one schedule to its end.
---@param config rouse.sim.Config
---@param traced boolean? keep what happens in world.trace
---@return table world with `violation` when an invariant broke
function campaign.play(config, traced)
  local w
  local ok, message = xpcall(function()
    w = world.new(copy(config, config.steps))
    w.trace = traced and {} or nil
    local calm = config.calm or 0
    w:run_until(calm)
    w:post(0, "step", { step = { kind = "calm" } })
    for id in ipairs(w.observers) do
      w:post(0, "step", { step = { kind = "boot", observer = id } })
    end
    local stop = calm
    repeat
      stop = stop + 60
      w:run_until(stop)
    until w.violation or (stop > calm + 120 and not busy(w)) or stop > calm + REST
    if not w.violation and busy(w) then
      w:violate("W1", "something still waits %d seconds after the last fault", REST)
    end
  end, debug.traceback)
  if not ok then
    w = w or { count = 0 }
    w.violation = { invariant = "error", message = message, at = w.clock and w:elapsed() or 0 }
  end
  return w
end

--- The smallest schedule found that breaks the same invariant.
---@param config rouse.sim.Config
---@param invariant string
---@return table[] steps
function campaign.shrink(config, invariant, tries)
  local steps, left = config.steps, tries or 400
  local function fails(candidate)
    left = left - 1
    local w = campaign.play(copy(config, candidate))
    return w.violation and w.violation.invariant == invariant
  end
  local size = math.max(1, #steps // 2)
  while size >= 1 and left > 0 do
    local first, dropped = 1, false
    while first <= #steps and left > 0 do
      local candidate = {}
      for i, step in ipairs(steps) do
        if i < first or i >= first + size then
          candidate[#candidate + 1] = step
        end
      end
      if #candidate < #steps and fails(candidate) then
        steps, dropped = candidate, true
      else
        first = first + size
      end
    end
    size = (dropped and size == 1) and 1 or size // 2
  end
  return steps
end

local function describe(config)
  local lines = { ("world: %d observer(s), latency up to %g s, status up to %g s late%s"):format(config.observers,
    config.latency[2], config.status_delay[2], config.vanish and ", finished runs vanish" or "") }
  for _, route in ipairs(config.routes) do
    for _, job in ipairs(route.jobs) do
      lines[#lines + 1] = ("  %s (%d partitions, reset %s) -> %s group %s assign %s dedup %g max %s idle %g"):format(
        route.topic, config.topics[route.topic] or 0, route.reset, job.name, job.group, job.assign, job.dedup_window,
        tostring(job.max_instances), job.idle_timeout)
    end
  end
  return table.concat(lines, "\n")
end

--- A failing seed for people: the world, the smallest schedule found with what happened, and how to repeat it.
---@param config rouse.sim.Config
---@param violation table
---@return string
function campaign.report(config, violation)
  local steps = campaign.shrink(config, violation.invariant)
  local w = campaign.play(copy(config, steps), true)
  return table.concat({
    ("seed %d breaks %s at %.3f: %s"):format(config.seed, violation.invariant, violation.at, violation.message),
    describe(config), ("schedule: %d of %d steps are left"):format(#steps, #config.steps),
    table.concat(w.trace or {}, "\n"), w.violation and w.violation.message or "",
    ("repeat: make sim SEED=%d SEEDS=1"):format(config.seed),
  }, "\n")
end

--- Plays `count` seeds from `first`.
---@param first integer
---@param count integer
---@param how { report: fun(text: string)?, most: integer? }? most: stop after so many violations
---@return { seeds: integer, steps: integer, submits: integer, violations: integer, failed: integer[] }
function campaign.run(first, count, how)
  how = how or {}
  local result = { seeds = 0, steps = 0, submits = 0, runs = 0, empty = 0, violations = 0, failed = {} }
  for seed = first, first + count - 1 do
    local config = schedule.new(seed)
    local w = campaign.play(config)
    result.seeds, result.steps = result.seeds + 1, result.steps + w.count
    if w.oracle then
      local stats = w.oracle.stats
      result.submits, result.runs = result.submits + stats.submits, result.runs + stats.wakes
      result.empty = result.empty + stats.empty
    end
    if w.violation then
      result.violations = result.violations + 1
      result.failed[#result.failed + 1] = seed
      if how.report then
        how.report(campaign.report(config, w.violation))
      end
      if result.violations >= (how.most or 1) then
        break
      end
    end
  end
  return result
end

return campaign
