--- The wake engine: a pure state machine. Events in (rung, runs listed, offsets read, submit answered, time), effects out
--- (list, read, arm, submit, get, remove, done, call me at). It never waits, never reads a clock and never does I/O, so every
--- schedule can be played in virtual time; rouse.observer performs its effects.
---
--- Every event carries `now` (epoch seconds) and `clock` (monotonic seconds). A unit is one (job, group) pair; it goes
---   idle → listing → reading → (decide) → submitting [→ asking] → idle
--- in that order because a submit is a compare-and-swap on the run list (list, then offsets, then submit).
local attempts = require "rouse.wake.attempts"
local claiming = require "rouse.wake.claiming"
local coverage = require "rouse.wake.coverage"
local decide = require "rouse.wake.decide"
local doors = require "rouse.wake.doors"
local events = require "rouse.wake.events"
local facts = require "rouse.wake.facts"
local naming = require "rouse.wake.naming"
local reload = require "rouse.wake.reload"
local renewal = require "rouse.wake.renewal"
local watch = require "rouse.wake.watch"

local wake = {}

wake.GATHER = 0.25 -- seconds to wait for a burst's other partitions, so that one run serves them all

---@class rouse.Unit
---@field id string
---@field job string
---@field group string? nil in claims mode
---@field mode "lag"|"claims"
---@field assign "group"|"index"
---@field target string
---@field topics table<string, { reset: string }>
---@field spec table the job as kafkadata or the script wrote it
---@field parts rouse.Part[] sorted by topic, partition
---@field phase "idle"|"waiting"|"listing"|"reading"|"refreshing"|"submitting"|"asking"
---@field due number? clock of the next look

local Engine = { __name = "rouse.wake" }
Engine.__index = Engine

---@class rouse.WakeOptions
---@field units table[] { job, group, mode, assign, target, topics, spec }
---@field jobs table<string, table<string, string>> job → environment of its definition
---@field decide fun(job: table, ctx: table): table|nil, string? the rule; nil and a message when it failed
---@field random (fun(): number)? for the jitter of back-offs
---@field quota table<string, integer>? target → most runs it keeps
---@field gather number? seconds to wait for the rings of a burst's other partitions
---@field renew { first: number, every: number }? seconds between renewals of quiet groups' offsets

--- A new engine; nothing happens before its "start" event.
---@param options rouse.WakeOptions
function wake.new(options)
  local engine = setmetatable({
    units = {}, by_id = {}, jobs = options.jobs or {}, decide = options.decide, quota = options.quota or {},
    renew = options.renew, random = options.random or math.random, targets = {}, doors = {}, touched = {}, ended = {},
    windows = {}, retired = {}, renewing = {}, removed = {}, created = {}, rested = {}, last_alive = {}, forget_at = 0,
    gather = options.gather or wake.GATHER, effects = {}, now = 0, clock = 0,
  }, Engine)
  for _, given in ipairs(options.units) do
    engine:add(given)
  end
  return engine
end

--- What is known of a target.
function Engine:target_of(name)
  local target = self.targets[name]
  if not target then
    target = { failures = 0, runs = {} }
    self.targets[name] = target
  end
  return target
end

--- A unit more, which knows nothing yet.
function Engine:add(given)
  local unit = {
    id = given.job .. "/" .. (given.group or "claims"), job = given.job, group = given.group, mode = given.mode,
    assign = given.assign or "group", target = given.target or "codeengine", topics = given.topics,
    spec = given.spec or {}, parts = {}, index = {}, phase = "idle", read_failures = 0,
  }
  self.units[#self.units + 1] = unit
  self.by_id[unit.id] = unit
  self:target_of(unit.target)
  return unit
end

--- Takes an event, returns the effects it causes.
---@param event table { kind=, now=, clock=, ... }
---@return table[] effects
function Engine:handle(event)
  self.now, self.clock = event.now, event.clock
  self.effects = {}
  local handler = self["on_" .. event.kind]
  assert(handler, "wake: unknown event " .. tostring(event.kind))
  self:advance(handler(self, event) or self.units)
  return self.effects
end

function Engine:effect(effect)
  self.effects[#self.effects + 1] = effect
end

--- Says what was decided for a unit, once per change.
function Engine:note(unit, code, fields)
  local last = unit.decision
  local reason = fields and fields.reason
  if last and last.code == code and last.reason == reason and code ~= "woken" then
    last.fields = fields
    return
  end
  unit.decision = { code = code, reason = reason, at = self.now, clock = self.clock, fields = fields }
  unit.woken = code == "woken" and unit.decision or unit.woken
  self:effect { kind = "note", unit = unit.id, job = unit.job, group = unit.group, code = code, fields = fields or {} }
end

--- Looks again at `seconds` from now, or earlier if something earlier is planned.
function Engine:look_in(unit, seconds)
  local at = self.clock + seconds
  unit.due = unit.due and math.min(unit.due, at) or at
end

for _, room in ipairs { events, claiming.events } do
  for name, handler in pairs(room) do
    Engine[name] = handler
  end
end

-- ---- evaluation ----

--- Marks work and coverage on every part, returns what covers the unit.
function Engine:mark(unit)
  local target = self.targets[unit.target]
  local cover = coverage.of(target.runs, unit, self.jobs)
  local spare = unit.mode == "claims" and cover.active or cover.instances
  for _, part in ipairs(unit.parts) do
    part.indexed = (cover.index[part.topic] and cover.index[part.topic][part.partition]) or false
    part.covered = part.indexed
    if unit.mode == "claims" then
      part.work, part.covered = unit.owing ~= nil and not part.foreign, false
    else
      part.work = not part.error and facts.has_work(part) and not (part.ignored and part.proof < part.ignored)
    end
    if part.work and not part.covered and spare > 0 then
      spare, part.covered = spare - 1, true -- group instances are counted, not mapped
    end
  end
  unit.active, unit.shared = cover.active, cover.instances
  unit.running = cover.runs
  return cover
end

--- Marks; what a run has left behind has to be proven anew: the record may be gone, by compaction say, and the run found nothing.
function Engine:reprove(unit)
  local shared = unit.shared or 0
  for _, part in ipairs(unit.parts) do
    part.was_served = part.indexed
  end
  self:mark(unit)
  for _, part in ipairs(unit.parts) do
    if part.work and not part.covered and unit.mode == "lag" and (part.was_served or unit.shared < shared) then
      part.proof, part.work = nil, false
    end
  end
end

--- The heart: facts are fresh (listed, then read), so decide.
function Engine:evaluate(unit)
  unit.due = nil
  if unit.mode == "claims" then
    claiming.review(self, unit)
  end
  self:reprove(unit)
  local open = {}
  for _, part in ipairs(unit.parts) do
    part.held = nil
    if part.work and not part.covered then
      open[#open + 1] = part
    else
      watch.quiet(part)
    end
  end
  unit.phase = "idle"
  self:look_in(unit, (unit.active > 0 or unit.unread) and watch.ACTIVE or watch.IDLE)
  watch.progress(self, unit)
  if #open == 0 then
    unit.gather_until = nil
    claiming.covered(self, unit)
    self:note(unit, unit.active > 0 and "covered" or "no_work", { active = unit.active })
  else
    decide(self, unit, open)
  end
  doors.settle(self, unit)
  renewal.look(self, unit)
end

--- Holds parts that had work and got no instance: they count with the end they were evaluated at, until looked at again.
function Engine:hold(unit, parts, code, fields, seconds)
  for _, part in ipairs(parts) do
    part.held = part.end_offset
  end
  if seconds then
    self:look_in(unit, math.max(seconds, 0.01))
  end
  self:note(unit, code, fields)
end

-- ---- after every event ----

--- Whether an idle unit needs the run list, or only its commits.
local function needs_list(engine, unit)
  if unit.dirty or unit.unlisted or unit.mode == "claims" or (unit.active or 0) > 0 then
    return true
  elseif renewal.is_due(engine, unit) then
    return true
  elseif unit.calm == false then
    return true -- a run has just ended: only a list without it makes the unit calm again (rouse.wake.watch)
  end
  for _, part in ipairs(unit.parts) do
    if part.work or facts.has_work(part) then
      return true
    end
  end
  return false
end

--- Whether commits alone tell where the unit's work starts. Where there is none the low offset counts, and only at 0 it can be
--- no other without the doorbell, which stands there, being told: that of a topic made anew may be lower than it was.
local function knows_starts(unit)
  for _, part in ipairs(unit.parts) do
    if not part.committed and (part.start ~= 0 or part.low ~= 0) then
      return false
    end
  end
  return true
end

local function begin(self, unit)
  unit.due = nil
  if needs_list(self, unit) then
    unit.phase, unit.dirty = "waiting", false
  else
    unit.phase = "refreshing"
    self:effect { kind = "read", unit = unit.id, commits = not unit.unread and knows_starts(unit) }
  end
end

local function is_resting(unit)
  return unit.phase == "idle" and #unit.parts > 0 -- one whose topics are all gone has nothing to look at
end

-- Where idle commits are read, those that are due soon are read too.
local function begin_near(self)
  for _, unit in ipairs(self.units) do
    local near = is_resting(unit) and unit.due and unit.due <= self.clock + watch.AHEAD and not unit.unread
    if near and not needs_list(self, unit) then
      begin(self, unit)
    end
  end
end

--- Starts what is due.
---@return table<string, boolean> wanted targets whose runs have to be listed
local function begin_due(self, moved)
  local wanted, refreshing = {}, false
  for _, unit in ipairs(moved) do
    reload.retarget(unit)
    if is_resting(unit) and (unit.dirty or (unit.due and unit.due <= self.clock)) then
      begin(self, unit)
      refreshing = refreshing or unit.phase == "refreshing"
    end
    if unit.phase == "waiting" and not self.targets[unit.target].inflight then
      unit.phase = "listing"
      wanted[unit.target] = true
    end
  end
  if refreshing and moved == self.units then
    begin_near(self)
  end
  return wanted
end

--- The unit whose look comes first. Where it was not moved, only those that were can come before it.
local function first_due(self, moved)
  local first = moved ~= self.units and self.soonest or nil
  for _, unit in ipairs(first and moved or {}) do
    if unit == first then
      moved, first = self.units, nil
      break
    end
  end
  for _, unit in ipairs(moved) do
    if is_resting(unit) and unit.due and (not first or unit.due < first.due) then
      first = unit
    end
  end
  return first
end

--- Starts what is due, sends listings that are wanted, moves the doorbell, plans the next call.
---@param moved rouse.Unit[] those that the event can have moved: with many units, all of them are too many after each event
function Engine:advance(moved)
  for name in pairs(begin_due(self, moved)) do
    self.targets[name].inflight = true
    self:effect { kind = "list", target = name }
  end
  for door in pairs(self.touched) do
    doors.adjust(self, door)
  end
  self.touched = {}
  self.soonest = first_due(self, moved)
  if self.soonest then
    self:effect { kind = "call", at = self.soonest.due }
  end
end

wake.naming = naming
wake.attempts = attempts

return wake
