--- Renewal of quiet groups' offsets: the requests of a simulated observer, what may go wrong with them, and whether they take
--- back what somebody has committed. What is written is the real code's choice (rouse.wake.renewal).
---
--- Faults: `renew_read` fails or is slow; `renew` (the write) is "refused", "lost" (carried out, without an answer) or "slow": it
--- lands after `delay`. The client gives up after a while, but what it sent waits for a coordinator however long that is away,
--- and until then this client asks that coordinator for nothing else of the group (src/kafka_groups.c).
local consumers = require "rouse.sim.consumer"
local renewal = require "rouse.wake.renewal"
local retention = require "rouse.sim.retention"

local renewing = { handlers = {} }
local handlers = renewing.handlers

local TIMEOUT = 10
local LIST = 60 -- seconds: how old the run list may be that a write rests on, time-outs included
local SUBMIT = 60 -- seconds after which a submit and the look for its run have been answered
local AWAY = 1 -- seconds between looks whether Kafka is there again

-- Latencies from a stream of their own: what else happens goes on as it would.
local function send(world, o, kind, item, delay)
  item.id, item.life = o.id, o.life
  if delay then
    world.oracle:delayed(world, delay, kind)
  end
  world:post(delay or world.renewal_noise:between(table.unpack(world.config.latency)), kind, item)
end

local function key(topic, partition)
  return topic .. "/" .. partition
end

--- Whether a write of this observer's still waits for the group's coordinator.
function renewing.is_stuck(o, group)
  return o.unsent ~= nil and o.unsent[group] ~= nil
end

-- ---- judging ----

--- A submit leaves: not while offsets of its group are being renewed, or its run's first commits might be taken back.
function renewing.submitting(world, o, effect)
  local group = o.engine.by_id[effect.unit].group
  for unit, renewed in pairs(o.renewals or {}) do
    if renewed == group then
      world:violate("renewal", "%s leaves while the offsets of %s are being renewed for %s", effect.name, group, unit)
    end
  end
end

--- A write leaves: nobody whom the observer knows to be at work, nothing of its own under way, no old reading.
local function judge_write(world, o, item)
  local unit, group = world.oracle.by_id[item.effect.unit], item.effect.group
  local book = world.oracle.ledgers[o.id]
  local covered, shared = book:covered(unit, world.project.jobs)
  if world.clock - (book.list_sent or 0) > LIST then
    world:violate("renewal", "the offsets of %s are renewed by a run list that is %.1f seconds old", group,
      world.clock - (book.list_sent or 0))
  end
  for _, commit in ipairs(item.commits) do
    local id = key(commit.topic, commit.partition)
    if shared > 0 or covered[id] then
      world:violate("renewal", "%s %s is renewed while a run serves it", group, id)
    end
    local age = retention.outdated(world, group, commit)
    if age and age > TIMEOUT + 5 then
      world:violate("renewal", "%s %s is renewed at %d, which it has left %.1f seconds ago", group, id, commit.offset,
        age)
    end
  end
  for _, other in ipairs(world.oracle.units) do
    local since = other.group == group and world.oracle.bounds:of(other).flying_of[o.id]
    if since and world.clock - since < SUBMIT then -- after that, an answer for a job that is routed no longer was dropped
      world:violate("renewal", "the offsets of %s are renewed while a submit of %s is under way", group, other.id)
    end
  end
end

-- A write takes back a commit. Whose run no list showed is beyond an observer: a broker has no compare-and-swap. Its own runs
-- are not, and where it is alone there are no others.
local function overwritten(world, item, commit, now)
  local group, id = item.effect.group, key(commit.topic, commit.partition)
  if now and retention.is_own(world, item, group, commit) then
    world:violate("renewal", "%s %s: the commit of %d was taken back to %d", group, id, now, commit.offset)
  end
  world:say("the commit of %s %s at %s is overwritten with %d", group, id, now or "nothing", commit.offset)
  if commit.offset > (now or -1) then -- looks like somebody else's work
    world.oracle:served(world, { group = group, topic = commit.topic, partition = commit.partition })
  end
  world.oracle:moved(world, commit.topic, commit.partition)
  world.overwritten = (world.overwritten or 0) + 1
end

-- ---- requests ----

function renewing.perform(world, o, effect)
  o.renewals = o.renewals or {}
  o.renewals[effect.unit] = effect.group
  world:say("observer %d renews the offsets of %s", o.id, effect.group)
  send(world, o, "renew_read", { effect = effect, sent = world.clock })
end

local function answer(world, o, effect, code, message, delay)
  send(world, o, "renewed", { effect = effect, code = code, message = message }, delay)
end

function handlers.renew_read(world, item)
  local o, fault = world:observer_of(item), world:fault("renew_read")
  if not o then
    return
  elseif world.down or fault and fault.how == "timeout" or renewing.is_stuck(o, item.effect.group) then
    return answer(world, o, item.effect, "_TIMED_OUT", "timed out", TIMEOUT)
  end
  item.list = {}
  for i, part in ipairs(item.effect.partitions) do
    local there = world.cluster:partition(part.topic, part.partition)
    item.list[i] = { topic = part.topic, partition = part.partition,
      error = not there and "UNKNOWN_TOPIC_OR_PART" or nil,
      offset = there and world.cluster:committed(item.effect.group, part.topic, part.partition) or nil }
  end
  send(world, o, "renew_found", item, fault and fault.delay)
end

function handlers.renew_found(world, item)
  local o, effect = world:observer_of(item), item.effect
  if not o then
    return
  end
  local commits, code, message = renewal.commits(o.engine, effect, item.list, world.clock - item.sent)
  if #commits == 0 then
    return renewing.tell(world, o, effect, code, message)
  end
  local write = { effect = effect, commits = commits, code = code }
  judge_write(world, o, write)
  send(world, o, "renew_write", write)
end

local function write(world, item)
  local group = item.effect.group
  if consumers.members(world, group) > 0 then
    return "UNKNOWN_MEMBER_ID"
  end
  local code
  for _, commit in ipairs(item.commits) do
    if not world.cluster:partition(commit.topic, commit.partition) then
      code = "UNKNOWN_TOPIC_OR_PART"
    else
      local now = world.cluster:committed(group, commit.topic, commit.partition)
      if now ~= commit.offset then
        overwritten(world, item, commit, now)
      end
      world:commit(group, commit.topic, commit.partition, commit.offset)
    end
  end
  world:say("the offsets of %s are renewed", group)
  return code
end

-- It lands later; the observer has given up by then, or gets its answer then.
local function postpone(world, item, o, delay)
  if o then
    world.oracle:delayed(world, delay, "renew")
  end
  if o and not item.late and delay >= TIMEOUT then
    item.given_up = true
    local given_up = { effect = item.effect, code = "_TIMED_OUT", message = "timed out", write = item }
    send(world, o, "renewed", given_up, TIMEOUT)
  end
  item.late = true
  world:post(delay, "renew_write", item)
end

function handlers.renew_write(world, item)
  local o, fault = world:observer_of(item), not item.late and world:fault("renew")
  local how = fault and fault.how
  if world.down and not o then
    return -- it never left the process that is gone
  elseif world.down then
    return postpone(world, item, o, item.late and AWAY or TIMEOUT)
  elseif how == "slow" then
    return postpone(world, item, o, fault.delay)
  end
  local code = how == "refused" and "NOT_COORDINATOR" or write(world, item)
  item.landed = true
  if o and o.unsent then
    o.unsent[item.effect.group] = nil
  end
  if o and not item.given_up then
    code = how == "lost" and "_TIMED_OUT" or code or item.code
    answer(world, o, item.effect, code, code, how == "lost" and TIMEOUT or nil)
  end
end

--- The engine gets its answer.
function renewing.tell(world, o, effect, code, message)
  o.renewals[effect.unit] = nil
  world:emit(o, (renewal.answer(effect, code, message)))
end

function handlers.renewed(world, item)
  local o = world:observer_of(item)
  if o then
    if item.write and not item.write.landed then
      o.unsent = o.unsent or {}
      o.unsent[item.effect.group] = true
    end
    renewing.tell(world, o, item.effect, item.code, item.message)
  end
end

return renewing
