--- Rules in virtual time: an in-memory Kafka and Code Engine, consumers, and an observer with the real wake engine and the rule
--- under test. A day passes in milliseconds, the same seed gives the same day, and an invariant of the engine that breaks raises.
local options = require "rouse.options"
local random = require "rouse.sim.random"
local renewal = require "rouse.wake.renewal"
local routes = require "rouse.config.routes"
local steps = require "rouse.sim.steps"
local world = require "rouse.sim.world"

local sim = {}

---@class rouse.sim.Options
---@field routes table<string, table> as in a script: { TOPIC = { jobs = { ... } } }; default: the script's
---@field script table? an observer script: its routes and its decide
---@field decide (fun(job: table, ctx: table): table)? the rule; default: the script's, else the packaged observer's
---@field topics table<string, integer>? topic → partitions; default: the route's, else 1
---@field jobs table<string, table<string, string>>? job → environment of its definition
---@field observers integer?
---@field seed integer?
---@field retention number? seconds after which a broker forgets offsets; observers renew them, as the script says

local OPTIONS <const> = {
  { name = "routes", type = "table" }, { name = "script", type = "table" }, { name = "decide", type = "function" },
  { name = "topics", type = "table" }, { name = "jobs", type = "table" },
  { name = "observers", type = "integer", min = 1, default = 1 }, { name = "seed", type = "integer", default = 1 },
  { name = "latency", type = "table", default = { 0.005, 0.1 } }, { name = "quota", type = "integer", min = 1 },
  { name = "vanish", type = "boolean" }, { name = "retention", type = "number", min = 1 },
}

---@class rouse.sim
---@field private world table
local Sim = { __name = "rouse.sim" }
Sim.__index = Sim

--- A new world; its observers start at once.
---@param given rouse.sim.Options
---@return rouse.sim
function sim.new(given)
  local chosen = options.check(given, OPTIONS, "sim.new")
  local observe = chosen.script and chosen.script.observe or {}
  local list = chosen.routes or observe.routes
  if not list then
    error("sim.new: no routes, in routes or in the script's observe", 2)
  end
  list = list[1] and list or routes.from_table(list)
  local topics, jobs = {}, {}
  for _, route in ipairs(list) do
    topics[route.topic] = not route.pattern and (route.partitions or 1) or nil
    for _, job in ipairs(route.jobs) do
      jobs[job.name] = {}
    end
  end
  for name, count in pairs(chosen.topics or {}) do
    topics[name] = count
  end
  for name, env in pairs(chosen.jobs or {}) do
    jobs[name] = env
  end
  local made = world.new {
    seed = chosen.seed, observers = chosen.observers, routes = list, topics = topics, jobs = jobs,
    latency = chosen.latency, quota = chosen.quota, vanish = chosen.vanish,
    retention = chosen.retention, renew = chosen.retention and renewal.choice(observe.renew_offsets) or nil,
    decide = chosen.decide or (chosen.script and chosen.script.decide),
  }
  made.trace = {}
  return setmetatable({ world = made, random = random.new(chosen.seed, "sim") }, Sim)
end

--- Seconds since the beginning.
---@return number
function Sim:now()
  return self.world:elapsed()
end

--- Does at once what a step of a schedule does: { kind = "trim" | "fault" | "crash" | ..., ... } (rouse.sim.steps).
---@param step table
function Sim:step(step)
  if not steps.perform[step.kind] then
    local names = {}
    for name in pairs(steps.perform) do
      names[#names + 1] = name
    end
    table.sort(names)
    error(("sim: unknown step '%s'%s"):format(tostring(step.kind), options.hint(step.kind, names)), 2)
  end
  self.world:post(0, "step", { step = step })
  self:advance(0)
end

--- Appends records to a partition.
---@param topic string
---@param partition integer? default: any
---@param count integer? default 1
---@return integer partition
function Sim:produce(topic, partition, count)
  local there = self.world.cluster.topics[topic]
  if not there then
    error(("sim: there is no topic '%s'"):format(topic), 2)
  end
  partition = partition or self.random:int(0, there.count - 1)
  self:step { kind = "produce", topic = topic, partition = partition, count = count }
  return partition
end

--- Lets time pass. Raises when an invariant of the engine breaks.
---@param seconds number
function Sim:advance(seconds)
  self.world:run_until(self.world:elapsed() + seconds)
  local broken = self.world.violation
  if broken then
    error(("sim: %s at %.3f: %s\n%s"):format(broken.invariant, broken.at, broken.message, self:trace()), 0)
  end
end

--- The job runs as Code Engine shows them.
---@return table[]
function Sim:runs()
  return self.world.project:list()
end

--- Every submit that reached Code Engine: at, name, job, indices, instances, env, error (a code, when refused).
---@return table[]
function Sim:submits()
  return self.world.submits
end

--- A group's committed offset, or nil.
---@return integer?
function Sim:committed(group, topic, partition)
  return self.world.cluster:committed(group, topic, partition)
end

--- What happened, a line per event.
---@return string
function Sim:trace()
  return table.concat(self.world.trace, "\n")
end

return sim
