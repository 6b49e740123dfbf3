--- The consumers that runs start: each instance is a process that begins after a while, consumes its partitions (by index, or its
--- share of the group), commits in batches and exits when idle, unless its run was given another fate: it crashes, exits
--- without progress, stalls, or waits long for its start.
local consumer = { handlers = {} }
local handlers = consumer.handlers

local function key(topic, partition)
  return topic .. "/" .. partition
end

local function group_of(world, name)
  local group = world.groups[name]
  if not group then
    group = { members = {}, owner = {} }
    world.groups[name] = group
  end
  return group
end

--- Live members of a group; instances that assign by index are none.
function consumer.members(world, name)
  return #group_of(world, name).members
end

--- Whether instances of a group are alive, however they assign.
function consumer.is_served(world, name)
  for _, run in ipairs(world.project.runs) do
    if run.live > 0 and run.group == name then
      return true
    end
  end
  return false
end

local function idle_timeout(world, job)
  for _, unit in ipairs(world.units) do
    if unit.job == job then
      return unit.spec.idle_timeout or 60
    end
  end
  return 60
end

--- A run was created: its instances begin in their own time.
function consumer.started(world, run)
  local env = setmetatable({}, { __index = world.project.jobs[run.job] })
  for name, value in pairs(run.env or {}) do
    env[name] = value
  end
  run.nature = table.remove(world.natures, 1) or {}
  run.group, run.by_index, run.reset = env.CONSUMER_GROUP, env.ROUSE_ASSIGN == "index", env.ROUSE_RESET or "earliest"
  run.idle, run.topics = idle_timeout(world, run.job), {}
  for topic in (env.KAFKA_TOPIC or ""):gmatch("[^,%s]+") do
    run.topics[#run.topics + 1] = topic
  end
  for _, index in ipairs(run.shown.indices) do
    local inst = run.instances[index]
    inst.pos, inst.took = {}, 0
    world:post(run.nature.pending or world:within(world.config.start_delay), "begin", { run = run, inst = inst })
  end
end

--- Somebody deleted the run: what still runs ends.
function consumer.removed(world, name)
  local run = world.project.by_name[name]
  for _, inst in pairs(run and run.instances or {}) do
    if inst.state ~= "ended" then
      consumer.finish(world, run, inst, false)
    end
  end
end

--- The process of an instance is over; the API shows it a little later.
function consumer.finish(world, run, inst, ok)
  inst.state = "ended"
  run.live = run.live - 1
  local members = group_of(world, run.group or "").members
  for i, member in ipairs(members) do
    if member == inst then
      table.remove(members, i)
    end
  end
  world.version = world.version + 1
  world:say("run %s: instance %d %s", run.name, inst.index, ok and "exits" or "fails")
  world.oracle:instance_ended(world, run)
  world:post(world:within(world.config.status_delay), "shown", { run = run, inst = inst, ok = ok })
end

function handlers.shown(world, item)
  if world.project.by_name[item.run.name] == item.run then
    world.project:show_ended(item.run, item.inst.index, item.ok, world:time(), world.clock)
    world:list_changed()
  end
end

--- The partitions an instance has now: its index, or its share of the group's.
local function share(world, run, inst)
  local parts = {}
  local members = not run.by_index and group_of(world, run.group).members
  local rank = 0
  for i, member in ipairs(members or {}) do
    rank = member == inst and i - 1 or rank
  end
  local n = 0
  for _, name in ipairs(run.topics) do
    local topic = world.cluster.topics[name]
    for partition = 0, topic and topic.count - 1 or -1 do
      if (run.by_index and partition == inst.index) or (members and n % #members == rank) then
        parts[#parts + 1] = { topic = name, partition = partition }
      end
      n = n + 1
    end
  end
  return parts
end

local function commit(world, run, inst, topic, partition)
  local name = key(topic, partition)
  local position = inst.pos[name]
  local there = world.cluster:committed(run.group, topic, partition)
  if not position or inst.unsaved and not inst.unsaved[name] then
    return true
  elseif run.by_index and there and there > position and not world.cluster:out_of_range(topic, partition, there) then
    return false -- somebody else is further: this one stops
  end
  world:commit(run.group, topic, partition, position, run)
  world:say("run %s: commits %s at %d", run.name, name, position)
  world.oracle:consumed(world, run, topic, partition)
  inst.unsaved[name] = nil
  return true
end

--- Where an instance reads on; a partition that changes hands is committed by its former owner first.
local function position(world, run, inst, part)
  local name = key(part.topic, part.partition)
  if not run.by_index then
    local group = group_of(world, run.group)
    local former = group.owner[name]
    if former ~= inst then
      if former and former.state == "running" and former.unsaved and former.unsaved[name] then
        world:commit(run.group, part.topic, part.partition, former.pos[name], run)
        former.unsaved[name] = nil
        world.oracle:consumed(world, run, part.topic, part.partition)
      end
      group.owner[name], inst.pos[name] = inst, nil
    end
  end
  local at = inst.pos[name]
  if not at or world.cluster:out_of_range(part.topic, part.partition, at) then
    at = world.cluster:start(run.group, part.topic, part.partition, run.reset)
      or world.cluster:stable(world.cluster:partition(part.topic, part.partition))
    inst.pos[name] = at
  end
  return at
end

function handlers.begin(world, item)
  local run, inst = item.run, item.inst
  if inst.state ~= "pending" then
    return
  end
  inst.state, inst.idle_since, inst.committed_at = "running", world.clock, world.clock
  world.project:show_running(run)
  if run.group and not run.by_index then
    table.insert(group_of(world, run.group).members, inst)
  end
  world.version = world.version + 1
  local fate = run.nature.fate
  if fate == "noop" or fate == "stall" then
    world:post(run.nature.delay or 1, "quit", { run = run, inst = inst, ok = fate == "noop" })
  elseif not world.config.by_hand then
    world:post(0, "tick", item)
  end
end

--- Takes and commits everything there is, when the world's consumers are moved by hand. False when there is nothing.
function consumer.work(world, run, inst)
  local took = false
  inst.unsaved = inst.unsaved or {}
  for _, part in ipairs(share(world, run, inst)) do
    local at, name = position(world, run, inst, part), key(part.topic, part.partition)
    local offset = world.cluster:consumable(part.topic, part.partition, at)
    while offset do
      at, took, inst.took = offset + 1, true, inst.took + 1
      inst.pos[name], inst.unsaved[name] = at, true
      offset = world.cluster:consumable(part.topic, part.partition, at)
    end
    commit(world, run, inst, part.topic, part.partition)
  end
  return took
end

--- Whether an instance has something to take.
function consumer.has_work(world, run, inst)
  for _, part in ipairs(share(world, run, inst)) do
    local start = inst.pos[key(part.topic, part.partition)]
      or world.cluster:start(run.group, part.topic, part.partition, run.reset) or math.huge
    if world.cluster:consumable(part.topic, part.partition, start) then
      return true
    end
  end
  return false
end

function handlers.quit(world, item)
  if item.inst.state == "running" then
    consumer.finish(world, item.run, item.inst, item.ok)
  end
end

local function leave(world, run, inst)
  for _, race in ipairs { table.remove(world.races, 1) } do
    world:post(math.max(0, race.delta), "step", { step = race.step })
  end
  consumer.finish(world, run, inst, true)
end

--- A consumer at work: takes what is there, commits now and then, leaves after a last look when idle.
function handlers.tick(world, item)
  local run, inst = item.run, item.inst
  if inst.state ~= "running" then
    return
  end
  local nature, took, budget = run.nature, 0, world.config.rate
  inst.unsaved = inst.unsaved or {}
  local parts = share(world, run, inst)
  for _, part in ipairs(world.down and {} or parts) do
    local at, name = position(world, run, inst, part), key(part.topic, part.partition)
    while budget > 0 do
      local offset = world.cluster:consumable(part.topic, part.partition, at)
      if not offset then
        break
      end
      at, took, budget = offset + 1, took + 1, budget - 1
      if nature.fate == "crash" and inst.took + took > (nature.after or 0) then
        return consumer.finish(world, run, inst, false) -- what it took since its last commit is not committed
      end
      inst.pos[name], inst.unsaved[name] = at, true
    end
  end
  inst.took = inst.took + took
  if took > 0 then
    inst.idle_since = world.clock
  end
  local idle = world.clock - inst.idle_since >= run.idle
  if not world.down and (idle or world.clock - inst.committed_at >= world.config.commit_every) then
    inst.committed_at = world.clock
    for _, part in ipairs(parts) do
      if not commit(world, run, inst, part.topic, part.partition) then
        return consumer.finish(world, run, inst, true)
      end
    end
  end
  if idle and not world.down then
    return leave(world, run, inst)
  end
  world:post(math.min(world.config.tick, math.max(0.01, inst.idle_since + run.idle - world.clock)), "tick", item)
end

--- Somebody outside the run list consumes a partition of a group for a while.
function handlers.foreign(world, item)
  if world.clock > item.stop or world.down then
    return
  end
  local at = world.cluster:start(item.group, item.topic, item.partition, "earliest")
  local first = at
  while at do
    local offset = world.cluster:consumable(item.topic, item.partition, at)
    if not offset then
      break
    end
    at = offset + 1
  end
  if at and at ~= first then
    world:commit(item.group, item.topic, item.partition, at)
    world:say("somebody else commits %s %s/%d at %d", item.group, item.topic, item.partition, at)
    world.oracle:served(world, item)
  end
  world:post(world.noise:between(1, 4), "foreign", item)
end

return consumer
