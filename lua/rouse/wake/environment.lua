--- The environment of a run (pure), within what a job run may hold.
local naming = require "rouse.wake.naming"

local environment = {}

-- A job run is at most 10 KiB, its environment and its job's included; the rest is for what the service adds.
environment.MAX = 8192
local FRAME <const> = 44 -- of a variable: {"name":"","type":"literal","value":""},

local function escaped(text)
  local _, count = text:gsub("[%c\"\\]", "")
  return #text + 5 * count
end

local function cost(name, value)
  return #name + escaped(value) + FRAME
end

local function size_of(env)
  local sum = 0
  for name, value in pairs(env) do
    sum = sum + cost(name, tostring(value))
  end
  return sum
end

local function sorted_topics(unit)
  local names = {}
  for topic in pairs(unit.topics) do
    names[#names + 1] = topic
  end
  table.sort(names)
  return names
end

-- The parts of as many topics as have room, and those topics.
local function fitting(parts, room)
  local kept, names, seen, used = {}, {}, {}, 0
  for _, part in ipairs(parts) do
    if not seen[part.topic] then
      used = used + #part.topic + 1
      if used > room then
        break
      end
      seen[part.topic], names[#names + 1] = true, part.topic
    end
    kept[#kept + 1] = part
  end
  return kept, names
end

-- As many marks as have room: what has none is remembered by the observer that submits.
local function marks(parts, room)
  local entries, last = {}, nil
  for _, part in ipairs(parts) do
    room = room - (part.topic == last and 0 or #part.topic + 2) - 16 - #tostring(part.attempt or 1)
    if room < 0 then
      break
    end
    last = part.topic
    entries[#entries + 1] = { topic = part.topic, partition = part.partition, attempt = part.attempt or 1,
      start = part.start }
  end
  return entries
end

--- What a run is told. A list of topics that is too long is cut to the topics of `parts`, as far as there is room; the other
--- parts wait for the next run.
---@param unit rouse.Unit
---@param given { own: table<string, string>, sources: table[], assign: string, parts: rouse.Part[] } own: the job's definition
---@return { env: table<string, string>, entries: table[], parts: rouse.Part[]? }|nil built parts: those it was cut to
---@return string? message
function environment.build(unit, given)
  local env, own = {}, size_of(given.own)
  for _, source in ipairs(given.sources) do
    for name, value in pairs(source) do
      env[name] = value
    end
  end
  local asked = size_of(env)
  local reset = "latest" -- of topics that differ the one that skips nothing
  for _, topic in pairs(unit.topics) do
    reset = topic.reset == "latest" and reset or "earliest"
  end
  env.CONSUMER_GROUP, env.ROUSE_ASSIGN, env.ROUSE_RESET, env.KAFKA_TOPIC = unit.group, given.assign, reset, ""
  local room = environment.MAX - own - size_of(env)
  local names, parts = sorted_topics(unit), nil
  if unit.mode == "lag" and #table.concat(names, ",") > room then
    parts, names = fitting(given.parts, room)
  end
  if room < 0 or (parts and #parts == 0) then
    return nil, ("the run's environment is too large: the rule's has %d bytes, the job's %d, of %d in all"):format(
      asked, own, environment.MAX)
  end
  local text = table.concat(names, ",")
  env.KAFKA_TOPIC = #text <= room and text or nil -- claims mode: what the job's definition says, then
  local entries = unit.mode == "lag" and marks(parts or given.parts, room - #text - FRAME - #"ROUSE_WAKE") or {}
  if #entries > 0 then
    env.ROUSE_WAKE = naming.encode(entries)
  end
  return { env = env, entries = entries, parts = parts }
end

return environment
