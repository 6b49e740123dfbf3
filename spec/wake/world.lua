-- A small world around the wake engine: plain facts, virtual time, effects collected by kind.
local verdict = require "rouse.verdict"
local wake = require "rouse.wake"

local World = {}
World.__index = World

local function default_decide()
  return verdict.wake { reason = "records are waiting" }
end

local world = {}

-- A unit on the topic "payments".
function world.unit(fields)
  local result = { job = "payments-consumer", group = "payments-group", mode = "lag", assign = "index",
    topics = { payments = { reset = "earliest" } }, spec = { dedup_window = 0, idle_timeout = 60 } }
  for name, value in pairs(fields or {}) do result[name] = value end
  return result
end

-- The commits on "payments", of partition 0 and so on.
function world.commits(...)
  local list = {}
  for i, offset in ipairs { ... } do list[i - 1] = offset end
  return { payments = list }
end

-- options: units, jobs, decide, and facts: commits[topic][partition], low, ends (one number each for all partitions).
function world.new(options)
  local self = setmetatable({
    now = 1000, clock = 0, runs = options.runs or {}, commits = options.commits or {},
    groups = options.groups or {}, low = options.low or 0,
    ends = options.ends or 100, effects = {}, armed = {}, log = {}, done = {}, read_error = nil, list_error = nil,
  }, World)
  self.engine = wake.new {
    units = options.units, jobs = options.jobs or {}, decide = options.decide or default_decide,
    random = function() return 0.5 end, gather = options.gather or 0,
  }
  return self
end

function World:send(event)
  event.now, event.clock = self.now, self.clock
  for _, effect in ipairs(self.engine:handle(event)) do
    self.log[#self.log + 1] = effect
    if effect.kind == "arm" then
      self.armed[effect.topic .. "/" .. effect.partition] = effect.offset
    elseif effect.kind == "disarm" then
      self.armed[effect.topic .. "/" .. effect.partition] = nil
    elseif effect.kind == "call" then
      self.call_at = effect.at
    elseif effect.kind == "done" then
      self.done[effect.topic .. "/" .. effect.partition] = effect.offset
    elseif effect.kind == "note" then
      self.last_note = effect
    else
      self.effects[#self.effects + 1] = effect
    end
  end
end

-- Removes and returns the oldest waiting effect of a kind.
function World:take(kind)
  for i, effect in ipairs(self.effects) do
    if effect.kind == kind then
      return table.remove(self.effects, i)
    end
  end
end

function World:copy_runs()
  local copy = {}
  for i, run in ipairs(self.runs) do
    local fields = {}
    for name, value in pairs(run) do fields[name] = value end
    copy[i] = fields
  end
  return copy
end

function World:answer_list()
  local effect = assert(self:take("list"), "no listing is wanted")
  if self.list_error then
    self:send { kind = "runs", target = effect.target, error = self.list_error, message = "down" }
  else
    self:send { kind = "runs", target = effect.target, runs = self:copy_runs(), sent = self.clock }
  end
end

function World:answer_read()
  local effect = assert(self:take("read"), "no reading is wanted")
  local parts, unit = {}, self.engine.by_id[effect.unit]
  if self.reading_error then
    return self:send { kind = "offsets", unit = effect.unit, error = self.reading_error, message = "down" }
  end
  for i, part in ipairs(unit.parts) do
    local commits = self.groups[unit.group] or self.commits
    local commit = (commits[part.topic] or {})[part.partition]
    parts[i] = { topic = part.topic, partition = part.partition, committed = commit or false,
      low = not effect.commits and self.low or nil, end_offset = not effect.commits and self.ends or nil,
      error = self.read_error }
  end
  self:send { kind = "offsets", unit = effect.unit, parts = parts }
end

-- Answers listings and readings until nothing but submits (and their like) is left.
function World:settle()
  while true do
    local effect
    for _, candidate in ipairs(self.effects) do
      if candidate.kind == "list" or candidate.kind == "read" then
        effect = candidate
        break
      end
    end
    if not effect then
      return
    end
    self["answer_" .. effect.kind](self)
  end
end

function World:start(partitions)
  for topic, count in pairs(partitions) do
    self:send { kind = "partitions", topic = topic, partitions = count }
  end
  self:send { kind = "start" }
  self:settle()
end

-- A record at `offset` is there: the doorbell rings where it is armed at or before it.
function World:record(topic, partition, offset)
  local key = topic .. "/" .. partition
  self.ends = math.max(self.ends, offset + 1)
  local armed = self.armed[key]
  if armed and armed <= offset then
    self.armed[key] = nil
    self:send { kind = "rung", topic = topic, partition = partition, offset = offset }
  end
end

function World:accept(effect, fields)
  local run = { name = effect.name, job = effect.job, status = "pending", created_at = self.now, indices = effect.indices,
    succeeded_indices = {}, failed_indices = {}, env = effect.env }
  for name, value in pairs(fields or {}) do run[name] = value end
  self.runs[#self.runs + 1] = run
  local copy = {}
  for name, value in pairs(run) do copy[name] = value end
  self:send { kind = "submitted", unit = effect.unit, name = effect.name, run = copy }
  return run
end

-- Lets time pass up to `seconds`, firing the engine's timer when it is due.
function World:pass(seconds)
  local stop = self.clock + seconds
  while self.call_at and self.call_at <= stop do
    local at = math.max(self.call_at, self.clock)
    self.now, self.clock, self.call_at = self.now + at - self.clock, at, nil
    self:send { kind = "timer" }
    self:settle()
    if self:pending("submit") then
      return
    end
  end
  self.now, self.clock = self.now + stop - self.clock, stop
end

function World:pending(kind)
  for _, effect in ipairs(self.effects) do
    if effect.kind == kind then
      return effect
    end
  end
end

return world
