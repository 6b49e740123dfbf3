--- A world in virtual time: an in-memory Kafka and Code Engine, the consumers that its runs start, and observers with the real
--- wake engine. What happens is a queue of plain items; every item is one step, after which the oracle looks at everything.
local bells = require "rouse.sim.bells"
local codeengine = require "rouse.sim.codeengine"
local consumer = require "rouse.sim.consumer"
local heap = require "rouse.sim.heap"
local kafka = require "rouse.sim.kafka"
local modes = require "rouse.observer.modes"
local observer = require "rouse.sim.observer"
local oracle = require "rouse.sim.oracle"
local random = require "rouse.sim.random"
local renewing = require "rouse.sim.renewing"
local requests = require "rouse.sim.requests"
local retention = require "rouse.sim.retention"
local steps = require "rouse.sim.steps"

local World = { __name = "rouse.sim.world" }
World.__index = World

local world = {}

-- Far from every offset and from each other, so that times can be told from other numbers in a state.
world.CLOCK, world.WALL = 1000000, 1700000000

local HANDLERS = {}
for _, part in ipairs { observer, bells, requests, consumer, steps, renewing, retention } do
  for kind, handler in pairs(part.handlers) do
    HANDLERS[kind] = handler
  end
end

local DEFAULTS = {
  seed = 1, observers = 1, latency = { 0.01, 0.3 }, fetch_delay = 0.25, patience = 5, status_delay = { 0, 2 },
  start_delay = { 0.5, 3 }, tick = 1, rate = 50, commit_every = 5, steps = {}, broken = {}, refresh = true,
}

---@class rouse.sim.Config
---@field routes table[] as rouse.config.routes.from_table returns them
---@field jobs table<string, table<string, string>> job → environment of its definition
---@field topics table<string, integer> topic → partitions
---@field decide function? a rule; default: the packaged observer's
---@field seed integer?
---@field observers integer?
---@field latency number[]? seconds a request takes one way, from and to
---@field renew { first: number, every: number }? how observers renew offsets; default: not at all
---@field retention number? seconds after which a broker forgets offsets that nobody commits; default: never
---@field steps table[]? { at = seconds, kind = , ... }

---@param config rouse.sim.Config
function world.new(config)
  local self = setmetatable({ clock = world.CLOCK, wall = world.WALL, queue = {}, seq = 0, count = 0, version = 0 },
    World)
  self.config = setmetatable(config, { __index = DEFAULTS })
  self.cluster = kafka.new(config.topics)
  self.project = codeengine.new { jobs = config.jobs, quota = config.quota, vanish = config.vanish }
  self.noise, self.renewal_noise = random.new(config.seed or 1, "noise"), random.new(config.seed or 1, "renewal noise")
  self.faults, self.natures, self.races, self.observers, self.submits = {}, {}, {}, {}, {}
  self.gone, self.windows = {}, {} -- jobs that a reload took away; dedup windows that one changed
  self.compacted = {} -- topic/partition → true
  self.groups = {} -- group → topic/partition → the instance that owns it
  self.definitions = {}
  for name, env in pairs(config.jobs) do -- a job of the routes that is missing here does not exist
    self.definitions[name] = { name = name, env = env }
  end
  self.routes = config.routes -- as the files have them now; a reload changes them
  self.units = self:make_units()
  self.oracle = oracle.new(self)
  if config.retention then
    retention.open(self)
  end
  for id = 1, self.config.observers do
    observer.boot(self, id)
  end
  for _, step in ipairs(self.config.steps) do
    self:post(step.at, "step", { step = step })
  end
  return self
end

--- Units as the observer makes them from its routes; fresh tables, since the engine keeps them.
function World:make_units()
  return (modes.units(self.routes, self.definitions, {
    claims_group = self.config.claims_group, on_record = self.config.on_record ~= nil,
    target_of = function() return "codeengine" end,
  }))
end

--- The observer that an item is for, unless that process is gone.
function World:observer_of(item)
  local o = self.observers[item.id]
  return o.alive and o.life == item.life and o or nil
end

--- Gives an event to an observer's engine.
function World:emit(o, event)
  observer.emit(self, o, event)
end

--- Plans an item.
function World:post(delay, kind, item)
  self.seq = self.seq + 1
  item.at, item.seq, item.kind = self.clock + delay, self.seq, kind
  heap.push(self.queue, item)
end

--- Seconds that one way of a request takes.
function World:latency()
  local range = self.config.latency
  return self.noise:between(range[1], range[2])
end

function World:within(range)
  return self.noise:between(range[1], range[2])
end

--- What the clocks on the wall show, where nobody changed them.
function World:time()
  return self.wall + self.clock - world.CLOCK
end

--- A group's commit: a run's, or somebody else's.
---@param run table?
function World:commit(group, topic, partition, offset, run)
  self.cluster:commit(group, topic, partition, offset)
  retention.committed(self, group, topic, partition, run)
end

--- The run list changed; older states are kept for listings that answer late.
function World:list_changed()
  self.project:remember(self.clock)
end

--- The next planned fault of an operation, if any.
function World:fault(op)
  local list = self.faults[op]
  local fault = list and table.remove(list, 1)
  if fault then
    retention.disturb(self)
  end
  return fault
end

function World:say(format, ...)
  if self.trace then
    self.trace[#self.trace + 1] = ("%10.3f  " .. format):format(self.clock - world.CLOCK, ...)
  end
end

--- Something changed on a partition: parked fetches look again.
function World:kick(topic, partition)
  for _, each in ipairs(self.observers) do
    bells.kick(self, each, topic, partition)
  end
end

--- Performs one item; false when there is none left.
function World:step(item)
  self.clock = math.max(self.clock, item.at)
  self.oracle:before(self)
  self.count = self.count + 1
  HANDLERS[item.kind](self, item)
  self.oracle:after(self)
end

--- Lets time pass up to `seconds` from the world's beginning, or until a violation.
function World:run_until(seconds)
  local stop = world.CLOCK + seconds
  while self.queue[1] and self.queue[1].at <= stop and not self.violation do
    self:step(heap.pop(self.queue))
  end
  if not self.violation then
    self.clock = math.max(self.clock, stop)
    self.oracle:before(self)
  end
end

function World:elapsed()
  return self.clock - world.CLOCK
end

--- The first broken invariant is kept.
function World:violate(invariant, format, ...)
  if not self.violation then
    self.violation = { invariant = invariant, message = format:format(...), at = self:elapsed() }
    self:say("!! %s: %s", invariant, self.violation.message)
  end
end

return world
