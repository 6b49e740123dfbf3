--- The doorbell of a simulated observer: the real one, on consumers whose fetches the simulated broker parks and answers.
local packaged = require "rouse.sim.packaged"

local bells = { handlers = {} }
local handlers = bells.handlers

local TURN = 2.5 -- seconds between looks at what the doorbell may move to its patient handle

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
  local o = world:observer_of(item)
  local fetch = item.fetch
  if o and o.fetches[fetch.handle][key(fetch.topic, fetch.partition)] == fetch then
    fetch.parked = true
    look(world, o, fetch)
  end
end

function bells.kick(world, o, topic, partition)
  for _, handle in ipairs(o.alive and HANDLES or {}) do
    local fetch = o.fetches[handle][key(topic, partition)]
    if fetch and fetch.parked then
      look(world, o, fetch)
    end
  end
end

--- Arms and disarms what was set, and lets the quiet move on to the patient handle.
function bells.flush(world, o)
  packaged.set_clock(world.clock)
  o.doorbell:flush()
  if o.doorbell.patient and o.doorbell.crowd > 0 and not o.turning then
    o.turning = true
    world:post(TURN, "turn", { id = o.id, life = o.life })
  end
end

function handlers.turn(world, item)
  local o = world:observer_of(item)
  if o then
    o.turning = nil
    o.doorbell:turn(world.clock)
    bells.flush(world, o)
  end
end

function handlers.bell(world, item)
  local o, fetch = world:observer_of(item), item.fetch
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
    world:emit(o, event)
  end
end

--- Opens the doorbell of an observer.
function bells.open(world, o)
  local config = world.config
  local function handle(name, wait)
    return setmetatable({ world = world, observer = o, name = name, wait = wait }, Handle)
  end
  o.fetches = { quick = {}, patient = {} }
  o.doorbell = packaged.doorbell().new(handle("quick", config.fetch_delay), nil, nil,
    config.patience and handle("patient", config.patience) or nil)
end

return bells
