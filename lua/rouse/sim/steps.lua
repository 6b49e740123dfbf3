--- What a schedule can do to the world: each kind of step, performed at its time.
local consumers = require "rouse.sim.consumer"
local observer = require "rouse.sim.observer"
local retention = require "rouse.sim.retention"

local steps = { handlers = {} }
local perform = {}

local function changed(world, step)
  world:kick(step.topic, step.partition)
end

local function there(world, step)
  return world.cluster:partition(step.topic, step.partition) ~= nil
end

function perform.produce(world, step)
  if there(world, step) then
    world.cluster:produce(step.topic, step.partition, step.count or 1)
    changed(world, step)
  end
end

--- Records of a transaction that is still open.
function perform.open(world, step)
  if there(world, step) then
    world.cluster:produce(step.topic, step.partition, step.count or 1, true)
  end
end

--- Ends the partition's transaction: outcome is "committed" or "aborted".
function perform.finish(world, step)
  if there(world, step) and world.cluster:finish(step.topic, step.partition, step.outcome) then
    changed(world, step)
  end
end

--- Retention up to `back` records before the end.
function perform.trim(world, step)
  if there(world, step) then
    local part = world.cluster:partition(step.topic, step.partition)
    world.cluster:trim(step.topic, step.partition, part.high - (step.back or 0))
    world.oracle:moved(world, step.topic, step.partition)
    changed(world, step)
  end
end

function perform.compact(world, step)
  if there(world, step) then
    local part = world.cluster:partition(step.topic, step.partition)
    world.compacted[step.topic .. "/" .. step.partition] = true
    world.cluster:compact(step.topic, step.partition, part.high - (step.back or 0))
  end
end

function perform.recreate(world, step)
  if not world.cluster.topics[step.topic] then
    return
  end
  world.cluster:recreate(step.topic, step.keep)
  for partition = 0, world.cluster.topics[step.topic].count - 1 do
    world.oracle:moved(world, step.topic, partition)
    world:kick(step.topic, partition)
  end
end

--- Deleted for good, or until it is created again `back` seconds later, empty.
function perform.delete(world, step)
  local topic = world.cluster.topics[step.topic]
  if topic then
    world.cluster:delete(step.topic)
    world.oracle:deleted(world, step.topic)
    if step.back then
      world:post(step.back, "step", { step = { kind = "create", topic = step.topic, partitions = topic.count } })
    end
  end
end

function perform.create(world, step)
  world.cluster:create(step.topic, step.partitions)
  for partition = 0, step.partitions - 1 do
    world.oracle:moved(world, step.topic, partition)
    world:kick(step.topic, partition)
  end
end

function perform.grow(world, step)
  if not world.cluster.topics[step.topic] then
    return
  end
  local before = world.cluster.topics[step.topic].count
  world.cluster:grow(step.topic, step.partitions)
  for partition = before, step.partitions - 1 do
    world.oracle:moved(world, step.topic, partition)
  end
end

--- Somebody sets a group's offset, `back` records before the end.
function perform.rewind(world, step)
  if there(world, step) and consumers.members(world, step.group) == 0 then
    local part = world.cluster:partition(step.topic, step.partition)
    local offset = math.max(part.low, part.high - (step.back or 0))
    if offset > (world.cluster:committed(step.group, step.topic, step.partition) or -1) then
      world.oracle:served(world, step)
    end
    world:commit(step.group, step.topic, step.partition, offset)
    world.oracle:moved(world, step.topic, step.partition)
  end
end

--- The group's commit of a partition is too old and goes; not while somebody of the group is at work.
function perform.expire(world, step)
  if there(world, step) and not consumers.is_served(world, step.group)
    and world.cluster:committed(step.group, step.topic, step.partition) then
    world.cluster:expire(step.group, step.topic, step.partition)
    world.oracle:moved(world, step.topic, step.partition)
  end
end

function perform.crash(world, step)
  if world.observers[step.observer].alive then
    observer.crash(world, step.observer)
  end
end

function perform.boot(world, step)
  if not world.observers[step.observer].alive then
    observer.boot(world, step.observer)
  end
end

--- The wall clock of an observer's machine jumps.
function perform.skew(world, step)
  local o = world.observers[step.observer]
  o.skew = o.skew + step.seconds
end

--- The next request of this kind goes wrong: op, how, and for some delay or retry_after.
function perform.fault(world, step)
  world.faults[step.op] = world.faults[step.op] or {}
  table.insert(world.faults[step.op], step)
end

--- The routes without some of their jobs, or with other dedup windows. What is not named is as it was at first.
---@param names table<string, boolean> jobs that are gone
---@param windows table<string, number>
local function edited(routes, names, windows)
  local list = {}
  for _, route in ipairs(routes) do
    local copy, jobs = {}, {}
    for name, value in pairs(route) do
      copy[name] = value
    end
    for _, job in ipairs(route.jobs) do
      local now = {}
      for name, value in pairs(job) do
        now[name] = value
      end
      now.dedup_window = windows[job.name] or now.dedup_window
      jobs[#jobs + 1] = not names[job.name] and now or nil
    end
    copy.jobs = jobs
    list[#list + 1] = #jobs > 0 and copy or nil
  end
  return list
end

--- The observers' files change. what: "same" (written anew), "rule", "bad" (nobody takes it), "remove" or "back" (a job),
--- "window" (a job's dedup window is `seconds` now).
function perform.reload(world, step)
  local gone, windows = world.gone, world.windows
  if step.what == "bad" then
    return
  elseif step.what == "remove" or step.what == "back" then
    gone[step.job] = step.what == "remove" or nil
  elseif step.what == "window" then
    windows[step.job] = step.seconds
  end
  world.routes = edited(world.config.routes, gone, windows)
  world.oracle:edited(world)
  observer.reload(world, step.what == "rule")
end

--- Faults that nobody met are over, and so are edits that took routes away.
function perform.calm(world)
  world.faults, world.natures, world.races = {}, {}, {}
  if next(world.gone) then
    world.gone = {}
    perform.reload(world, { what = "same" })
  end
end

--- The next run has this fate.
function perform.nature(world, step)
  table.insert(world.natures, step)
end

--- A record arrives `delta` seconds around the next idle exit.
function perform.race(world, step)
  table.insert(world.races, { delta = step.delta,
    step = { kind = "produce", topic = step.topic, partition = step.partition } })
end

--- No broker answers for a while.
function perform.down(world, step)
  world.down = true
  world:post(step.seconds, "step", { step = { kind = "up" } })
end

function perform.up(world)
  world.down = nil
  world.oracle:up(world)
  for _, name in ipairs(world.cluster:names()) do
    for partition = 0, world.cluster.topics[name].count - 1 do
      world:kick(name, partition)
    end
  end
  for id, o in ipairs(world.observers) do
    world:post(2 + world:latency(), "reconnected", { id = id, life = o.life })
  end
end

--- Somebody else serves a partition of a group for `seconds`.
function perform.foreign(world, step)
  world:post(0, "foreign", { group = step.group, topic = step.topic, partition = step.partition,
    stop = world.clock + step.seconds })
end

--- Somebody submits a run by hand.
function perform.run(world, step)
  local run = world.project:create({ job = step.job, name = step.name, indices = step.indices, env = step.env or {} },
    world:time())
  if run then
    consumers.started(world, run)
    world:list_changed()
  end
end

function steps.handlers.step(world, item)
  local step = item.step
  local words = {}
  for name, value in pairs(step) do
    if name ~= "at" and name ~= "kind" and type(value) ~= "table" then
      words[#words + 1] = name .. "=" .. tostring(value)
    end
  end
  table.sort(words)
  world:say("-- %s %s", step.kind, table.concat(words, " "))
  retention.step(world, step)
  perform[step.kind](world, step)
  world.version = world.version + 1
end

steps.perform = perform

return steps
