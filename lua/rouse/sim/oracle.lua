--- Judges the engine by what is so, not by what the engine says: after every step it looks at the true logs, commits and runs,
--- and at what an observer was told. The first broken invariant is kept in world.violation.
---
---   W1  a record that waits with nobody covering it is followed by a wake attempt within its bound (rouse.sim.bounds)
---   W2  no submit without proof; never more instances than partitions with work that nobody covers
---   W4  no run created beside another one that came after its list; no facts older than K
---   W6  a wake counts as one only after an answer says so
---   W7  what is broken (world.config.broken) is not judged by W1, so that all of it is the others' proof
---   W8  no run removed that is not Rouse's, not finished long enough, or the newest; no refusal for quota that could be avoided
local bounds = require "rouse.sim.bounds"
local ledger = require "rouse.sim.ledger"
local naming = require "rouse.wake.naming"
local needs = require "rouse.sim.needs"

local Oracle = { __name = "rouse.sim.oracle" }
Oracle.__index = Oracle

local oracle = {}

local K = 120 -- seconds: no submit rests on older facts; finished runs stay at least twice as long

function oracle.new(world)
  local self = setmetatable({ units = {}, by_id = {}, bounds = bounds.new(world.config), ledgers = {}, fates = {},
    seen_version = -1, stats = { submits = 0, wakes = 0, empty = 0, conflicts = 0 } }, Oracle)
  for _, unit in ipairs(world.units) do
    local kept = { id = unit.id or unit.job .. "/" .. (unit.group or "claims"), job = unit.job, group = unit.group,
      mode = unit.mode, topics = unit.topics, assign = unit.assign, spec = unit.spec, names = {}, needs = {} }
    for name in pairs(unit.topics) do
      kept.names[#kept.names + 1] = name
    end
    table.sort(kept.names)
    self.units[#self.units + 1] = kept
    self.by_id[kept.id] = kept
  end
  return self
end

local function key(topic, partition)
  return topic .. "/" .. partition
end

function Oracle:before(world)
  for _, unit in ipairs(self.units) do
    for id, need in pairs(unit.needs) do
      local deadline, why = self.bounds:deadline(world, unit, id, need)
      if world.clock > deadline then
        world:violate("W1", "%s: the record at %s@%d waits since %.3f, nobody covers it, and no wake came by %.3f (%s)",
          unit.id, id, need.record, need.since - 1000000, deadline - 1000000, why)
      end
    end
  end
end

function Oracle:after(world)
  local version = world.version + world.cluster.version + world.project.version
  if version ~= self.seen_version then
    self.seen_version = version
    needs.recount(self, world)
  end
end

--- The files have changed: what they do not name any more is judged no longer, what they name again from now on. Observers
--- find out a little later.
function Oracle:edited(world)
  local named = {}
  for _, unit in ipairs(world:make_units()) do
    named[unit.id] = unit
  end
  for _, unit in ipairs(self.units) do
    local now = named[unit.id]
    if now and unit.gone then
      unit.back = world.clock
    end
    unit.gone = not now
    if now then
      unit.spec, unit.topics, unit.assign = now.spec, now.topics, now.assign
    else
      unit.needs = {}
    end
  end
  world.version = world.version + 1
  self.bounds:edited(world)
end

function Oracle:reloaded(world, o, event)
  for _, id in ipairs(event.outcome.removed) do
    self.ledgers[o.id]:forget(id)
  end
  self.bounds:reloaded(world)
end

--- Whether anything still waits.
function Oracle:waiting()
  for _, unit in ipairs(self.units) do
    if next(unit.needs) then
      return true
    end
  end
  return false
end

-- ---- what happens ----

function Oracle:booted(world, o)
  self.ledgers[o.id] = ledger.new(self.units)
  self.bounds:booted(world, o)
end

function Oracle:crashed(world)
  self.bounds:crashed(world)
end

function Oracle:rung(o, event)
  self.ledgers[o.id]:rung(event)
end

function Oracle:listed(world, o, item)
  if not item.failed then
    self.ledgers[o.id]:listed(item)
  end
  self.bounds:listed(world, o, item)
end

function Oracle:read(world, o, item)
  self.ledgers[o.id]:read(item)
  self.bounds:read(world, o, item)
end

function Oracle:decided(world, job, verdict)
  local unit = self.by_id[job.name .. "/" .. (job.group or "claims")]
  self.bounds:decided(world, unit, job, verdict)
end

--- A submit leaves: W2 and the freshness of W4. Returns what it rests on.
function Oracle:submitting(world, o, effect)
  local unit, book = self.by_id[effect.unit], self.ledgers[o.id]
  self.stats.submits = self.stats.submits + 1
  self.bounds:submitting(world, o, unit)
  local basis = { seen = book.list_seen or -math.huge, sent = book.list_sent or -math.huge, known = book:known() }
  if world.clock - basis.sent > K - 30 then
    world:violate("W4", "%s rests on a run list that is %.1f seconds old", effect.name, world.clock - basis.sent)
  end
  if unit.mode ~= "lag" then
    return basis
  end
  local open, count = book:open(unit, world.project.jobs, function(id, start)
    local topic, partition = id:match("^(.*)/(%d+)$")
    return world.compacted[id] or world.cluster:consumable(topic, tonumber(partition), start) ~= nil
  end)
  if #effect.indices > count then
    world:violate("W2", "%s has %d instance(s), %d partition(s) have proven work that nobody covers", effect.name,
      #effect.indices, count)
  end
  for _, index in ipairs(effect.env.ROUSE_ASSIGN == "index" and effect.indices or {}) do
    if not open[key(next(unit.topics), index)] then
      world:violate("W2", "%s: partition %d has no proven work, or is covered", effect.name, index)
    end
  end
  return basis
end

--- The engine says that a run exists: it has to know from an answer.
function Oracle:confirmed(world, o, name)
  if not self.ledgers[o.id].own[name] then
    world:violate("W6", "%s counts as a wake, but no answer said that it exists", name)
  end
end

--- The API carried a submit out, or refused it: W4 and W8.
function Oracle:created(world, o, item, run, code)
  local effect = item.effect
  if code == "QUOTA" then
    return self:refused(world, o)
  elseif not run then
    self.stats.conflicts = self.stats.conflicts + 1
    return
  end
  local unit = self.by_id[effect.unit]
  self.stats.wakes = self.stats.wakes + 1
  run.created, run.unit = world.clock, unit
  run.starts, run.moved = {}, {}
  for name, topic in pairs(unit.topics) do
    for partition = 0, (world.cluster.topics[name] or { count = 0 }).count - 1 do
      run.starts[key(name, partition)] = world.cluster:start(unit.group, name, partition, topic.reset) or -1
    end
  end
  run.late = item.late
  for _, other in ipairs(world.project.runs) do
    -- Where runs vanish, names come again: neither another observer's submit nor one carried out late has to collide.
    local reused = world.project.vanish and (#world.observers > 1 or run.late or other.late)
    if other ~= run and other.job == run.job and other.created and not item.basis.known[other.name]
      and not reused and (world.project.vanished or 0) <= item.basis.seen then
      world:violate("W4", "%s was created beside %s, which came after the list it rests on", run.name, other.name)
    end
  end
  if not item.late and world.clock - item.basis.sent > K then
    world:violate("W4", "%s rests on facts that are %.1f seconds old", run.name, world.clock - item.basis.sent)
  end
  run.tried = {}
  for topic, partitions in pairs(naming.decode(effect.env.ROUSE_WAKE)) do
    for partition in pairs(partitions) do
      run.tried[key(topic, partition)] = true
    end
  end
  self.bounds:woken(world, unit, run)
end

--- Refused for quota: was there a run that should have gone?
function Oracle:refused(world, o)
  for _, run in ipairs(world.project.runs) do
    local fate = self:removable(world, run)
    for _, unit in ipairs(self.units) do -- runs of a job that is not routed are nobody's
      fate = fate and unit.job == run.job and (unit.gone or world.clock - (unit.back or 0) < 4 * K) and nil or fate
    end
    if fate and world.clock - fate > 4 * K and world.clock - o.born > 4 * K then
      world:violate("W8", "the quota is full although %s is finished since %.0f seconds", run.name, world.clock - fate)
    end
  end
end

--- When a run of ours that is not the newest of its job was over, or nil.
function Oracle:removable(world, run)
  local number = world.project.jobs[run.job] and naming.number(run.job, run.name)
  if not number or not run.over then
    return nil
  end
  for _, other in ipairs(world.project.runs) do
    if (naming.number(run.job, other.name) or 0) > number then
      return run.over
    end
  end
  return nil
end

--- A finished run is being removed: W8.
function Oracle:removing(world, name)
  local run = world.project.by_name[name]
  if not run then
    return
  elseif not naming.number(run.job, name) then
    world:violate("W8", "%s was removed, which Rouse did not name", name)
  elseif not run.over then
    world:violate("W8", "%s was removed, which is not finished", name)
  elseif world.clock - run.over < 2 * K then
    world:violate("W8", "%s was removed %.1f seconds after its end", name, world.clock - run.over)
  elseif not self:removable(world, run) and #world.project.runs < world.project.quota - 10 then
    world:violate("W8", "%s was removed, the newest run of %s", name, run.job)
  end
end

function Oracle:answered(world, o, answer)
  if answer.run and not answer.code then
    self.ledgers[o.id]:accepted(answer.run, world.clock)
  end
  self.bounds:answered(world, o, self.by_id[answer.effect.unit], answer)
end

function Oracle:got(world, o, item)
  if item.run then
    self.ledgers[o.id]:accepted(item.run, world.clock)
  end
  self.bounds:got(world, o, self.by_id[item.effect.unit], item)
end

function Oracle:instance_ended(world, run)
  if run.live == 0 then
    run.over = world.clock
    -- A consumer that a schedule made fail, and a broken route's, may take nothing though there is something.
    local empty = not run.nature.fate and not world.config.broken[run.job]
    for _, each in pairs(run.instances) do
      empty = empty and (each.took or 0) == 0
    end
    self.stats.empty = self.stats.empty + (empty and 1 or 0)
    self.bounds:run_ended(world, run)
  end
end

function Oracle:consumed(world, run, topic, partition)
  local id = key(topic, partition)
  if run.moved and world.cluster:committed(run.group, topic, partition) ~= run.starts[id] then
    run.moved[id] = true
  end
end

--- An observer gives a group its start (reset = latest): records behind a start that it has already may not be skipped. Two
--- observers may both begin, a broker has no compare-and-swap for commits.
function Oracle:beginning(world, group, effect)
  local there = world.cluster:committed(group, effect.topic, effect.partition)
  local record = there and not world.cluster:out_of_range(effect.topic, effect.partition, there)
    and world.cluster:consumable(effect.topic, effect.partition, there)
  if record and record < effect.offset and #world.observers == 1 then
    world:violate("W1", "%s %s/%d: the start was moved from %d to %d, past the record at %d", group, effect.topic,
      effect.partition, there, effect.offset, record)
  end
end

function Oracle:observer_committed(world, group, effect)
  self.bounds:began(world, group, effect)
end

function Oracle:moved(world, topic, partition)
  self.bounds:moved(world, topic, partition)
end

--- An observer learns that a topic is gone.
function Oracle:gone(o, topic)
  self.ledgers[o.id]:gone(topic)
end

--- What waited on a topic that is deleted waits no longer. Until observers know, its partitions cannot be read.
function Oracle:deleted(world, topic)
  for _, unit in ipairs(self.units) do
    for id in pairs(unit.needs) do
      unit.needs[id] = id:match("^(.*)/") ~= topic and unit.needs[id] or nil
    end
  end
  self.bounds:deleted(world)
end

function Oracle:served(world, item)
  self.bounds:served(world, item)
end

--- A request of somebody's is answered late: nobody can act on it before.
function Oracle:delayed(world, seconds, kind)
  self.bounds:everybody(world.clock + seconds, kind .. " is answered late")
end

function Oracle:up(world)
  self.bounds:up(world)
end

return oracle
