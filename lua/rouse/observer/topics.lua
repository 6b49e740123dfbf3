--- Which topics and partitions the routes mean, as the cluster tells them: patterns, growth, topics that come later.
local kafka = require "rouse.kafka"
local log = require "rouse.log"

local topics = {}

--- Where `missing` notes that a route's number of partitions is not the cluster's.
function topics.odd(route, name)
  return route.topic .. "#" .. name
end

--- The topics of each route, looked up in metadata: route.topics for patterns; missing ones are reported once.
---@param routes table[]
---@param metadata { topics: table<string, { partitions: table[] }> }
---@param missing table<string, boolean> what was reported missing, updated
---@return table<string, { count: integer, route: table }> found topic → partitions and route
function topics.resolve(routes, metadata, missing)
  local found = {}
  for _, route in ipairs(routes) do
    local matched = {}
    if route.pattern then
      for name in pairs(metadata.topics) do
        if kafka.match(route.topic, name) then
          matched[#matched + 1] = name
        end
      end
      table.sort(matched)
      route.topics = matched
    else
      matched[1] = route.topic
    end
    for _, name in ipairs(matched) do
      local topic = metadata.topics[name]
      local count = topic and not topic.error and #topic.partitions or 0
      if count == 0 and not missing[name] then
        missing[name] = true
        log.warn(("%s: the topic does not exist (yet)"):format(name))
      elseif count > 0 then
        missing[name] = nil
        found[name] = { count = count, route = route }
        local odd = topics.odd(route, name)
        if not route.partitions or route.partitions == count then
          missing[odd] = nil
        elseif not missing[odd] then
          missing[odd] = true
          log.warn(("%s: kafkadata says %d partitions, the cluster has %d; the cluster counts"):format(
            name, route.partitions, count))
        end
      end
    end
  end
  return found
end

return topics
