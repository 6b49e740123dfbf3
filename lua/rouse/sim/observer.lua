--- A simulated observer process: the real wake engine and the real doorbell, with a runtime that performs effects as
--- rouse.observer does, each request in its own time. A crash forgets everything; answers to a former life are lost.
local consumers = require "rouse.sim.consumer"
local packaged = require "rouse.sim.packaged"
local verdicts = require "rouse.verdict"
local wake = require "rouse.wake"

local observer = { handlers = {} }
local handlers = observer.handlers

local REFRESH = 60 -- seconds between looks at the topics
local TURN = 2.5 -- seconds between looks at what the doorbell may move to its patient handle
local TIMEOUT, READ_TIMEOUT = 30, 10

-- ---- the doorbell's consumers ----

local Handle = { __name = "rouse.sim.handle" }
Handle.__index = Handle

local HANDLES = { "quick", "patient" }

local function key(topic, partition)
  return topic .. "/" .. partition
end

function Handle:incremental_assign(list)
  local world, o = self.world, self.observer
  table.sort(list, function(a, b) -- the same schedule whatever order the tables had
    return key(a.topic, a.partition) < key(b.topic, b.partition)
  end)
  for _, item in ipairs(list) do
    local fetch = { handle = self.name, topic = item.topic, partition = item.partition, offset = item.offset }
    o.fetches[self.name][key(item.topic, item.partition)] = fetch
    world:say("observer %d arms %s/%d at %d%s", o.id, item.topic, item.partition, item.offset,
      self.name == "patient" and ", patiently" or "")
    world:post(world.noise:between(0, self.wait), "fetch", { id = o.id, life = o.life, fetch = fetch })
  end
  return true
end

function Handle:incremental_unassign(list)
  for _, item in ipairs(list) do
    self.observer.fetches[self.name][key(item.topic, item.partition)] = nil
  end
  return true
end

local function alive(world, item)
  local o = world.observers[item.id]
  return o.alive and o.life == item.life and o or nil
end

--- The broker looks at a parked fetch: an answer is on its way once there is one.
local function look(world, o, fetch)
  if world.down or fetch.sent or not world.cluster:partition(fetch.topic, fetch.partition) then
    return
  end
  local refused = world.cluster:out_of_range(fetch.topic, fetch.partition, fetch.offset)
  local offset = not refused and world.cluster:consumable(fetch.topic, fetch.partition, fetch.offset)
  if refused or offset then
    fetch.sent = true
    world:post(refused and world.noise:between(0, world.config.fetch_delay) or world:latency() / 2, "bell",
      { id = o.id, life = o.life, fetch = fetch, offset = offset or nil, epoch = world.epoch })
  end
end

function handlers.fetch(world, item)
  local o = alive(world, item)
  local fetch = item.fetch
  if o and o.fetches[fetch.handle][key(fetch.topic, fetch.partition)] == fetch then
    fetch.parked = true
    look(world, o, fetch)
  end
end

function observer.kick(world, o, topic, partition)
  for _, handle in ipairs(o.alive and HANDLES or {}) do
    local fetch = o.fetches[handle][key(topic, partition)]
    if fetch and fetch.parked then
      look(world, o, fetch)
    end
  end
end

--- Arms and disarms what was set, and lets the quiet move on to the patient handle.
local function flush(world, o)
  packaged.set_clock(world.clock)
  o.doorbell:flush()
  if o.doorbell.patient and o.doorbell.crowd > 0 and not o.turning then
    o.turning = true
    world:post(TURN, "turn", { id = o.id, life = o.life })
  end
end

function handlers.turn(world, item)
  local o = alive(world, item)
  if o then
    o.turning = nil
    o.doorbell:turn(world.clock)
    flush(world, o)
  end
end

function handlers.bell(world, item)
  local o, fetch = alive(world, item), item.fetch
  if not o or o.fetches[fetch.handle][key(fetch.topic, fetch.partition)] ~= fetch then
    return
  end
  local rings = {}
  o.doorbell.ring = function(event) rings[#rings + 1] = event end
  if item.offset then
    o.doorbell:take({ kind = "records", records = { { topic = fetch.topic, partition = fetch.partition,
      offset = item.offset } } }, fetch.handle)
  else
    o.doorbell:take({ kind = "error", code = "_AUTO_OFFSET_RESET", topic = fetch.topic, partition = fetch.partition },
      fetch.handle)
  end
  o.doorbell.ring = nil
  for _, event in ipairs(rings) do
    world:say("observer %d: %s/%d rings %s", o.id, event.topic, event.partition, event.error or "at " .. event.offset)
    world.oracle:rung(o, event)
    observer.emit(world, o, event)
  end
end

-- ---- life ----

-- The world whose event the engine handles: a copied engine keeps its functions, which must not keep the world they came from.
local current

local function decider(rule)
  return function(job, ctx)
    local world = current
    if world.config.broken[job.name] == "rule" then
      return nil, "a rule that throws"
    end
    local ok, verdict = pcall(rule, job, ctx)
    if not ok then
      return nil, verdict
    end
    world.oracle:decided(world, job, verdict)
    return verdicts.check(verdict)
  end
end

local function tell_partitions(world, o)
  for _, name in ipairs(world.cluster:names()) do
    local topic = world.cluster.topics[name]
    if o.counts[name] ~= topic.count then
      o.counts[name] = topic.count
      observer.emit(world, o, { kind = "partitions", topic = name, partitions = topic.count, units = {} })
    end
  end
end

--- Starts an observer, for the first time or after a crash.
function observer.boot(world, id)
  local former = world.observers[id]
  local config = world.config
  local o = { id = id, life = former and former.life + 1 or 1, alive = true, skew = former and former.skew or 0,
    fetches = { quick = {}, patient = {} }, counts = {}, noise = world.noise }
  local function handle(name, wait)
    return setmetatable({ world = world, observer = o, name = name, wait = wait }, Handle)
  end
  o.doorbell = packaged.doorbell().new(handle("quick", config.fetch_delay), nil, nil,
    config.patience and handle("patient", config.patience) or nil)
  o.engine = wake.new {
    units = world:make_units(), jobs = config.jobs, decide = decider(config.decide or packaged.decide()),
    random = config.jitter or function() return current.noise:float() end, quota = { codeengine = world.project.quota },
    renew = config.renew,
  }
  world.observers[id] = o
  world:say("observer %d starts", id)
  world.oracle:booted(world, o)
  tell_partitions(world, o)
  observer.emit(world, o, { kind = "start" })
  if config.refresh then
    world:post(REFRESH, "refresh", { id = id, life = o.life })
  end
  return o
end

function observer.crash(world, id)
  world.observers[id].alive = false
  world:say("observer %d crashes", id)
  world.oracle:crashed(world)
end

--- Metadata again: partitions that were added.
function handlers.refresh(world, item)
  local o = alive(world, item)
  if o then
    if not world.down then
      tell_partitions(world, o)
    end
    world:post(REFRESH, "refresh", { id = o.id, life = o.life })
  end
end

--- Kafka is there again: what the runtime does after metadata answered.
function handlers.reconnected(world, item)
  local o = alive(world, item)
  if o and not world.down then
    tell_partitions(world, o)
    observer.emit(world, o, { kind = "reevaluate" })
  end
end

-- ---- effects ----

local perform = {}

--- Gives an event to the engine and performs what it wants.
function observer.emit(world, o, event)
  event.now, event.clock = world:time() + o.skew, world.clock
  o.call, current = nil, world
  for _, effect in ipairs(o.engine:handle(event)) do
    perform[effect.kind](world, o, effect)
  end
  flush(world, o)
  world.version = world.version + 1
end

local function send(world, o, kind, item, delay)
  item.id, item.life = o.id, o.life
  if delay then
    world.oracle:delayed(world, delay, kind)
  end
  world:post(delay or world:latency(), kind, item)
end

function perform.arm(_, o, effect)
  o.doorbell:set(effect.topic, effect.partition, effect.offset)
end

perform.disarm = perform.arm

function perform.done() end

function perform.call(world, o, effect)
  o.call = effect.at
  if o.planned ~= effect.at then
    o.planned = effect.at
    world:post(math.max(0, effect.at - world.clock), "timer", { id = o.id, life = o.life, call = effect.at })
  end
end

function handlers.timer(world, item)
  local o = alive(world, item)
  if o and o.planned == item.call then
    o.planned = nil
  end
  if o and o.call == item.call then
    observer.emit(world, o, { kind = "timer" })
  end
end

function perform.note(world, o, effect)
  if effect.code == "woken" then
    world.oracle:confirmed(world, o, effect.fields.name)
  end
  world:say("observer %d: %s %s %s", o.id, effect.job, effect.code, effect.fields.reason or "")
end

function perform.list(world, o, effect)
  send(world, o, "list", { target = effect.target, sent = world.clock })
end

function handlers.list(world, item)
  local o, fault = alive(world, item), world:fault("list")
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
  local o = alive(world, item)
  if not o then
    return
  end
  world.oracle:listed(world, o, item)
  observer.emit(world, o, item.failed
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
  local o, fault = alive(world, item), world:fault("read")
  local how = fault and fault.how
  if not o then
    return
  elseif world.down or how == "timeout" then
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
  local o = alive(world, item)
  if not o then
    return
  elseif world.down then
    return read_fails(world, o, item)
  end
  for _, part in ipairs(item.parts) do
    local state = world.cluster:partition(part.topic, part.partition)
    if state and not part.error then
      part.low, part.end_offset = state.low, world.cluster:stable(state)
      local refused = part.committed and world.cluster:out_of_range(part.topic, part.partition, part.committed)
      part.work = world.cluster:consumable(part.topic, part.partition, not refused and part.committed or 0) ~= nil
    end
  end
  send(world, o, "read", item)
end

function handlers.read(world, item)
  local o = alive(world, item)
  if o then
    world.oracle:read(world, o, item)
    observer.emit(world, o, item.failed
      and { kind = "offsets", unit = item.unit, error = "_TIMED_OUT", message = "timed out" }
      or { kind = "offsets", unit = item.unit, parts = item.parts })
  end
end

function perform.submit(world, o, effect)
  world:say("observer %d submits %s, %d instance(s) %s, %s", o.id, effect.name, #effect.indices,
    table.concat(effect.indices, ","), effect.env.ROUSE_ASSIGN)
  world.oracle:submitting(world, o, effect)
  send(world, o, "submit", { effect = effect, sent = world.clock, basis = o.basis })
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
  local o, answer = alive(world, item), item.answer
  if o then
    world.oracle:answered(world, o, answer)
    observer.emit(world, o, { kind = "submitted", unit = answer.effect.unit, name = answer.effect.name,
      run = not answer.code and answer.run or nil, error = answer.code, message = answer.code,
      retry_after = answer.retry_after })
  end
end

function perform.get(world, o, effect)
  send(world, o, "get", { effect = effect })
end

function handlers.get(world, item)
  local o, fault = alive(world, item), world:fault("get")
  if o then
    local run = world.project:get(item.effect.name)
    local code = fault and "UNAVAILABLE" or not run and "NOT_FOUND" or nil
    send(world, o, "got", { effect = item.effect, run = not code and run or nil, code = code })
  end
end

function handlers.got(world, item)
  local o = alive(world, item)
  if o then
    world.oracle:got(world, o, item)
    observer.emit(world, o, { kind = "got", unit = item.effect.unit, name = item.effect.name, run = item.run,
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
  local o, effect = alive(world, item), item.effect
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
  local o, effect, fault = alive(world, item), item.effect, world:fault("commit")
  if not o then
    return
  end
  local code
  if world.down or fault then
    code = "_TIMED_OUT"
  elseif consumers.members(world, item.group) > 0 then
    code = "UNKNOWN_MEMBER_ID"
  else
    world:say("observer %d commits %s %s/%d at %d", o.id, item.group, effect.topic, effect.partition, effect.offset)
    world.oracle:beginning(world, item.group, effect)
    world.cluster:commit(item.group, effect.topic, effect.partition, effect.offset)
    world.oracle:observer_committed(world, item.group, effect)
  end
  send(world, o, "committed", { effect = effect, code = code })
end

function handlers.committed(world, item)
  local o, effect = alive(world, item), item.effect
  if o then
    observer.emit(world, o, { kind = "committed", unit = effect.unit, topic = effect.topic,
      partition = effect.partition, offset = effect.offset, error = item.code })
  end
end

function perform.renew() end

return observer
