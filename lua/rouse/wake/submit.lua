--- The submitting half of the wake engine: asking the rule, building the run, and what its answer means. Works on the
--- engine of rouse.wake and, like it, is pure.
local arrayspec = require "rouse.arrayspec"
local attempts = require "rouse.wake.attempts"
local backoff = require "rouse.backoff"
local claims = require "rouse.wake.claims"
local coverage = require "rouse.wake.coverage"
local facts = require "rouse.wake.facts"
local naming = require "rouse.wake.naming"

local submit = {}

local MAX_SPEC = 253 -- characters of scale_array_spec (facts of the API)
local MAX_MARKS = 300 -- partitions noted in a run's environment: a job run is at most 10 KiB
local FRESH, SUBMIT_TIMEOUT, KEEP = 120, 30, 240
local PERMANENT = { INVALID = true, NOT_FOUND = true, FORBIDDEN = true, UNAUTHORIZED = true }

-- ---- claims ----

--- A claimed record asks for a wake of the unit's job. A key with an open window suppresses it until the window ends.
function submit.claim(engine, unit, part, first, last, asked)
  local was = part.owed
  claims.add(part, first, last, engine.clock)
  unit.asked = unit.asked or { keys = {}, env = {} }
  local window = asked.dedup and (asked.window or unit.spec.dedup_window or 0) or 0
  local key = asked.dedup and unit.id .. "\0" .. asked.dedup
  local open_until = key and engine.windows[key]
  if open_until and open_until > engine.clock then
    if not was or was.not_before then
      part.owed.not_before = math.max(open_until, was and was.not_before or 0)
    end
    unit.due = math.min(unit.due or open_until, open_until)
    return
  end
  part.owed.not_before = nil
  if window > 0 then
    unit.asked.keys[key] = window
  end
  for name, value in pairs(asked.env or {}) do
    unit.asked.env[name] = value
  end
  unit.asked.reason = asked.reason or unit.asked.reason
  unit.dirty = true
end

--- After a listing: what covering runs made of the records they covered, and whether anything is owed now.
function submit.review(engine, unit)
  local target = engine.targets[unit.target]
  unit.owing = nil
  for _, part in ipairs(unit.parts) do
    local outcome = claims.review(part, target.listed, target.sent, unit.spec.idle_timeout or 60, coverage.finished)
    if outcome == "done" then
      engine.touched[engine:door(part.topic, part.partition)] = true
    end
    local owed = part.owed
    if owed and owed.not_before and owed.not_before > engine.clock then
      unit.due = math.min(unit.due or owed.not_before, owed.not_before)
    elseif owed and not owed.cover then
      unit.owing = true
    end
  end
end

--- Everything owed is covered by the runs that are active now.
function submit.covered(_, unit)
  if unit.mode ~= "claims" or not unit.owing then
    return
  end
  for _, part in ipairs(unit.parts) do
    claims.cover(part, unit.running)
  end
end

local function settle_claims(engine, unit, accepted)
  for _, part in ipairs(unit.mode == "claims" and unit.parts or {}) do
    claims.settle(part, accepted)
    engine.touched[engine:door(part.topic, part.partition)] = true
  end
end

-- ---- asking the rule ----

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
  for _, run in ipairs(engine.targets[unit.target].runs) do
    if run.job == unit.job then
      local created = run.created_at or run.accepted_at
      job.last_wake = created and math.max(created, job.last_wake or created) or job.last_wake
    end
  end
  job.last_wake = job.last_wake or unit.last_wake
  for i, run in ipairs(unit.running) do
    job.runs[i] = {
      name = run.name, created_at = run.created_at, status = run.status, requested = run.requested,
      pending = run.pending, running = run.running, indices = run.indices,
    }
  end
  return job
end

--- Which open parts may be tried now; those whose last runs made no progress wait.
---@return table eligible, integer attempt, number wait, boolean quarantined
local function eligible_parts(engine, unit, open)
  local eligible, highest, wait, quarantined = {}, 1, nil, false
  if unit.mode == "claims" then
    return open, 1, 0, false
  end
  local index = attempts.index(engine.targets[unit.target].runs, unit.job)
  for _, part in ipairs(open) do
    local attempt, since = attempts.next(part, index, engine.ended)
    part.attempt = attempt
    local left = since and since + attempts.delay(attempt, part) - engine.clock or 0
    if left > 0 then
      wait = math.min(wait or left, left)
      quarantined = quarantined or attempt > attempts.LIMIT
    else
      eligible[#eligible + 1] = part
      highest = math.max(highest, attempt)
    end
  end
  return eligible, highest, wait or 0, quarantined
end

--- Decides about the open parts (work and nobody covers them).
function submit.decide(engine, unit, open)
  local target = engine.targets[unit.target]
  if unit.not_before and engine.clock < unit.not_before then
    return engine:hold(unit, open, "submit_backoff", { reason = unit.failure }, unit.not_before - engine.clock)
  end
  local eligible, attempt, wait, quarantined = eligible_parts(engine, unit, open)
  if #eligible == 0 then
    return engine:hold(unit, open, quarantined and "quarantine" or "backoff",
      { reason = "the last run made no progress" }, wait)
  end
  if engine.clock - target.sent + SUBMIT_TIMEOUT > FRESH then
    unit.dirty = true
    return engine:hold(unit, open, "stale", { reason = "the run list is too old" })
  end
  local wait_left = (unit.wait_until or 0) - engine.clock
  if wait_left > 0 and not unit.rang then
    return engine:hold(unit, open, "wait", unit.decision.fields, wait_left)
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

-- ---- building the run ----

local function single_topic(unit)
  local topic = next(unit.topics)
  return next(unit.topics, topic) == nil and topic or nil
end

local function topics_of(unit)
  local names = {}
  for topic in pairs(unit.topics) do
    names[#names + 1] = topic
  end
  table.sort(names)
  return table.concat(names, ",")
end

--- The indices of an index run, or nil when the run has to be a group run.
local function index_run(unit, eligible, verdict, count)
  if unit.assign ~= "index" or unit.mode ~= "lag" or not single_topic(unit) or count < #eligible
    and not verdict.indices then
    return nil
  end
  local allowed, indices, parts = {}, {}, {}
  for _, part in ipairs(eligible) do
    allowed[part.partition] = part
  end
  for _, index in ipairs(verdict.indices or {}) do
    if allowed[index] then
      indices[#indices + 1], parts[#parts + 1] = index, allowed[index]
    end
  end
  if not verdict.indices then
    for _, part in ipairs(eligible) do
      indices[#indices + 1], parts[#parts + 1] = part.partition, part
    end
  end
  if #arrayspec.format(indices) > MAX_SPEC then
    return nil
  end
  return indices, parts
end

local function environment(unit, sources, assign, entries)
  local env = {}
  for _, source in ipairs(sources) do
    for name, value in pairs(source) do
      env[name] = value
    end
  end
  local reset = "earliest"
  for _, topic in pairs(unit.topics) do
    reset = topic.reset or reset
  end
  env.KAFKA_TOPIC = topics_of(unit)
  env.CONSUMER_GROUP = unit.group
  env.ROUSE_ASSIGN = assign
  env.ROUSE_RESET = reset
  if #entries > 0 then
    env.ROUSE_WAKE = naming.encode(entries)
  end
  return env
end

--- Begins a submit for a wake verdict.
function submit.start(engine, unit, open, eligible, verdict)
  if verdict.indices and not single_topic(unit) then
    return engine:hold(unit, open, "rule_error", { reason = "indices need a job on one topic" }, 60)
  end
  local count = verdict.instances or (verdict.indices and #verdict.indices) or #eligible
  if unit.mode == "lag" then
    count = math.min(count, #eligible)
  end
  local room = math.max(0, (unit.spec.max_instances or math.huge) - unit.active)
  local capped = room < count
  if capped and room < 1 then
    return engine:hold(unit, open, "max_instances", { active = unit.active }, 5)
  end
  count = capped and room or count
  if count < 1 then
    return engine:hold(unit, open, "wait", { reason = "the rule asked for no instance" }, 60)
  end
  local indices, parts
  if not capped then -- few instances for many partitions can only share them as a group
    indices, parts = index_run(unit, eligible, verdict, count)
  end
  if indices and #indices == 0 then
    return engine:hold(unit, open, "wait", { reason = "the rule chose only partitions without work" }, 60)
  end
  local assign = indices and "index" or "group"
  if not indices then
    indices, parts = {}, open
    for i = 1, count do
      indices[i] = i - 1
    end
  end
  local entries = {}
  for _, part in ipairs(unit.mode == "lag" and parts or {}) do
    if #entries < MAX_MARKS then
      entries[#entries + 1] = { topic = part.topic, partition = part.partition, attempt = part.attempt or 1,
        start = part.start }
    end
  end
  local name, number = naming.next(unit.job, engine.targets[unit.target].runs, engine.numbers[unit.job])
  local asked = unit.asked
  unit.phase, unit.asked = "submitting", nil
  unit.pending = { name = name, number = number, parts = open, entries = entries, indices = indices, assign = assign,
    reason = verdict.reason or (asked and asked.reason), asked = asked }
  for _, part in ipairs(unit.parts) do
    claims.ride(part)
  end
  for _, part in ipairs(open) do
    part.submitting = true
  end
  local env = environment(unit, { asked and asked.env or {}, verdict.env or {} }, assign, entries)
  unit.pending.env = env
  engine:effect { kind = "submit", unit = unit.id, target = unit.target, job = unit.job, name = name, indices = indices,
    env = env }
end

-- ---- the answer ----

local function end_submit(unit)
  local pending = unit.pending
  unit.pending, unit.phase = nil, "idle"
  for _, part in ipairs(pending.parts) do
    part.submitting = nil
  end
  return pending
end

--- The run exists: it joins the list and covers from now on. What an answer leaves out is what was asked for.
local function join_list(engine, unit, run, pending)
  local target = engine.targets[unit.target]
  run.job = run.job or unit.job
  run.env = run.env and next(run.env) and run.env or pending.env
  run.indices = run.indices and #run.indices > 0 and run.indices or pending.indices
  run.accepted, run.accepted_at = engine.clock, engine.now
  if not target.listed[run.name] then
    target.runs[#target.runs + 1] = run
    target.listed[run.name] = run
  end
  local number = naming.number(unit.job, run.name)
  engine.numbers[unit.job] = math.max(engine.numbers[unit.job] or 0, number or 0)
end

local function again(engine, unit)
  engine:mark(unit)
  engine:settle(unit)
  unit.due = engine.clock + 5
end

local function failed(engine, unit, event, first)
  local pending = end_submit(unit)
  settle_claims(engine, unit, false)
  unit.asked = unit.asked or pending.asked
  unit.submit_failures = (unit.submit_failures or 0) + 1
  unit.failure = event.message
  local seconds = backoff.delay(unit.submit_failures,
    { first = first or (PERMANENT[event.error] and 60 or 1), max = 300, random = engine.random })
  seconds = math.max(seconds, event.retry_after or 0)
  unit.not_before = engine.clock + seconds
  unit.due = nil
  engine:hold(unit, pending.parts, "submit_failed",
    { error = event.error, reason = event.message, name = pending.name, seconds = seconds }, seconds)
  engine:settle(unit)
end

--- A submit was answered.
function submit.answered(engine, unit, event)
  if event.run then
    local pending = end_submit(unit)
    join_list(engine, unit, event.run, pending)
    unit.submit_failures, unit.not_before, unit.last_wake = 0, nil, engine.now
    for _, entry in ipairs(pending.entries) do
      unit.index[entry.topic][entry.partition].tried = { attempt = entry.attempt, name = pending.name,
        at = engine.clock, mark = naming.mark(entry.topic, entry.partition, entry.start) }
    end
    for key, window in pairs(pending.asked and pending.asked.keys or {}) do
      engine.windows[key] = engine.clock + window
    end
    settle_claims(engine, unit, true)
    engine:note(unit, "woken", { name = pending.name, instances = #pending.indices, assign = pending.assign,
      indices = pending.indices, reason = pending.reason })
    again(engine, unit)
  elseif event.error == "CONFLICT" or event.error == "AMBIGUOUS" then
    unit.phase = "asking"
    engine:note(unit, event.error == "CONFLICT" and "conflict" or "ambiguous",
      { name = event.name, reason = event.message })
    engine:effect { kind = "get", unit = unit.id, target = unit.target, name = event.name }
  else
    failed(engine, unit, event)
  end
end

--- Whether a run of a doubtful submit exists: if so it joins the list as read, if not the same number is tried again.
function submit.asked(engine, unit, event)
  if event.run then
    join_list(engine, unit, event.run, end_submit(unit))
    -- It was created after our listing, so after every record that rode on ours.
    settle_claims(engine, unit, true)
    unit.dirty = true
    again(engine, unit)
  else
    failed(engine, unit, event, 0.5)
  end
end

-- ---- the list ----

--- Removes finished runs of ours, never the newest of a job and never before everybody who may rest on them has read again.
function submit.clean(engine, target, target_name)
  local jobs, newest = {}, {}
  for _, unit in ipairs(engine.units) do
    jobs[unit.job] = unit.target == target_name or nil
  end
  for _, run in ipairs(target.runs) do
    local number = jobs[run.job] and naming.number(run.job, run.name)
    if number and number > (newest[run.job] or 0) then
      newest[run.job] = number
    end
  end
  for _, run in ipairs(target.runs) do
    local number = jobs[run.job] and naming.number(run.job, run.name)
    local asked = engine.removed[run.name]
    if number and number < newest[run.job] and coverage.finished(run) and not (asked and engine.clock - asked < KEEP)
      and engine.clock - (engine.ended[run.name] or engine.clock) > KEEP then
      engine.removed[run.name] = engine.clock
      engine:effect { kind = "remove", target = target_name, name = run.name }
    end
  end
end

return submit
