-- Loads a script and checks the table it returns against the contract, so that a mistake is found
-- before anything runs and is told with the script's file and line. A script returns a table with
-- `observe` or `consume`, or a function.

local locate = require "rouse.locate"
local options = require "rouse.options"
local properties = require "rouse.config.properties"
local routes = require "rouse.config.routes"
local sandbox = require "rouse.sandbox"

local script = {}

---@class rouse.Script
---@field kind "observer"|"consumer"|"agent"
---@field name string the file's name in messages
---@field path? string where it was read from
---@field table? table observer, consumer: the checked table, defaults filled in, routes as an array
---@field fn? function agent: the function to run
---@field env table the script's globals

---@type rouse.Option[]
local OBSERVER <const> = {
  { name = "observe", type = "table", required = true },
  { name = "on_record", type = "function", doc = "on_record(record, ctx): routing by content" },
  { name = "decide", type = "function", doc = "decide(job, ctx): what to start, and when" },
}

---@type rouse.Option[]
local OBSERVE <const> = {
  { name = "routes", type = "table", doc = "default: kafkadata, read at start" },
  { name = "kafka", type = "table", doc = "librdkafka properties" },
  routes.TARGET,
  { name = "renew_offsets", type = "boolean|number", default = true,
    doc = "commit the offsets of quiet groups again before they expire; a number: every so many seconds" },
  { name = "refresh", type = "number", min = 0.1, default = 60,
    doc = "seconds between looks at the cluster's topics and partitions" },
}

local function check_topics(value)
  local list = type(value) == "string" and { value } or value
  local result = {}
  for key in pairs(list) do
    if math.type(key) ~= "integer" or key < 1 or key > #list then
      return nil, "a topic or an array of topics"
    end
  end
  for i, topic in ipairs(list) do
    local pattern, problem, expected = routes.check_topic(topic)
    if pattern == nil then
      return nil, ("%s (%s)"):format(expected, problem)
    end
    result[i] = topic
  end
  if #result == 0 then
    return nil, "at least one topic"
  end
  return result
end

local function check_topic(topic)
  local pattern, _, expected = routes.check_topic(topic)
  if pattern ~= false then
    return nil, pattern and "one topic, not a pattern" or expected
  end
  return topic
end

local function check_instance_id(id)
  if id == "" or #id > 249 or id:find("[^%w._-]") then -- as Kafka has it
    return nil, "1 to 249 letters, digits, '.', '_' and '-'"
  end
  return id
end

---@type rouse.Option[]
local CONSUMER <const> = {
  { name = "consume", type = "table", required = true },
  { name = "handle", type = "function", doc = "handle(record, ctx): one record" },
  { name = "handle_batch", type = "function",
    doc = "handle_batch(records, ctx): some of a partition" },
}

---@type rouse.Option[]
local CONSUME <const> = {
  { name = "topics", type = "string|table", check = check_topics, doc = "default: KAFKA_TOPIC",
    expected = "a topic or an array of topics" },
  { name = "group", type = "string", doc = "default: CONSUMER_GROUP" },
  { name = "idle_exit", type = "number", min = 0,
    doc = "exit after that many seconds without records; default: IDLE_TIMEOUT, else 60" },
  { name = "retry", type = "table", doc = "first, max (seconds), tries" },
  { name = "dead", type = "string", check = check_topic, doc = "topic for dead letters" },
  { name = "transactional", type = "boolean|string",
    doc = "commit offsets and what ctx.produce produced together; a string: where the producers' ids begin" },
  { name = "parallel", type = "integer", min = 1, max = 1000, default = 1,
    doc = "records of a partition at once, of different keys" },
  { name = "key", type = "function",
    doc = "key(record): records of one key stay in order; default: the record's key" },
  { name = "batch", type = "integer", min = 1, max = 100000, default = 500 },
  { name = "headers", type = "boolean", default = true,
    doc = "false: the handler looks at no headers, and they are read only where dead letters carry them" },
  { name = "reset", type = "string", choices = { "earliest", "latest" },
    doc = "where a group without a commit starts; default earliest" },
  { name = "instance_id", type = "string", check = check_instance_id,
    doc = "static membership: an id that no other process of the group has at the same time" },
  { name = "kafka", type = "table", doc = "librdkafka properties" },
}

---@type rouse.Option[]
local RETRY <const> = {
  { name = "first", type = "number", min = 0, default = 1 },
  { name = "max", type = "number", min = 0, default = 60 },
  { name = "tries", type = "integer", min = 1, default = 10 },
}

-- ---- checking ----

-- A complaint on its way to script.load: what is wrong and the path of keys to it.
local function complain(message, ...)
  return { message = message, path = { ... } }
end

local function apply(values, spec, where, ...)
  local result, message, key = options.apply(values, spec, where)
  if result then
    return result
  end
  local complaint = complain(message, ...)
  complaint.path[#complaint.path + 1] = key
  error(complaint, 0)
end

local function check_kafka(values, kind, where)
  local checked, message, name = properties.check(values or {}, properties.ROLES[kind])
  if not checked then
    error(complain(("%s.kafka: %s"):format(where, message), where, "kafka", name), 0)
  end
  return checked
end

local function check_observer(values)
  local result = apply(values, OBSERVER, "the script's table")
  local observe = apply(result.observe, OBSERVE, "observe", "observe")
  observe.kafka = check_kafka(observe.kafka, "observer", "observe")
  if observe.routes then
    local list, message, path = routes.build(observe.routes)
    if not list then
      error(complain("observe." .. message, "observe", "routes", table.unpack(path)), 0)
    end
    observe.routes = list
  end
  result.observe = observe
  return result
end

-- What makes no sense is told, not ignored: somebody relies on it.
local function check_parallel(result, consume)
  if result.handle_batch and consume.parallel > 1 then
    error(complain(("consume: parallel is %d, but handle_batch has many records in one call as it is; "
      .. "expected handle, or no parallel"):format(consume.parallel), "consume", "parallel"), 0)
  elseif consume.key and result.handle_batch then
    error(complain("consume: key is given, but handle_batch gets records in the order of their "
      .. "partition; expected handle, or no key", "consume", "key"), 0)
  elseif consume.key and result.consume.parallel == nil then
    error(complain("consume: key is given without parallel, expected parallel = 2 or more beside it",
      "consume", "key"), 0)
  end
end

-- What exactly once cannot be together with.
local function check_transactional(consume)
  if not consume.transactional then return end
  if consume.parallel > 1 then
    error(complain(("consume.parallel is %d, expected 1 with transactional: a transaction holds what belongs to the "
      .. "finished records and nothing else"):format(consume.parallel), "consume", "parallel"), 0)
  end
  local isolation = consume.kafka["isolation.level"]
  if isolation and isolation ~= "read_committed" then
    error(complain("consume.kafka: isolation.level is " .. options.show(isolation)
      .. ", expected read_committed with transactional", "consume", "kafka", "isolation.level"), 0)
  end
end

local function check_consumer(values)
  local result = apply(values, CONSUMER, "the script's table")
  local consume = apply(result.consume, CONSUME, "consume", "consume")
  consume.retry = apply(consume.retry, RETRY, "consume.retry", "consume", "retry")
  if consume.retry.max < consume.retry.first then
    error(complain(("consume.retry: max is %s, expected first (%s) or more"):format(
      consume.retry.max, consume.retry.first), "consume", "retry", "max"), 0)
  end
  consume.kafka = check_kafka(consume.kafka, "consumer", "consume")
  check_transactional(consume)
  if result.handle and result.handle_batch then
    error(complain("handle and handle_batch are both given, expected one of them",
      "handle_batch"), 0)
  elseif not result.handle and not result.handle_batch then
    error(complain("neither handle nor handle_batch is given, expected one of them",
      "consume"), 0)
  end
  check_parallel(result, consume)
  result.consume = consume
  return result
end

local SHAPE <const> = "expected a table with `observe` or `consume`, or a function"

-- Kind and checked value of what a script returned; raises complaints.
local function check(value)
  if type(value) == "function" then
    return "agent", value
  elseif type(value) ~= "table" then
    local what = value == nil and "nothing" or options.show(value)
    error(complain(("the script returns %s, %s"):format(what, SHAPE)), 0)
  elseif value.observe ~= nil and value.consume ~= nil then
    error(complain("observe and consume are both given, expected one of them", "consume"), 0)
  elseif value.observe ~= nil then
    return "observer", check_observer(value)
  elseif value.consume ~= nil then
    return "consumer", check_consumer(value)
  end
  local names = { "observe", "consume" }
  local keys = {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    if options.nearest(key, names) then
      error(complain(("unknown key %s%s"):format(options.show(key),
        options.hint(key, names)), key), 0)
    end
  end
  error(complain(("the script's table has neither `observe` nor `consume`, %s"):format(SHAPE)), 0)
end

---Checks a table as a script would return it, for specs and for rules made in Lua. Raises at the
---caller's line.
---@param value table|function
---@return "observer"|"consumer"|"agent" kind
---@return table|function checked
function script.check(value)
  local ok, kind, checked = pcall(check, value)
  if not ok then
    error(type(kind) == "table" and kind.message or kind, 2)
  end
  return kind, checked
end

-- ---- loading ----

local function default_read(path)
  local file, message = io.open(path, "rb")
  if not file then
    return nil, message
  end
  local content, failure = file:read("a")
  file:close()
  return content, failure
end

-- Runs the script's body under the limits where there are any.
local function run(chunk, ...)
  local ok, task = pcall(require, "rouse.task")
  if ok and task.guard and task.current() then
    return task.guard(chunk, ...)
  end
  return pcall(chunk, ...)
end

-- The message with the script's name, where it has no position: the error of a tail call has none.
local function named(message, name)
  if type(message) ~= "string" then
    message = options.show(message)
  end
  return message:find("^[^\n]-:%d+: ") and message or ("%s: %s"):format(name, message)
end

---Loads a script. Fails with the code "SCRIPT" and a message that begins with file:line as far as
---it is known.
---@param path string? nil for a script that is given as source
---@param how? {source?: string, name?: string, read?: fun(path: string): string?, string?, globals?: table}
---@return rouse.Script?
---@return string? message
---@return string? code
function script.load(path, how)
  how = how or {}
  local read = how.read or default_read
  local source = how.source
  if not source then
    local failure
    source, failure = read(path)
    if not source then
      return nil, ("%s: cannot be read: %s"):format(path, failure or "unknown reason"), "SCRIPT"
    end
  end
  local name = how.name or path or "script"
  local env = sandbox.new {
    directory = path and (path:match("^.*/") or ""), read = read, globals = how.globals,
  }
  local chunk, message = sandbox.compile(source, name, env)
  if not chunk then
    return nil, named(message, name), "SCRIPT"
  end
  local ok, value = run(chunk, name)
  if not ok then
    return nil, named(value, name), "SCRIPT"
  end
  local good, kind, checked = pcall(check, value)
  if not good then
    local complaint = type(kind) == "table" and kind or complain(kind)
    local line = #complaint.path > 0 and locate(source, complaint.path)
    local where = line and ("%s:%d"):format(name, line) or name
    return nil, ("%s: %s"):format(where, complaint.message), "SCRIPT"
  end
  return {
    kind = kind, name = name, path = path, env = env,
    table = kind ~= "agent" and checked or nil, fn = kind == "agent" and checked or nil,
  }
end

return script
