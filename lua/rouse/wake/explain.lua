--- What the wake engine knows, what it decided and what it waits for (pure): plain data with sorted arrays, for the status page
--- and `rouse explain`. It only reads the engine's tables. Times are epoch seconds; `age`, `due` and `left` are seconds.
local claims = require "rouse.wake.claims"
local coverage = require "rouse.wake.coverage"
local facts = require "rouse.wake.facts"
local json = require "rouse.json"
local places = require "rouse.places"

local explain = {}

--- What the code of a job's decision means. docs/operating.md says what to do about each.
explain.CODES = {
  woken = "a run was submitted", covered = "running instances cover the partitions with work",
  no_work = "no record is proven to wait past the group's commits", wait = "the rule said so",
  ignored = "the rule said so", max_instances = "that many instances of the job are running",
  backoff = "the last run ended without progress", quarantine = "many runs ended without progress",
  gather = "records of other partitions are about to ring",
  served = "somebody else consumes this group", rule_error = "the rule failed, or its answer is no verdict",
  submit_failed = "the target refused or did not answer", submit_backoff = "the target is asked again later",
  conflict = "a run of this name exists, it is looked up", ambiguous = "the answer was lost, the run is looked up",
  list_failed = "the runs could not be listed, so nothing is submitted", quota = "the target is full",
  read_failed = "offsets could not be read, what was known holds", stale = "the list of runs was too old for a submit",
  renewing = "offsets of the group are being renewed, the submit waits for the answer",
}

--- What a partition's state means. One of these is every partition's, at any time.
explain.STATES = {
  unknown = "its start is not known yet",
  unread = "its offsets could not be read",
  quiet = "no record is proven to wait there",
  work = "a record waits, the decision is on its way",
  submitting = "its run is being submitted",
  covered = "a running instance serves it",
  stuck = "an instance serves it, but nothing is committed",
  held = "a record waits; the job's decision says why and until when",
  ignored = "the rule said so, until a record past the end",
  owed = "claimed records wait for a run",
}

-- Arrays stay arrays where they are empty.
local function array(list)
  return json.array(list or {})
end

local function seconds_left(at, clock)
  return at and at > clock and at - clock or nil
end

local function state_of(unit, part)
  if unit.mode == "claims" then
    if part.riding then
      return "submitting"
    end
    return part.owed and (part.owed.cover and "covered" or "owed") or "quiet"
  elseif part.submitting then
    return "submitting"
  elseif part.covered then
    return part.stuck and "stuck" or "covered"
  elseif part.error then
    return "unread"
  elseif part.start == nil then
    return "unknown"
  elseif not facts.has_work(part) then
    return "quiet"
  elseif part.ignored and part.proof < part.ignored then
    return "ignored"
  end
  return part.held and "held" or "work"
end

local function part_of(engine, unit, part, clock)
  local door = places.get(engine.doors, part)
  local told = {
    topic = part.topic, partition = part.partition, state = state_of(unit, part), work = part.work or false,
    covered = part.covered or false, end_offset = part.end_offset, low = part.low, error = part.error,
    armed = door and door.armed,
  }
  if unit.mode == "claims" then
    told.owed_from, told.claimed_to = claims.first(part), door and door.claimed
    told.foreign = part.foreign
    return told
  end
  told.committed, told.no_commit = part.committed or nil, part.committed == false or nil
  told.start, told.proof, told.lag = part.start, part.proof, facts.lag(part)
  told.held, told.ignored = part.held, part.ignored
  told.attempt, told.out_of_range = part.attempt, part.refused and true or nil
  told.served, told.stuck = part.served, part.stuck
  told.retry_left = part.held and seconds_left(part.retry_at, clock)
  return told
end

local function run_of(engine, run, clock)
  local seen = engine.created[run.name]
  return {
    name = run.name, job = run.job, status = run.status or "accepted", requested = run.requested, pending = run.pending,
    running = run.running, active = coverage.active(run), indices = array(coverage.live(run)),
    assign = run.env and run.env.ROUSE_ASSIGN, created_at = run.created_at or run.accepted_at,
    age = seen and math.max(0, clock - seen),
  }
end

-- Only what is plain: a rule's fields are text and numbers.
local function inputs_of(fields)
  local inputs = {}
  for name, value in pairs(fields or {}) do
    local kind = type(value)
    local finite = kind == "number" and value == value and math.abs(value) < math.huge
    if kind == "string" or kind == "boolean" or finite then
      inputs[name] = value
    elseif name == "indices" and kind == "table" then
      inputs[name] = array(table.move(value, 1, #value, 1, {}))
    end
  end
  inputs.reason = nil
  return inputs
end

local function decision_of(decision, clock)
  if not decision then
    return nil
  end
  return { code = decision.code, reason = decision.reason, at = decision.at, age = math.max(0, clock - decision.clock),
    inputs = inputs_of(decision.fields) }
end

local function topics_of(unit)
  local names = {}
  for topic in pairs(unit.topics) do
    names[#names + 1] = topic
  end
  table.sort(names)
  return array(names)
end

local function by_place(a, b)
  if a.topic ~= b.topic then
    return a.topic < b.topic
  end
  return a.partition < b.partition
end

local function unit_of(engine, unit, at)
  local told = {
    id = unit.id, job = unit.job, group = unit.group, mode = unit.mode, assign = unit.assign, target = unit.target,
    topics = topics_of(unit), phase = unit.phase, decision = decision_of(unit.decision, at.clock),
    woken = decision_of(unit.woken, at.clock), active = unit.active or 0,
    last_wake = unit.last_wake and at.now - (at.clock - unit.last_wake),
    submit_failures = unit.submit_failures, read_failures = unit.read_failures, unread = unit.unread,
    submitting = unit.pending and unit.pending.name,
    due = unit.due and math.max(0, unit.due - at.clock), wait_left = seconds_left(unit.wait_until, at.clock),
    backoff_left = seconds_left(unit.not_before, at.clock), renew_left = seconds_left(unit.renew_at, at.clock),
    renew_failures = unit.renew_failures, renew_failure = unit.renew_failure,
    dedup_window = unit.spec.dedup_window, max_instances = unit.spec.max_instances,
  }
  local parts, runs = {}, {}
  for i, part in ipairs(unit.parts) do
    parts[i] = part_of(engine, unit, part, at.clock)
  end
  table.sort(parts, by_place)
  for i, run in ipairs(unit.running or {}) do
    runs[i] = run_of(engine, run, at.clock)
  end
  table.sort(runs, function(a, b) return a.name < b.name end)
  told.parts, told.runs = array(parts), array(runs)
  return told
end

local function targets_of(engine, at)
  local list = {}
  for name, target in pairs(engine.targets) do
    list[#list + 1] = {
      id = name, runs = #target.runs, limit = engine.quota[name], failures = target.failures,
      listing = target.inflight or false, listed = target.sent and math.max(0, at.clock - target.sent),
    }
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return array(list)
end

--- Everything about all units, or about those of one job.
---@param engine table from rouse.wake
---@param at { now: number, clock: number, job: string? }
---@return { units: table[], targets: table[] }
function explain.engine(engine, at)
  local units = {}
  for _, unit in ipairs(engine.units) do
    if not at.job or unit.job == at.job then
      units[#units + 1] = unit_of(engine, unit, at)
    end
  end
  table.sort(units, function(a, b) return a.id < b.id end)
  return { units = array(units), targets = targets_of(engine, at) }
end

return explain
