--- A simulated observer process: the real wake engine and the real doorbell, with a runtime that performs effects as
--- rouse.observer does (rouse.sim.requests, rouse.sim.bells). A crash forgets everything; answers to a former life are lost.
local bells = require "rouse.sim.bells"
local packaged = require "rouse.sim.packaged"
local requests = require "rouse.sim.requests"
local retention = require "rouse.sim.retention"
local verdicts = require "rouse.verdict"
local wake = require "rouse.wake"

local observer = { handlers = {} }
local handlers = observer.handlers

local REFRESH = 60 -- seconds between looks at the topics
local RELOOK = 2 -- seconds after one that missed a topic
local WATCH = 6 -- seconds within which changed files are found

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

--- Topics that two looks in a row did not find are gone.
local function tell_gone(world, o)
  local names = {}
  for name in pairs(o.counts) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local absent = not world.cluster.topics[name]
    if absent and o.suspects[name] then
      local keep = {}
      for _, unit in ipairs(o.engine.units) do
        keep[unit.id] = unit.topics[name] ~= nil or nil
      end
      o.counts[name], absent = nil, false
      world:say("observer %d: %s is gone", o.id, name)
      world.oracle:gone(o, name)
      observer.emit(world, o, { kind = "gone", topic = name, keep = keep })
    end
    o.suspects[name] = absent or nil
  end
end

local function tell_partitions(world, o)
  tell_gone(world, o)
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
    counts = {}, suspects = {}, noise = world.noise }
  bells.open(world, o)
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

--- The files have changed: each observer finds out in its own time.
function observer.reload(world, rule_changed)
  for id, o in ipairs(world.observers) do
    if o.alive then
      world:post(world:within { 0, WATCH }, "reload", { id = id, life = o.life, rule_changed = rule_changed })
    end
  end
end

function handlers.reload(world, item)
  local o, config = world:observer_of(item), world.config
  if not o then
    return -- whoever starts later reads the files as they are then
  end
  local event = { kind = "reload", units = world:make_units(), rule_changed = item.rule_changed, renew = config.renew,
    decide = item.rule_changed and decider(config.decide or packaged.decide()) or nil }
  retention.disturb(world)
  observer.emit(world, o, event)
  local outcome, what = event.outcome, "the same routes"
  if #outcome.removed > 0 then
    what = table.concat(outcome.removed, ",") .. " gone"
  elseif #outcome.added > 0 then
    what = table.concat(outcome.added, ",") .. " new"
  end
  world:say("observer %d has reloaded: %s", o.id, what)
  world.oracle:reloaded(world, o, event)
  o.counts = {}
  tell_partitions(world, o)
end

function observer.crash(world, id)
  world.observers[id].alive = false
  world:say("observer %d crashes", id)
  world.oracle:crashed(world)
end

--- Metadata again: partitions that were added.
function handlers.refresh(world, item)
  local o = world:observer_of(item)
  if o then
    if not world.down then
      tell_partitions(world, o)
    end
    world:post(next(o.suspects) and RELOOK or REFRESH, "refresh", { id = o.id, life = o.life })
  end
end

--- Kafka is there again: what the runtime does after metadata answered.
function handlers.reconnected(world, item)
  local o = world:observer_of(item)
  if o and not world.down then
    tell_partitions(world, o)
    observer.emit(world, o, { kind = "reevaluate" })
  end
end

-- ---- effects ----

local perform = setmetatable({}, { __index = requests.perform })

--- Gives an event to the engine and performs what it wants.
function observer.emit(world, o, event)
  event.now, event.clock = world:time() + o.skew, world.clock
  o.call, current = nil, world
  for _, effect in ipairs(o.engine:handle(event)) do
    perform[effect.kind](world, o, effect)
  end
  bells.flush(world, o)
  world.version = world.version + 1
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
  local o = world:observer_of(item)
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

return observer
