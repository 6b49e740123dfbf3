--- A broker that forgets offsets: those of a partition that has not been committed for `retention` seconds while nobody of the
--- group was at work there. Where an observer had every chance to renew them, that they expire is a violation.
local retention = { handlers = {} }

local SWEEP = 5 -- seconds between looks of the broker, or a part of the retention where that is long
local SLACK = 90 -- seconds that a renewal may come late: the group was at work a moment ago, the next look is a while away

local function key(group, topic, partition)
  return group .. " " .. topic .. "/" .. partition
end

local function interval(world)
  return math.max(SWEEP, world.config.retention / 200)
end

---@param world table with config.retention
function retention.open(world)
  world.retention = { stamps = {}, disturbed = world.clock, expired = 0 }
  world:post(interval(world), "sweep", {})
end

--- Something happened for which a renewal may come late.
function retention.disturb(world)
  if world.retention then
    world.retention.disturbed = world.clock
  end
end

local PLAIN <const> = { produce = true, open = true, finish = true, race = true, compact = true }

function retention.step(world, step)
  if not PLAIN[step.kind] then
    retention.disturb(world)
  end
end

--- Notes who committed and when.
---@param run table? the run that did
function retention.committed(world, group, topic, partition, run)
  local kept = world.retention
  if kept then
    local before = kept.stamps[key(group, topic, partition)]
    local offset = world.cluster:committed(group, topic, partition)
    local moved = before and before.offset == offset and before.moved or world.clock
    kept.stamps[key(group, topic, partition)] = { at = world.clock, moved = moved, offset = offset,
      by = run and run.submitter }
  end
end

--- Notes whose run this is.
function retention.created(world, item, run)
  if world.retention then
    run.submitter = { id = item.id, life = item.life }
  end
end

--- Seconds since the commit of a partition has left an offset, or nil where it has not.
function retention.outdated(world, group, commit)
  local stamp = world.retention and world.retention.stamps[key(group, commit.topic, commit.partition)]
  local now = world.cluster:committed(group, commit.topic, commit.partition)
  return stamp and now and now ~= commit.offset and world.clock - stamp.moved or nil
end

--- Whether a partition's commit is of a run that the observer which sent `item` had submitted itself. In worlds that note nothing
--- nobody but runs commits, and they are the only observer's.
function retention.is_own(world, item, group, commit)
  if not world.retention then
    return #world.observers == 1
  end
  local stamp = world.retention.stamps[key(group, commit.topic, commit.partition)]
  local by = stamp and stamp.by
  return by ~= nil and by.id == item.id and by.life == item.life
end

local function is_served(world, group, topic, partition)
  for _, run in ipairs(world.project.runs) do
    if run.live > 0 and run.group == group then
      local inst = run.instances[partition]
      if not run.by_index or inst and inst.state ~= "ended" then
        return true
      end
    end
  end
  return false
end

-- Whether somebody had to renew it: it is routed, nothing stood in the way for long enough, and it is no offset of the topic's
-- former life: that one is refused as a position, and counts as none until the new log is longer.
local function was_due(world, group, topic, partition, since)
  local how, routed, alive = world.config.renew, false, false
  for _, unit in ipairs(world.oracle.units) do
    routed = routed or unit.group == group and unit.mode == "lag" and unit.topics[topic] ~= nil and not unit.gone
      and not world.config.broken[unit.job]
  end
  for _, o in ipairs(world.observers) do
    alive = alive or o.alive
  end
  local part, commit = world.cluster:partition(topic, partition), world.cluster:committed(group, topic, partition)
  return how and routed and alive and world.clock - since >= how.first + how.every + SLACK
    and part.low <= commit and commit <= world.cluster:stable(part)
end

local function look(world, group, topic, partition)
  local kept = world.retention
  local stamp = kept.stamps[key(group, topic, partition)]
  if not stamp then
    return
  elseif is_served(world, group, topic, partition) then
    stamp.at = world.clock
  elseif world.clock - stamp.at >= world.config.retention then
    if was_due(world, group, topic, partition, math.max(kept.disturbed, stamp.at)) then
      world:violate("renewal", "the commit of %s on %s/%d at %d expires, nobody has renewed it", group, topic,
        partition, stamp.offset)
    end
    world:say("the commit of %s on %s/%d expires", group, topic, partition)
    world.cluster:expire(group, topic, partition)
    world.oracle:moved(world, topic, partition)
    kept.expired = kept.expired + 1
  end
end

function retention.handlers.sweep(world, item)
  local groups = {}
  for group in pairs(world.cluster.commits) do
    groups[#groups + 1] = group
  end
  table.sort(groups)
  for _, group in ipairs(world.down and {} or groups) do
    for _, topic in ipairs(world.cluster:names()) do
      for partition = 0, world.cluster.topics[topic].count - 1 do
        if world.cluster:committed(group, topic, partition) then
          look(world, group, topic, partition)
        end
      end
    end
  end
  world:post(interval(world), "sweep", item)
end

return retention
