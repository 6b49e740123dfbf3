--- The jobs of `rouse mock`: those a YAML file defines, and those made for topics, which run Rouse's own consumer.
local yaml = require "rouse.yaml"

local jobs = {}

local MEMBERS = "command, env, mode, retry_limit, cwd"
local NAME = "^[a-z0-9][%-a-z0-9]*$"

-- Collects mistakes as FILE:LINE:COLUMN: what is wrong, what was expected.
local function collector(file)
  local found = {}
  return found, function(node, wrong, expected)
    found[#found + 1] = ("%s:%d:%d: %s, expected %s"):format(file, node.line, node.column, wrong,
      expected)
  end
end

local function strings(node, what, complain)
  if node.kind ~= "seq" or #node.items == 0 then
    complain(node, what .. " is not a list of strings", 'one like ["prog", "argument"]')
    return nil
  end
  local list = {}
  for position, item in ipairs(node.items) do
    if item.kind == "scalar" then
      list[position] = item.value
    else
      complain(item, "not a string", "a string")
    end
  end
  return list
end

local function variables(node, complain)
  local env = {}
  if node.kind ~= "map" then
    complain(node, "env is not a map", "a map of names to values")
    return env
  end
  for _, pair in ipairs(node.pairs) do
    if pair.key.kind ~= "scalar" or not pair.key.value:match("^[%a_][%w_]*$") then
      complain(pair.key, "not a variable's name", "letters, digits and _")
    elseif pair.value.kind ~= "scalar" then
      complain(pair.value, "the value is not a string", "a string")
    else
      env[pair.key.value] = pair.value.value
    end
  end
  return env
end

local READERS = {
  command = function(node, complain) return strings(node, "command", complain) end,
  env = variables,
  cwd = function(node, complain)
    if node.kind == "scalar" then return node.value end
    complain(node, "cwd is not a string", "a directory")
  end,
  mode = function(node, complain)
    if node.value == "task" or node.value == "daemon" then return node.value end
    complain(node, "mode is neither task nor daemon", "one of them")
  end,
  retry_limit = function(node, complain)
    local limit = node.kind == "scalar" and node.value:match("^[0-5]$")
    if limit then return math.tointeger(limit) end
    complain(node, "retry_limit is not a number", "a number from 0 to 5")
  end,
}

local function job(node, complain)
  local result = {}
  if node.kind ~= "map" then
    complain(node, "the job is not a map", "{command: [...], env: {...}}")
    return result
  end
  for _, pair in ipairs(node.pairs) do
    local read = READERS[pair.key.value]
    if read then
      result[pair.key.value] = read(pair.value, complain)
    else
      local name = pair.key.value or "?"
      complain(pair.key, ("unknown member '%s'"):format(name), "one of " .. MEMBERS)
    end
  end
  if not result.command then complain(node, "the job has no command", "command: [...]") end
  return result
end

--- Reads a jobs file.
---@param text string
---@param file string its name, for messages
---@return table<string, rouse.target.process.job>? jobs
---@return string[]? mistakes all of them
function jobs.parse(text, file)
  local root, message, code, line, column = yaml.parse(text)
  if code == "EMPTY" then return {} end
  if not root then
    return nil, { ("%s:%d:%d: %s"):format(file, line or 1, column or 1, message) }
  end
  local mistakes, complain = collector(file)
  local result = {}
  if root.kind ~= "map" then
    complain(root, "the file is not a map", "job names with {command: [...], env: {...}}")
  end
  for _, pair in ipairs(root.pairs or {}) do
    local name = pair.key.value
    if not name or #name > 63 or not name:match(NAME) or name:match("%-$") then
      complain(pair.key, "not a job's name", "lower-case letters, digits and -, at most 63")
    else
      result[name] = job(pair.value, complain)
    end
  end
  if #mistakes > 0 then return nil, mistakes end
  return result
end

--- Names the job of a topic: a job's name allows less than a topic's.
---@param topic string
---@return string
function jobs.name_of(topic)
  local name = topic:lower():gsub("[^a-z0-9]", "-"):gsub("^%-+", ""):sub(1, 54)
  return (name == "" and "topic" or name) .. "-consumer"
end

--- Names the consumer group of a topic's job.
---@param topic string
---@return string
function jobs.group_of(topic)
  return topic .. "-group"
end

--- Makes the job of a topic: Rouse's own consumer, one instance per partition.
---@param topic string
---@param executable string
---@param idle_timeout number
---@return rouse.target.process.job
function jobs.consumer(topic, executable, idle_timeout)
  return {
    command = { executable, "consumer" },
    env = {
      KAFKA_TOPIC = topic, CONSUMER_GROUP = jobs.group_of(topic), ROUSE_ASSIGN = "index",
      IDLE_TIMEOUT = ("%g"):format(idle_timeout),
    },
  }
end

local function plain(name)
  return name:match("^%a[%w._-]*$") and name or '"' .. name .. '"'
end

--- Writes kafkadata for topics, on one line so that a reader of lines takes it: each topic wakes the jobs that declare it
--- as their KAFKA_TOPIC, else the job named after it.
---@param topics { name: string, partitions: integer }[]
---@param defined table<string, rouse.target.process.job> from the jobs file
---@return string
function jobs.kafkadata(topics, defined)
  local routes = {}
  for position, topic in ipairs(topics) do
    local names = {}
    for name, one in pairs(defined) do
      if one.env and one.env.KAFKA_TOPIC == topic.name then names[#names + 1] = name end
    end
    table.sort(names)
    if #names == 0 then names[1] = jobs.name_of(topic.name) end
    routes[position] = ("%s: {partitions: %d, jobs: [%s]}"):format(plain(topic.name),
      topic.partitions, table.concat(names, ", "))
  end
  return "{" .. table.concat(routes, ", ") .. "}"
end

return jobs
