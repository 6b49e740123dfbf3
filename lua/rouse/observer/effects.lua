--- Performs the wake engine's effects: what waits runs in a task of its own and comes back as an event.
local log = require "rouse.log"
local reader = require "rouse.observer.reader"
local renewal = require "rouse.wake.renewal"
local task = require "rouse.task"

local effects = {}

local LEVELS = {
  woken = "info", conflict = "warn", ambiguous = "warn", submit_failed = "warn", list_failed = "warn",
  read_failed = "warn", not_renewed = "warn", rule_error = "error", quarantine = "error", stuck = "warn",
  quota = "warn", quota_removed = "warn",
}

local function describe(effect)
  local fields = { job = effect.job, group = effect.group, code = effect.code }
  for name, value in pairs(effect.fields) do
    fields[name] = value
  end
  if fields.indices then
    fields.indices = table.concat(fields.indices, ",")
  end
  return fields
end

local perform = {}

function perform.list(observer, effect)
  local sent = task.monotonic()
  local runs, message, code = observer.targets:get(effect.target):list()
  observer:report_target(effect.target, runs, message, code)
  return { kind = "runs", target = effect.target, runs = runs, sent = sent, message = message, error = code }
end

function perform.read(observer, effect)
  local unit = observer.engine.by_id[effect.unit]
  if not unit or #unit.parts == 0 then -- a reload was quicker
    return { kind = "offsets", unit = effect.unit, parts = {} }
  end
  local parts, message, code = reader.read(observer.admin, observer.offsets, unit, effect.commits)
  if code == "TIMEDOUT" then
    observer.trouble:set() -- the group's coordinator may have moved
  end
  return { kind = "offsets", unit = effect.unit, parts = parts, message = message, error = not parts and code or nil }
end

function perform.submit(observer, effect)
  local run, message, code, retry_after = observer.targets:get(effect.target):submit {
    job = effect.job, name = effect.name, indices = effect.indices, env = effect.env,
  }
  return { kind = "submitted", unit = effect.unit, name = effect.name, run = run, message = message,
    error = not run and code or nil, retry_after = retry_after }
end

function perform.get(observer, effect)
  local run, message, code = observer.targets:get(effect.target):get(effect.name)
  return { kind = "got", unit = effect.unit, name = effect.name, run = run, message = message,
    error = not run and code or nil }
end

function perform.commit(observer, effect)
  local unit = observer.engine.by_id[effect.unit]
  if not unit then
    return nil
  end
  local part = { topic = effect.topic, partition = effect.partition }
  local there = observer.admin:group_offsets { group = unit.group, partitions = { part }, timeout = 10 }
  local offset = there and not there[1].error and there[1].offset
  if offset and effect.refused ~= offset then -- somebody was faster: what has arrived since is owed
    return { kind = "committed", unit = effect.unit, topic = effect.topic, partition = effect.partition,
      offset = offset }
  end
  local list, message, code = observer.admin:alter_group_offsets {
    group = unit.group, timeout = 10,
    partitions = { { topic = effect.topic, partition = effect.partition, offset = effect.offset } },
  }
  local refused = not list and code or list[1].error
  if refused then
    log.warn("the group's first commit at the end was refused: its start is unknown",
      { group = unit.group, topic = effect.topic, partition = effect.partition, reason = message, code = refused })
  end
  return { kind = "committed", unit = effect.unit, topic = effect.topic, partition = effect.partition,
    offset = effect.offset, error = refused }
end

function perform.remove(observer, effect)
  local ok, message, code = observer.targets:get(effect.target):remove(effect.name)
  if not ok and code ~= "NOT_FOUND" then
    log.debug("a finished run could not be removed", { name = effect.name, reason = message, code = code })
  end
end

--- Commits a quiet group's offsets again, as they are now.
function perform.renew(observer, effect)
  local began = task.monotonic()
  local list, message, code = observer.admin:group_offsets { group = effect.group, partitions = effect.partitions,
    timeout = 10 }
  local commits, partly, why = renewal.commits(observer.engine, effect, list or {}, task.monotonic() - began)
  code, message = code or partly, message or why
  if #commits > 0 then
    local done, reason, failed = observer.admin:alter_group_offsets { group = effect.group, partitions = commits,
      timeout = 10 }
    message, code = reason or message, failed or code
    for _, item in ipairs(done or {}) do
      code = code or item.error
    end
  end
  local answer, members = renewal.answer(effect, code, message)
  if members then
    log.debug(("offsets of the group %s not renewed: it has members"):format(effect.group))
  elseif not answer.error then
    log.debug(("offsets of the quiet group %s renewed"):format(effect.group), { group = effect.group,
      partitions = #commits })
  end
  return answer
end

local now = {}

function now.arm(observer, effect)
  observer.doorbell:set(effect.topic, effect.partition, effect.offset)
end

now.disarm = now.arm

function now.done(observer, effect)
  if observer.claims then
    observer.claims:set_done(effect.topic, effect.partition, effect.offset)
  end
end

function now.call(observer, effect)
  observer.next_call = effect.at
end

function now.note(_, effect)
  local fields = describe(effect)
  local text = effect.code == "woken"
    and ("woke %s: run %s, %d instance%s"):format(effect.job, fields.name, fields.instances,
      fields.instances == 1 and "" or "s")
    or ("%s: %s"):format(effect.job, effect.code)
  log[LEVELS[effect.code] or "debug"](text, fields)
end

-- The event that answers each effect. One that is never answered would leave its unit waiting for ever.
local FAILED = { list = "runs", read = "offsets", submit = "submitted", get = "got", commit = "committed",
  renew = "renewed" }

--- The answer of an effect that could not be performed at all; what a submit has done is unknown then.
local function failed(effect, message)
  return { kind = FAILED[effect.kind], target = effect.target, unit = effect.unit, name = effect.name,
    topic = effect.topic, partition = effect.partition, message = tostring(message), sent = task.monotonic(),
    error = effect.kind == "submit" and "AMBIGUOUS" or "BUG" }
end

--- Performs a list of effects in order; those that wait do not hold up the others.
function effects.perform(observer, list)
  for _, effect in ipairs(list) do
    if now[effect.kind] then
      now[effect.kind](observer, effect)
    else
      task.spawn(function()
        local ok, event = pcall(perform[effect.kind], observer, effect)
        if not ok and event ~= "cancelled" then
          log.error("a bug in Rouse: " .. tostring(event), { effect = effect.kind })
        end
        event = ok and event or not ok and FAILED[effect.kind] and failed(effect, event)
        if event then
          observer:emit(event)
        end
      end)
    end
  end
  if observer.doorbell then
    observer.doorbell:flush()
  end
end

return effects
