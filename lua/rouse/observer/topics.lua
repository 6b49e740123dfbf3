--- Which topics and partitions the routes mean, as the cluster tells them: patterns, growth, topics that come later.
local kafka = require "rouse.kafka"
local log = require "rouse.log"

local topics = {}

topics.DELETED = "the topic was deleted"

--- Where `missing` notes that a route's number of partitions is not the cluster's.
function topics.odd(route, name)
  return route.topic .. "#" .. name
end

--- Who leads a partition; nil where nobody does or nothing is known.
---@param metadata { topics: table<string, { partitions: table[] }> }?
---@return integer|nil broker
function topics.leader(metadata, topic, partition)
  local known = metadata and metadata.topics[topic]
  local partitions = known and known.partitions or {}
  local likely = partitions[partition + 1] -- brokers tell them in order, though nothing says so
  if likely and likely.id == partition then
    return likely.leader
  end
  for _, item in ipairs(partitions) do
    if item.id == partition then
      return item.leader
    end
  end
  return nil
end

local ABSENT <const> = { UNKNOWN_TOPIC_OR_PART = true, _UNKNOWN_TOPIC = true }

--- Topics that were there and are no more. A broker that has just started may not know all of them yet: gone is what two looks
--- in a row do not find.
---@param counts table<string, integer> topic → partitions, what was there
---@param metadata { topics: table<string, { error: string? }> }
---@param suspects table<string, boolean> what the last look did not find, updated
---@return string[] gone sorted
function topics.gone(counts, metadata, suspects)
  local gone = {}
  for name in pairs(counts) do
    local topic = metadata.topics[name]
    local absent = not topic or ABSENT[topic.error] or false
    if absent and suspects[name] then
      gone[#gone + 1], absent = name, false
    end
    suspects[name] = absent or nil
  end
  table.sort(gone)
  return gone
end

--- The topics of each route, looked up in metadata: route.topics for patterns; missing ones are reported once.
---@param routes table[]
---@param metadata { topics: table<string, { partitions: table[] }> }
---@param missing table<string, string|boolean> what was reported missing, and why, updated
---@param suspects table<string, boolean>? topics that were there at the last look: nothing is said of them yet
---@return table<string, { count: integer, route: table }> found topic → partitions and route
function topics.resolve(routes, metadata, missing, suspects)
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
      local known = suspects and suspects[name]
      local why = topic and topic.error and not ABSENT[topic.error] and "the topic cannot be read: " .. topic.error
        or "the topic does not exist (yet)"
      if count == 0 and not known and missing[name] ~= why and missing[name] ~= topics.DELETED then
        missing[name] = why
        log.warn(("%s: %s"):format(name, why))
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
