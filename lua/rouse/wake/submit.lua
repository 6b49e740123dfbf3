--- Submitting (pure): building the run of a wake verdict, and what the target's answer means.
local arrayspec = require "rouse.arrayspec"
local backoff = require "rouse.backoff"
local claiming = require "rouse.wake.claiming"
local claims = require "rouse.wake.claims"
local doors = require "rouse.wake.doors"
local environment = require "rouse.wake.environment"
local naming = require "rouse.wake.naming"
local renewal = require "rouse.wake.renewal"
local runs = require "rouse.wake.runs"
local watch = require "rouse.wake.watch"

local submit = {}

local MAX_SPEC = 253 -- characters of scale_array_spec (facts of the API)
local PERMANENT = { INVALID = true, NOT_FOUND = true, FORBIDDEN = true, UNAUTHORIZED = true }

-- ---- building the run ----

local function single_topic(unit)
  local topic = next(unit.topics)
  return next(unit.topics, topic) == nil and topic or nil
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
  local assign, asked = indices and "index" or "group", unit.asked
  local built, message = environment.build(unit, { own = engine.jobs[unit.job] or {}, assign = assign,
    parts = parts or open, sources = { asked and asked.env or {}, verdict.env or {} } })
  if not built then
    return engine:hold(unit, open, "rule_error", { reason = message }, 60)
  end
  if not indices then
    indices, count = {}, built.parts and math.min(count, #built.parts) or count
    for i = 1, count do
      indices[i] = i - 1
    end
  end
  local name, number = naming.next(unit.job, engine.targets[unit.target].runs)
  unit.phase, unit.asked, unit.gather_until = "submitting", nil, nil
  unit.pending = { name = name, number = number, parts = open, entries = built.entries, indices = indices,
    assign = assign, reason = verdict.reason or (asked and asked.reason), asked = asked }
  for _, part in ipairs(unit.parts) do
    claims.ride(part)
  end
  for _, part in ipairs(open) do
    part.submitting = true
  end
  unit.pending.env = built.env
  engine:effect { kind = "submit", unit = unit.id, target = unit.target, job = unit.job, name = name, indices = indices,
    env = built.env }
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
  runs.date(engine, run)
end

local function again(engine, unit)
  engine:mark(unit)
  doors.settle(engine, unit)
  unit.due = engine.clock + 5
end

local function failed(engine, unit, event, first)
  local pending = end_submit(unit)
  claiming.settle(engine, unit, false)
  unit.asked = unit.asked or pending.asked
  unit.submit_failures = (unit.submit_failures or 0) + 1
  unit.failure, unit.failure_code = event.message, event.error
  local seconds = backoff.delay(unit.submit_failures,
    { first = first or (PERMANENT[event.error] and 60 or 1), max = 300, random = engine.random })
  seconds = math.max(seconds, event.retry_after or 0)
  unit.not_before = engine.clock + seconds
  unit.due = nil
  engine:hold(unit, pending.parts, "submit_failed",
    { error = event.error, reason = event.message, name = pending.name, seconds = seconds }, seconds)
  doors.settle(engine, unit)
end

--- A submit was answered.
function submit.answered(engine, unit, event)
  if event.run then
    local pending = end_submit(unit)
    join_list(engine, unit, event.run, pending)
    unit.submit_failures, unit.not_before, unit.last_wake = 0, nil, engine.created[event.run.name]
    for _, entry in ipairs(pending.entries) do
      local part = unit.index[entry.topic] and unit.index[entry.topic][entry.partition]
      if part then -- the topic may have left the routes
        part.tried = { attempt = entry.attempt, name = pending.name, start = entry.start,
          mark = naming.mark(entry.topic, entry.partition, entry.start) }
      end
    end
    for _, part in ipairs(pending.parts) do
      part.served = nil
      watch.quiet(part)
    end
    for key, window in pairs(pending.asked and pending.asked.keys or {}) do
      engine.windows[key] = engine.clock + window
    end
    claiming.settle(engine, unit, true)
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
    claiming.settle(engine, unit, true)
    unit.dirty = true
    again(engine, unit)
  else
    renewal.doubt(engine, unit)
    failed(engine, unit, event, 0.5)
  end
end

return submit
