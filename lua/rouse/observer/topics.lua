--- Which topics and partitions the routes mean, as the cluster tells them: patterns, growth, topics that come later.
local kafka = require "rouse.kafka"
local log = require "rouse.log"

local topics = {}

topics.DELETED = "the topic was deleted"

--- Where `missing` notes that a route's number of partitions is not the cluster's.
function topics.odd(route, name)
  return route.topic .. "#" .. name
end

--- What is kept of the cluster's metadata until the next look: of a topic, how many partitions, who leads them, what is wrong.
---@class rouse.Cluster
---@field [string] { count: integer, leaders: table<integer, integer>, error: string? } by topic

---@param metadata rouse.metadata
---@return rouse.Cluster
function topics.cluster(metadata)
  local cluster = {}
  for name, topic in pairs(metadata.topics) do
    local leaders = {}
    for _, item in ipairs(topic.partitions) do
      leaders[item.id] = item.leader
    end
    cluster[name] = { count = #topic.partitions, leaders = leaders, error = topic.error }
  end
  return cluster
end

--- Who leads a partition; nil where nobody does or nothing is known.
---@param cluster rouse.Cluster?
---@return integer|nil broker
function topics.leader(cluster, topic, partition)
  local known = cluster and cluster[topic]
  return known and known.leaders[partition]
end

local ABSENT <const> = { UNKNOWN_TOPIC_OR_PART = true, _UNKNOWN_TOPIC = true }

--- Topics that were there and are no more. A broker that has just started may not know all of them yet: gone is what two looks
--- in a row do not find.
---@param counts table<string, integer> topic → partitions, what was there
---@param cluster rouse.Cluster
---@param suspects table<string, boolean> what the last look did not find, updated
---@return string[] gone sorted
function topics.gone(counts, cluster, suspects)
  local gone = {}
  for name in pairs(counts) do
    local topic = cluster[name]
    local absent = not topic or ABSENT[topic.error] or false
    if absent and suspects[name] then
      gone[#gone + 1], absent = name, false
    end
    suspects[name] = absent or nil
  end
  table.sort(gone)
  return gone
end

--- The topics of each route, looked up in the cluster: route.topics for patterns; missing ones are reported once.
---@param routes table[]
---@param cluster rouse.Cluster
---@param missing table<string, string|boolean> what was reported missing, and why, updated
---@param suspects table<string, boolean>? topics that were there at the last look: nothing is said of them yet
---@return table<string, { count: integer, route: table }> found topic → partitions and route
function topics.resolve(routes, cluster, missing, suspects)
  local found = {}
  for _, route in ipairs(routes) do
    local matched = {}
    if route.pattern then
      for name in pairs(cluster) do
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
      local topic = cluster[name]
      local count = topic and not topic.error and topic.count or 0
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
