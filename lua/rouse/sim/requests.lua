--- What a simulated observer asks Kafka and Code Engine for: each request takes its time, may go wrong (world.faults), and its
--- answer comes back to the engine as an event.
local consumers = require "rouse.sim.consumer"
local renewing = require "rouse.sim.renewing"
local retention = require "rouse.sim.retention"

local requests = { handlers = {}, perform = {} }
local handlers, perform = requests.handlers, requests.perform

local TIMEOUT, READ_TIMEOUT = 30, 10

local function send(world, o, kind, item, delay)
  item.id, item.life = o.id, o.life
  if delay then
    world.oracle:delayed(world, delay, kind)
  end
  world:post(delay or world:latency(), kind, item)
end

function perform.list(world, o, effect)
  send(world, o, "list", { target = effect.target, sent = world.clock })
end

function handlers.list(world, item)
  local o, fault = world:observer_of(item), world:fault("list")
  local how = fault and fault.how
  if not o then
    return
  end
  local answer = { target = item.target, sent = item.sent, seen = world.clock }
  if how == "unavailable" then
    answer.failed = true
  elseif how == "timeout" then
    answer.failed = true
    return send(world, o, "listed", answer, TIMEOUT)
  elseif how == "stale" and world.project.history[1] then
    answer.runs, answer.seen = world.project:recall()
  else
    answer.runs = world.project:list()
  end
  send(world, o, "listed", answer, how == "slow" and fault.delay or nil)
end

function handlers.listed(world, item)
  local o = world:observer_of(item)
  if not o then
    return
  end
  world.oracle:listed(world, o, item)
  world:emit(o, item.failed
    and { kind = "runs", target = item.target, error = "UNAVAILABLE", message = "http 503" }
    or { kind = "runs", target = item.target, runs = item.runs, sent = item.sent })
end

function perform.read(world, o, effect)
  local parts, unit = {}, o.engine.by_id[effect.unit]
  for i, part in ipairs(unit.parts) do
    parts[i] = { topic = part.topic, partition = part.partition }
  end
  send(world, o, "read_commits", { unit = effect.unit, group = unit.group, parts = parts, only = effect.commits })
end

local function read_fails(world, o, item)
  send(world, o, "read", { unit = item.unit, failed = true }, READ_TIMEOUT)
end

function handlers.read_commits(world, item)
  local o, fault = world:observer_of(item), world:fault("read")
  local how = fault and fault.how
  if not o then
    return
  elseif world.down or how == "timeout" or renewing.is_stuck(o, item.group) then
    return read_fails(world, o, item)
  end
  for i, part in ipairs(item.parts) do
    if not world.cluster:partition(part.topic, part.partition) then
      part.error = "UNKNOWN_TOPIC_OR_PART"
    elseif how == "partial" and i == 1 + fault.which % #item.parts then
      part.error = "NOT_LEADER_FOR_PARTITION"
    else
      part.committed = world.cluster:committed(item.group, part.topic, part.partition) or false
    end
  end
  item.seen = world.clock
  send(world, o, item.only and "read" or "read_ends", item, how == "slow" and fault.delay or nil)
end

function handlers.read_ends(world, item)
  local o = world:observer_of(item)
  if not o then
    return
  elseif world.down then
    return read_fails(world, o, item)
  end
  for _, part in ipairs(item.parts) do
    local state = world.cluster:partition(part.topic, part.partition)
    if not state then
      part.error = "UNKNOWN_TOPIC_OR_PART"
    elseif not part.error then
      part.low, part.end_offset = state.low, world.cluster:stable(state)
      local refused = part.committed and world.cluster:out_of_range(part.topic, part.partition, part.committed)
      part.work = world.cluster:consumable(part.topic, part.partition, not refused and part.committed or 0) ~= nil
    end
  end
  send(world, o, "read", item)
end

function handlers.read(world, item)
  local o = world:observer_of(item)
  if o then
    world.oracle:read(world, o, item)
    world:emit(o, item.failed
      and { kind = "offsets", unit = item.unit, error = "_TIMED_OUT", message = "timed out" }
      or { kind = "offsets", unit = item.unit, parts = item.parts })
  end
end

function perform.submit(world, o, effect)
  renewing.submitting(world, o, effect)
  world:say("observer %d submits %s, %d instance(s) %s, %s", o.id, effect.name, #effect.indices,
    table.concat(effect.indices, ","), effect.env.ROUSE_ASSIGN)
  send(world, o, "submit", { effect = effect, sent = world.clock,
    basis = world.oracle:submitting(world, o, effect) })
end

-- How each fault of a submit answers, and whether the run is created all the same.
local SUBMIT = {
  refused = { code = "UNAVAILABLE" }, dropped = { code = "AMBIGUOUS" }, lost = { code = "AMBIGUOUS", create = true },
  throttled = { code = "THROTTLED" }, unauthorized = { code = "UNAUTHORIZED" }, invalid = { code = "INVALID" },
  slow = { create = true }, late = { code = "AMBIGUOUS" },
}

local function create(world, o, item)
  local effect = item.effect
  local run, code = world.project:create(effect, world:time())
  world.submits[#world.submits + 1] = { at = world:elapsed(), name = effect.name, job = effect.job, env = effect.env,
    indices = effect.indices, instances = #effect.indices, error = code }
  world.oracle:created(world, o, item, run, code)
  if run then
    world:say("run %s created", effect.name)
    retention.created(world, item, run)
    consumers.started(world, run)
    world:list_changed()
  end
  return run, code
end

function handlers.submit(world, item)
  local o, fault = world.observers[item.id], world:fault("submit")
  local how = fault and SUBMIT[fault.how] or {}
  local answer = { effect = item.effect, code = how.code, retry_after = fault and fault.retry_after }
  local delay
  if fault and fault.how == "late" then -- the client gives up first
    delay = math.max(0, item.sent + TIMEOUT - world.clock)
    world:post(delay + fault.delay, "late", item)
  elseif fault and fault.how == "slow" then
    delay = fault.delay
  end
  if not fault or how.create then
    local run, code = create(world, o, item)
    answer.run = not how.code and run and world.project:get(run.name) or nil
    answer.code = how.code or code
  end
  world:say("submit %s: %s", item.effect.name, answer.code or "accepted")
  world:post(delay or world:latency(), "submitted", { id = item.id, life = item.life, answer = answer })
end

function handlers.late(world, item)
  item.late = true
  create(world, world.observers[item.id], item)
end

function handlers.submitted(world, item)
  local o, answer = world:observer_of(item), item.answer
  if o then
    world.oracle:answered(world, o, answer)
    world:emit(o, { kind = "submitted", unit = answer.effect.unit, name = answer.effect.name,
      run = not answer.code and answer.run or nil, error = answer.code, message = answer.code,
      retry_after = answer.retry_after })
  end
end

function perform.get(world, o, effect)
  send(world, o, "get", { effect = effect })
end

function handlers.get(world, item)
  local o, fault = world:observer_of(item), world:fault("get")
  if o then
    local run = world.project:get(item.effect.name)
    local code = fault and "UNAVAILABLE" or not run and "NOT_FOUND" or nil
    send(world, o, "got", { effect = item.effect, run = not code and run or nil, code = code })
  end
end

function handlers.got(world, item)
  local o = world:observer_of(item)
  if o then
    world.oracle:got(world, o, item)
    world:emit(o, { kind = "got", unit = item.effect.unit, name = item.effect.name, run = item.run,
      error = item.code })
  end
end

function perform.remove(world, o, effect)
  send(world, o, "remove", { name = effect.name })
end

function handlers.remove(world, item)
  if not world:fault("remove") then
    world.oracle:removing(world, item.name)
    world:say("run %s removed", item.name)
    consumers.removed(world, item.name)
    world.project:remove(item.name)
  end
end

--- Commits for a group without members, as reset = latest wants it; refused while the group has some.
function perform.commit(world, o, effect)
  send(world, o, "commit", { effect = effect, group = o.engine.by_id[effect.unit].group })
end

function handlers.commit(world, item)
  local o, effect = world:observer_of(item), item.effect
  if not o then
    return
  end
  local there = not world.down and world.cluster:committed(item.group, effect.topic, effect.partition)
  if there and there ~= effect.refused then -- somebody was faster
    local found = { unit = effect.unit, topic = effect.topic, partition = effect.partition, offset = there }
    return send(world, o, "committed", { effect = found })
  end
  send(world, o, "alter", item)
end

function handlers.alter(world, item)
  local o, effect, fault = world:observer_of(item), item.effect, world:fault("commit")
  if not o then
    return
  end
  local code
  if world.down or fault or renewing.is_stuck(o, item.group) then
    code = "_TIMED_OUT"
  elseif consumers.members(world, item.group) > 0 then
    code = "UNKNOWN_MEMBER_ID"
  elseif not world.cluster:partition(effect.topic, effect.partition) then
    code = "UNKNOWN_TOPIC_OR_PART"
  else
    world:say("observer %d commits %s %s/%d at %d", o.id, item.group, effect.topic, effect.partition, effect.offset)
    world.oracle:beginning(world, item.group, effect)
    world:commit(item.group, effect.topic, effect.partition, effect.offset)
    world.oracle:observer_committed(world, item.group, effect)
  end
  send(world, o, "committed", { effect = effect, code = code })
end

function handlers.committed(world, item)
  local o, effect = world:observer_of(item), item.effect
  if o then
    world:emit(o, { kind = "committed", unit = effect.unit, topic = effect.topic,
      partition = effect.partition, offset = effect.offset, error = item.code })
  end
end

perform.renew = renewing.perform

return requests
