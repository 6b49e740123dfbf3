--- Coverage: what the run list says about who serves which partition (pure). Read from the list alone, never from what a
--- submitter wanted: a run that is not completed or failed covers its indices minus those that succeeded or failed.
local coverage = {}

---@class rouse.Run a job run as targets report it
---@field name string
---@field job string
---@field status "pending"|"running"|"completed"|"failed"|nil
---@field created_at number? epoch seconds
---@field completed_at number? epoch seconds
---@field requested integer?
---@field pending integer?
---@field running integer?
---@field failed integer?
---@field indices integer[]
---@field succeeded_indices integer[]
---@field failed_indices integer[]
---@field env table<string, string>

--- Whether a run is over. A run without a status has just been accepted.
---@param run rouse.Run
function coverage.finished(run)
  return run.status == "completed" or run.status == "failed"
end

--- The indices whose instances have not ended.
---@param run rouse.Run
---@return integer[]
function coverage.live(run)
  if coverage.finished(run) then
    return {}
  end
  local ended, live = {}, {}
  for _, list in ipairs { run.succeeded_indices or {}, run.failed_indices or {} } do
    for _, index in ipairs(list) do
      ended[index] = true
    end
  end
  for _, index in ipairs(run.indices or {}) do
    if not ended[index] then
      live[#live + 1] = index
    end
  end
  return live
end

--- Active instances as Code Engine counts them; without details every index that has not ended counts.
---@param run rouse.Run
---@return integer
function coverage.active(run)
  if coverage.finished(run) then
    return 0
  end
  if run.requested or run.pending or run.running then
    return (run.requested or 0) + (run.pending or 0) + (run.running or 0)
  end
  return #coverage.live(run)
end

--- A run's variable, else its job's.
local function setting(run, jobs, name)
  local own = run.env and run.env[name]
  if own ~= nil then
    return own
  end
  local job = jobs[run.job]
  return job and job[name]
end

--- Whether the run consumes `topic` (a run that names no topic may consume any).
local function consumes(run, jobs, topic)
  local topics = setting(run, jobs, "KAFKA_TOPIC")
  if topics == nil or topics == "" then
    return true
  end
  for name in topics:gmatch("[^,%s]+") do
    if name == topic then
      return true
    end
  end
  return false
end

---@class rouse.Coverage
---@field index table<string, table<integer, boolean>> topic → partitions that an index run covers
---@field instances integer live instances of group runs that touch the unit's topics
---@field active integer requested + pending + running of all runs counted
---@field runs rouse.Run[] the unfinished runs counted

--- What covers a (job, group) pair.
---@param runs rouse.Run[] the list
---@param unit { job: string, group: string?, topics: table<string, any> } group nil (claims mode): the job's own runs
---@param jobs table<string, table<string, string>> job → environment of its definition
---@return rouse.Coverage
function coverage.of(runs, unit, jobs)
  local result = { index = {}, instances = 0, active = 0, runs = {} }
  for _, run in ipairs(runs) do
    local same
    if unit.group then
      local group = setting(run, jobs, "CONSUMER_GROUP")
      same = group == unit.group or (group == nil and run.job == unit.job)
    else
      same = run.job == unit.job
    end
    if same and not coverage.finished(run) then
      local index = setting(run, jobs, "ROUSE_ASSIGN") == "index"
      local touched = false
      for topic in pairs(unit.topics) do
        if consumes(run, jobs, topic) then
          touched = true
          if index then
            local covered = result.index[topic] or {}
            result.index[topic] = covered
            for _, i in ipairs(coverage.live(run)) do
              covered[i] = true
            end
          end
        end
      end
      if touched then
        result.runs[#result.runs + 1] = run
        result.active = result.active + coverage.active(run)
        if not index then
          result.instances = result.instances + #coverage.live(run)
        end
      end
    end
  end
  return result
end

return coverage
