--- Asking the rule (pure): which open parts may be tried now, what the rule sees, and what its verdict means.
local attempts = require "rouse.wake.attempts"
local facts = require "rouse.wake.facts"
local reasons = require "rouse.wake.reasons"
local renewal = require "rouse.wake.renewal"
local runs = require "rouse.wake.runs"
local submit = require "rouse.wake.submit"
local watch = require "rouse.wake.watch"

-- No submit rests on facts older than FRESH, the request's own time-out included.
local FRESH, SUBMIT_TIMEOUT = 120, 30

--- The job as rules see it (the contract of decide).
local function view(engine, unit, attempt)
  local job = {}
  for name, value in pairs(unit.spec) do
    job[name] = value
  end
  job.name, job.group, job.mode, job.assign = unit.job, unit.group, unit.mode, unit.assign
  job.active, job.attempt = unit.active, attempt
  job.partitions, job.runs = {}, {}
  for _, part in ipairs(unit.parts) do
    if not part.foreign then
      job.partitions[#job.partitions + 1] = {
        topic = part.topic, partition = part.partition, committed = part.committed or nil, low = part.low,
        end_offset = part.end_offset, lag = unit.mode == "lag" and facts.lag(part) or nil,
        work = part.work or false, covered = part.covered or false, error = part.error,
      }
    end
  end
  local last = unit.last_wake
  for _, run in ipairs(engine.targets[unit.target].runs) do
    local created = run.job == unit.job and engine.created[run.name]
    last = created and math.max(created, last or created) or last
  end
  -- Counted back on the monotonic clock: a clock on the wall that was set back must not make a window of hours.
  job.last_wake = last and engine.now - (engine.clock - last)
  for i, run in ipairs(unit.running) do
    job.runs[i] = {
      name = run.name, created_at = run.created_at, status = run.status, requested = run.requested,
      pending = run.pending, running = run.running,
      indices = table.move(run.indices or {}, 1, #(run.indices or {}), 1, {}), -- the rule's own: the list is the engine's
    }
  end
  return job
end

--- Which open parts may be tried now; those whose last runs made no progress wait.
---@return table eligible, integer attempt, number wait, string code, table fields why the others wait
local function eligible_parts(engine, unit, open)
  local eligible, highest, wait, code, attempts_made = {}, 1, nil, nil, nil
  if unit.mode == "claims" then
    return open, 1, 0, "wait", {}
  end
  local index = attempts.index(engine.targets[unit.target].runs, unit.job)
  for _, part in ipairs(open) do
    local attempt, since = attempts.next(part, index, engine.ended)
    part.attempt, part.retry_at = attempt, nil
    local left = since and since + attempts.delay(attempt, part) - engine.clock or 0
    local still = watch.still(part, engine.clock)
    if left > 0 then
      wait, part.retry_at = math.min(wait or left, left), engine.clock + left
      attempts_made = math.max(attempts_made or 0, attempt - 1)
      code = attempt > attempts.LIMIT and "quarantine" or code or "backoff"
    elseif still > 0 then
      wait, part.retry_at = math.min(wait or still, still), engine.clock + still
      code = code or "served"
    else
      eligible[#eligible + 1] = part
      highest = math.max(highest, attempt)
    end
  end
  return eligible, highest, wait or 0, code or "wait", { reason = reasons[code], attempts = attempts_made,
    seconds = wait }
end

--- Seconds to wait because other partitions hold records that have not rung yet: their fetch is on its way. It happens once
--- before a submit and never for a single partition's record.
local function gather(engine, unit)
  local expected = false
  for _, part in ipairs(unit.mode == "lag" and unit.parts or {}) do
    expected = expected or (not part.work and not part.covered and not part.error and not part.ignored
      and part.want ~= nil and part.start ~= nil and (part.end_offset or 0) > part.start)
  end
  if not expected then
    return 0
  end
  unit.gather_until = unit.gather_until or engine.clock + engine.gather
  return math.max(0, unit.gather_until - engine.clock)
end

--- Decides about the open parts (work and nobody covers them).
local function decide(engine, unit, open)
  local target = engine.targets[unit.target]
  if unit.not_before and engine.clock < unit.not_before then
    return engine:hold(unit, open, "submit_backoff", { reason = unit.failure, error = unit.failure_code,
      failures = unit.submit_failures }, unit.not_before - engine.clock)
  end
  local eligible, attempt, wait, code, fields = eligible_parts(engine, unit, open)
  if #eligible == 0 then
    return engine:hold(unit, open, code, fields, wait)
  end
  if not runs.has_room(engine, unit) then
    return engine:hold(unit, open, "quota",
      { runs = #target.runs, limit = engine.quota[unit.target], reason = reasons.quota }, 10)
  end
  if engine.clock - target.sent + SUBMIT_TIMEOUT > FRESH then
    unit.dirty = true
    return engine:hold(unit, open, "stale", { reason = reasons.stale })
  elseif renewal.holds(engine, unit) then
    return engine:hold(unit, open, "renewing", { reason = reasons.renewing })
  end
  local wait_left = (unit.wait_until or 0) - engine.clock
  if wait_left > 0 and not unit.rang then
    return engine:hold(unit, open, "wait", unit.decision.fields, wait_left)
  end
  local gathering = gather(engine, unit)
  if gathering > 0 then
    return engine:hold(unit, open, "gather", { reason = reasons.gather }, gathering)
  end
  unit.rang, unit.wait_until = nil, nil
  local verdict, message = engine.decide(view(engine, unit, attempt), { now = engine.now })
  local kind = type(verdict) == "table" and verdict.kind
  if kind == "wake" then
    return submit.start(engine, unit, open, eligible, verdict)
  elseif kind == "wait" then
    unit.wait_until = engine.clock + (verdict.seconds or 60)
    return engine:hold(unit, open, "wait", { reason = verdict.reason, seconds = verdict.seconds },
      verdict.seconds or 60)
  elseif kind == "ignore" then
    for _, part in ipairs(open) do
      part.ignored = part.end_offset or (part.proof and part.proof + 1)
    end
    return engine:hold(unit, open, "ignored", { reason = verdict.reason })
  end
  return engine:hold(unit, open, "rule_error",
    { reason = message or "decide returned " .. tostring(verdict) .. ", expected a verdict" }, 60)
end

return decide
