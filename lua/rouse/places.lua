--- Values by topic and partition (pure): tables in a table. A text made of both would be made anew at each look, a million times
--- a day where an observer has many partitions.
local places = {}

--- The value of a place, nil without one.
---@param map table<string, table<integer, any>>
---@param place { topic: string, partition: integer }
function places.get(map, place)
  local of_topic = map[place.topic]
  return of_topic and of_topic[place.partition]
end

--- Sets the value of a place.
---@param map table<string, table<integer, any>>
---@param place { topic: string, partition: integer }
function places.set(map, place, value)
  local of_topic = map[place.topic]
  if not of_topic then
    of_topic = {}
    map[place.topic] = of_topic
  end
  of_topic[place.partition] = value
end

return places
