--- How long a record may wait for its wake, computed from what went wrong in the world and the documented constants, never from
--- what an engine says it waits for.
local Bounds = { __name = "rouse.sim.bounds" }
Bounds.__index = Bounds

local bounds = {}

local ACTIVE, IDLE = 5, 60 -- seconds between evaluations while a run is active; between readings of idle groups
local PERMANENT = { INVALID = true, NOT_FOUND = true, FORBIDDEN = true, UNAUTHORIZED = true }
local FIRST, LIMIT, QUARANTINE = 5, 6, 600 -- back-off after runs without progress
local STILL = 10 -- seconds that a commit moved by somebody else has to stand still
local TIMEOUT = 30 -- of a request
local WATCH = 6 -- seconds within which an observer finds changed files
local HEADROOM, ROOM = 5, 10 -- runs kept free below the quota; seconds between looks for room

local function key(topic, partition)
  return topic .. "/" .. partition
end

function bounds.new(config)
  local latency = config.latency[2]
  return setmetatable({
    -- The timer of an active run, the end shown late, a fetch that waits for its predecessor, and twice list and read.
    detect = ACTIVE + config.status_delay[2] + 2 * config.fetch_delay + (config.renew and 20 or 14) * latency + 0.75,
    all = 0, units = {}, alive = 0, lists = {}, custom = config.decide ~= nil,
  }, Bounds)
end

function Bounds:of(unit)
  local mine = self.units[unit.id]
  if not mine then
    mine = { excuse = 0, parts = {}, failures_of = {}, reads_of = {}, flying_of = {}, fruitless = {}, ignored = {},
      served = {} }
    self.units[unit.id] = mine
  end
  return mine
end

local function fruitless_delay(count)
  return count >= LIMIT and QUARANTINE or math.min(QUARANTINE, FIRST * 2 ^ (count - 1))
end

local function later(mine, at, why)
  if at > mine.excuse then
    mine.excuse, mine.why = at, why
  end
end

function Bounds:part(unit, id, at, why)
  local parts = self:of(unit).parts
  if not parts[id] or parts[id].at < at then
    parts[id] = { at = at, why = why }
  end
end

--- When the need of a partition has to have been answered.
function Bounds:deadline(world, unit, id, need)
  local mine = self:of(unit)
  if self.alive == 0 or world.down then
    return math.huge, "nobody can"
  end
  for _, since in pairs(mine.flying_of) do
    later(mine, math.min(world.clock, since + 2 * TIMEOUT), "a submit is under way")
  end
  if #world.project.runs >= world.project.quota - HEADROOM then
    self:everybody(world.clock + ROOM, "the quota is full")
  end
  local at, why = need.since, "detection"
  if self.all > at then
    at, why = self.all, self.all_why
  end
  if mine.excuse > at then
    at, why = mine.excuse, mine.why
  end
  local part = mine.parts[id]
  if part and part.at > at then
    at, why = part.at, part.why
  end
  local window = (mine.woken_at or 0) + (unit.spec.dedup_window or 0)
  if (unit.spec.dedup_window or 0) > 0 and window > at then
    at, why = window, "inside the dedup window"
  end
  local last = world.project.vanish and mine.fruitless[id]
  if last then -- its end is when it was missed
    at = at + self.detect + fruitless_delay(last.times + 1)
  end
  return at + self.detect + (mine.served[id] and STILL or 0), why
end

--- Forgets what cannot matter any more: an excuse that is over lives on only in what already waited then.
function Bounds:forget(world)
  local clock = world.clock
  for _, unit in ipairs(world.oracle.units) do
    local mine = self:of(unit)
    for id, need in pairs(unit.needs) do
      local part = mine.parts[id]
      for _, at in ipairs { self.all, mine.excuse, part and part.at or 0 } do
        need.since = at <= clock and math.max(need.since, at) or need.since
      end
    end
    for id, part in pairs(mine.parts) do
      mine.parts[id] = part.at > clock and part or nil
    end
    if mine.excuse <= clock then
      mine.excuse, mine.why = 0, nil
    end
  end
  if self.all <= clock then
    self.all, self.all_why = 0, nil
  end
end

function Bounds:everybody(at, why)
  if at > self.all then
    self.all, self.all_why = at, why
  end
end

--- Nothing is known of an observer.
function Bounds:gone(id)
  self.lists[id] = 0
  for _, mine in pairs(self.units) do
    mine.failures_of[id], mine.reads_of[id], mine.flying_of[id] = nil, nil, nil
  end
end

function Bounds:booted(world, o)
  o.born = world.clock
  self:gone(o.id)
  if self.alive == 0 then
    self:everybody(world.clock, "an observer started")
  end
  for _, unit in ipairs(o.skew < 0 and world.oracle.units or {}) do -- to it, what happened lies in the future
    local mine = self:of(unit)
    later(mine, world.clock + (unit.spec.dedup_window or 0), "inside the dedup window of a clock set back")
    for id, last in pairs(mine.fruitless) do
      self:part(unit, id, world.clock + fruitless_delay(last.times), "back-off by a clock set back")
    end
  end
  self.alive = self.alive + 1
end

function Bounds:crashed(world)
  self:everybody(world.clock, "an observer crashed")
  self.alive = self.alive - 1
  for id, o in ipairs(world.observers) do
    for _, mine in pairs(o.alive and {} or self.units) do
      mine.flying_of[id] = nil
    end
  end
end

function Bounds:up(world)
  self:everybody(world.clock + 2 + 10, "Kafka came back") -- a reading that began before times out
end

--- An observer sees a run over for the first time. By a clock set back it has just ended.
local function ended(self, world, o, run)
  for _, unit in ipairs(o.skew < 0 and world.oracle.units or {}) do
    for id, last in pairs(unit.job == run.job and self:of(unit).fruitless or {}) do
      self:part(unit, id, world.clock + self.detect + fruitless_delay(last.times), "back-off by a clock set back")
    end
  end
end

--- An observer sees a run for the first time, also again after a list without it. By a clock set back, it was created just now.
local function dated(self, world, o, run)
  for _, unit in ipairs(o.skew < 0 and world.oracle.units or {}) do
    if unit.job == run.job then
      later(self:of(unit), world.clock + (unit.spec.dedup_window or 0), "the dedup window of a clock set back")
    end
  end
end

function Bounds:listed(world, o, item)
  local took = world.clock - item.sent
  if item.failed then
    self.lists[o.id] = self.lists[o.id] + 1
    self:everybody(world.clock + math.min(60, 2 ^ (self.lists[o.id] - 1)), "a listing failed")
  else
    self.lists[o.id] = 0
    local before, over = o.dated or {}, o.over or {}
    o.dated, o.over = {}, {}
    for _, run in ipairs(item.runs) do
      o.dated[run.name], o.over[run.name] = true, run.status == "completed" or run.status == "failed"
      if not before[run.name] then
        dated(self, world, o, run)
      end
      if o.over[run.name] and not over[run.name] then
        ended(self, world, o, run)
      end
    end
    if world.clock - item.seen > took then
      self:everybody(world.clock + ACTIVE, "a listing was stale")
    end
  end
end

function Bounds:read(world, o, item)
  for id, mine in pairs(self.units) do
    if id == item.unit then
      local failures = mine.reads_of[o.id] or 0
      if item.failed then
        mine.reads_of[o.id] = failures + 1
        later(mine, world.clock + math.min(30, 2 ^ failures), "a reading failed")
      else
        mine.reads_of[o.id] = 0
        for _, part in ipairs(item.parts) do
          if part.error then
            later(mine, world.clock + ACTIVE, "a partition could not be read")
          end
        end
      end
    end
  end
end

--- What a rule of the user's says counts; the packaged one is held to the job's window instead.
function Bounds:decided(world, unit, job, verdict)
  local mine = self:of(unit)
  local kind = type(verdict) == "table" and verdict.kind
  if kind == "ignore" then
    for _, part in ipairs(job.partitions) do
      if part.work and not part.covered then
        mine.ignored[key(part.topic, part.partition)] = part.end_offset
      end
    end
  elseif not self.custom then
    return
  elseif kind == "wait" then
    later(mine, world.clock + verdict.seconds, "the rule waits")
  elseif kind ~= "wake" then
    later(mine, world.clock + 60, "the rule failed")
  end
end

function Bounds:ignored(unit, id)
  return self:of(unit).ignored[id]
end

function Bounds:submitting(world, o, unit)
  local mine = self:of(unit)
  mine.flying_of[o.id] = world.clock
  later(mine, world.clock, "a wake was tried")
end

local function failed(self, world, o, unit, code, retry_after)
  local mine = self:of(unit)
  local count = (mine.failures_of[o.id] or 0) + 1
  mine.failures_of[o.id], mine.flying_of[o.id] = count, nil
  local delay = math.min(300, (PERMANENT[code] and 60 or 1) * 2 ^ (count - 1))
  later(mine, world.clock + math.max(delay, retry_after or 0), "a submit failed")
end

function Bounds:answered(world, o, unit, answer)
  local mine = self:of(unit)
  if answer.code == "AMBIGUOUS" or answer.code == "CONFLICT" then
    return -- it asks for the name
  elseif answer.code then
    failed(self, world, o, unit, answer.code, answer.retry_after)
  else
    mine.failures_of[o.id], mine.flying_of[o.id] = nil, nil
    local window = o.skew < 0 and unit.spec.dedup_window or 0 -- by its clock the run was created just now
    later(mine, world.clock + window, "a wake was accepted")
    local run = world.project.by_name[answer.effect.name]
    for id, last in pairs((not run or run.live == 0) and mine.fruitless or {}) do
      self:part(unit, id, world.clock + self.detect + fruitless_delay(last.times), "a run had ended before its answer")
    end
  end
end

function Bounds:got(world, o, unit, item)
  local mine = self:of(unit)
  if item.run then
    mine.flying_of[o.id] = nil
    later(mine, world.clock, "a run was found")
    dated(self, world, o, item.run)
  else
    failed(self, world, o, unit, "CONFLICT")
  end
end

--- A wake opens the job's dedup window, for every group of the job.
function Bounds:woken(world, unit, run)
  for id, last in pairs(self:of(unit).fruitless) do -- a group run is an attempt on every partition it was told
    if run.tried[id] and last.start == run.starts[id] then
      self:part(unit, id, world.clock + fruitless_delay(last.times + 1), "an attempt after one without progress")
    end
  end
  for _, other in ipairs(world.oracle.units) do
    if other.job == unit.job then
      self:of(other).woken_at = world.clock
    end
  end
end

--- A topic is gone: observers look twice before they believe it.
function Bounds:deleted(world)
  self:everybody(world.clock, "a topic was deleted")
end

--- The routes' files have changed, observers are about to find out.
function Bounds:edited(world)
  self:everybody(world.clock + WATCH, "the routes were edited")
end

function Bounds:reloaded(world)
  self:everybody(world.clock, "an observer reloaded")
end

--- A run that ended where it began on a partition counts as fruitless there.
function Bounds:run_ended(world, run)
  local unit = run.unit
  if not unit or unit.mode ~= "lag" then
    return
  end
  local mine = self:of(unit)
  for id, start in pairs(run.starts) do
    if run.tried[id] then
      local last = mine.fruitless[id]
      local times = last and last.start == start and last.times + 1 or 1
      mine.fruitless[id] = { start = start, times = times }
      if not run.moved[id] then
        self:part(unit, id, world.clock + self.detect + fruitless_delay(times), "back-off after a run without progress")
      end
    end
  end
end

--- Commits or logs that others moved are found when commits or topics are looked at.
function Bounds:moved(world, topic, partition)
  for _, unit in ipairs(world.oracle.units) do
    if unit.topics[topic] then
      local id = key(topic, partition)
      -- The start may be one where runs made no progress, and where an observer has counted one more: to it a commit of a topic's
      -- former life was none.
      local last = self:of(unit).fruitless[id]
      self:part(unit, id, world.clock + math.max(IDLE, last and fruitless_delay(last.times + 1) or 0),
        "somebody moved offsets or partitions")
    end
  end
end

--- The observer's own first commit of a group takes effect when it is answered.
function Bounds:began(world, group, effect)
  for _, unit in ipairs(world.oracle.units) do
    if unit.group == group and unit.topics[effect.topic] then
      self:part(unit, key(effect.topic, effect.partition), world.clock, "its group was given a start")
    end
  end
end

--- Commits that others move forward have to stand still before a wake, from the next reading or ring on.
function Bounds:served(world, item)
  for _, unit in ipairs(world.oracle.units) do
    if unit.group == item.group and unit.topics[item.topic] then
      local id = key(item.topic, item.partition)
      self:of(unit).served[id] = true
      self:part(unit, id, world.clock + STILL, "somebody else serves it")
    end
  end
end

return bounds
