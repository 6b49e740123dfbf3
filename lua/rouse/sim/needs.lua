--- What waits in truth: partitions of a unit with a consumable record that no live instance covers, and since when. From the
--- logs, commits and processes as they are, whatever anybody was told.
local needs = {}

local function key(topic, partition)
  return topic .. "/" .. partition
end

--- Live instances of the unit's group in truth: partitions covered by index, and how many share the group.
local function truth(world, unit)
  local index, shared, live = {}, 0, 0
  for _, run in ipairs(world.project.runs) do
    if run.live > 0 and run.group == unit.group then
      for i, inst in pairs(run.instances) do
        if inst.state ~= "ended" then
          live = live + 1
          if not run.by_index then
            shared = shared + 1
          else
            for _, topic in ipairs(run.topics) do
              index[key(topic, i)] = true
            end
          end
        end
      end
    end
  end
  return index, shared, live
end

-- Partitions of a unit with a consumable record past the group's start that no instance covers by index.
local function waiting(oracle, world, unit, index, shared)
  local list = {}
  for _, name in ipairs(unit.names) do
    local topic = unit.topics[name]
    local count = world.cluster.topics[name] and world.cluster.topics[name].count or 0
    for partition = 0, count - 1 do
      local id = key(name, partition)
      local start = world.cluster:start(unit.group, name, partition, topic.reset)
      local record = start and world.cluster:consumable(name, partition, start)
      local ignored = oracle.bounds:ignored(unit, id)
      if record and not index[id] and not (ignored and not world.cluster:consumable(name, partition, ignored)) then
        local at = shared > 0 and oracle.bounds:deadline(world, unit, id, { since = world.clock }) or 0
        list[#list + 1] = { id = id, record = record, order = #list, at = at }
      end
    end
  end
  return list
end

--- What waits: partitions beyond those that the instances which share the group may serve. Nobody can tell which ones those are;
--- here it is those that might wait the shortest from now on.
function needs.recount(oracle, world)
  for _, unit in ipairs(oracle.units) do
    if unit.mode == "lag" and not unit.gone and not world.config.broken[unit.job] then
      local index, shared, live = truth(world, unit)
      local capped = unit.spec.max_instances and live >= unit.spec.max_instances
      local list, kept = capped and {} or waiting(oracle, world, unit, index, shared), {}
      table.sort(list, function(a, b)
        if a.at ~= b.at then
          return a.at < b.at
        end
        return a.order < b.order
      end)
      for i = shared + 1, #list do
        local it = list[i]
        kept[it.id] = unit.needs[it.id] or { since = world.clock, record = it.record }
      end
      unit.needs = kept
    end
  end
end

return needs
