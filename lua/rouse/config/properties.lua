-- librdkafka properties of every handle Rouse opens. Four layers, each over the one before:
--
--     defaults of the role < environment (MESSAGEHUB_*, SSL_CERT_FILE) < the script's kafka={} < ROUSE_KAFKA
--
-- and on top the few properties that Rouse owns, because its promises rest on them. Setting one of
-- those is an error that says what to use instead. Everything else passes through; librdkafka
-- itself validates names and values.
--
-- Roles: doorbell (parked fetches), query (offsets and metadata, never fetches), claims (the
-- observer as a member of a group), consumer, producer (dead letters).

local options = require "rouse.options"

local properties = {}

---@alias rouse.Role "doorbell"|"query"|"claims"|"consumer"|"producer"
---@alias rouse.Properties table<string, string>

---@class rouse.KafkaLayers
---@field environment? rouse.Properties
---@field script? table<string, string|number|boolean>
---@field override? rouse.Properties from ROUSE_KAFKA

---Roles of each kind of program: what a script of that kind may set is checked for all of them.
properties.ROLES = {
  observer = { "doorbell", "query", "claims" },
  consumer = { "consumer", "producer" },
}

-- One name for each property, or two layers could both be set under different names.
local ALIASES <const> = {
  ["metadata.broker.list"] = "bootstrap.servers",
  ["sasl.mechanism"] = "sasl.mechanisms",
  ["max.partition.fetch.bytes"] = "fetch.message.max.bytes",
  ["auto.commit.enable"] = "enable.auto.commit",
  ["request.required.acks"] = "acks",
  ["message.send.max.retries"] = "retries",
  ["queue.buffering.max.ms"] = "linger.ms",
  ["message.timeout.ms"] = "delivery.timeout.ms",
  ["compression.type"] = "compression.codec",
}

local COMMON <const> = {
  ["client.id"] = "rouse",
  ["security.protocol"] = "SASL_SSL",
  ["sasl.mechanisms"] = "PLAIN",
  -- Handles idle for hours: notice a dead peer, return within seconds, and do not log each idle
  -- link a broker closes.
  ["socket.keepalive.enable"] = "true",
  ["socket.nagle.disable"] = "true",
  ["reconnect.backoff.max.ms"] = "2000",
  ["log.connection.close"] = "false",
}

-- allow.auto.create.topics is false by itself; setting it makes librdkafka warn about old brokers.
local DEFAULTS <const> = {
  doorbell = {
    -- A re-armed partition enters the next fetch when the current one returns: the wait bounds that
    -- delay. Only partitions armed lately are in these fetches (rouse.observer.doorbell).
    ["fetch.wait.max.ms"] = "250",
    -- A fetch whose broker went without a word is given up so long after its wait, and sent again.
    -- (The patient handle, whose requests wait behind its fetches, has its own.)
    ["socket.timeout.ms"] = "10000",
    ["fetch.message.max.bytes"] = "4096",
    -- With few queued messages allowed, bells of other partitions wait up to a second behind the
    -- first.
    ["queued.min.messages"] = "100000",
    ["queued.max.messages.kbytes"] = "4096",
    ["fetch.max.bytes"] = "1000000",
  },
  query = {
    ["topic.metadata.refresh.interval.ms"] = "300000",
    -- A broker that hangs is asked for metadata again and again, before all others, until something that it owes is so old.
    ["socket.timeout.ms"] = "10000",
  },
  claims = {
    -- An observer that was killed holds its partitions for so long; 10 s is well above the 6 s that
    -- brokers take at least.
    ["session.timeout.ms"] = "10000",
    ["fetch.wait.max.ms"] = "500",
    ["fetch.max.bytes"] = "1000000",
    ["queued.max.messages.kbytes"] = "4096",
    ["queued.min.messages"] = "1000000",
  },
  consumer = {
    -- Memory is bounded by bytes. A queue that is full by its number of messages is looked at again
    -- only after a second (3 million small records: 12 s with 20000, 0.8 s so).
    ["fetch.max.bytes"] = "4194304",
    ["queued.max.messages.kbytes"] = "8192",
    ["queued.min.messages"] = "1000000",
  },
  producer = {
    -- A partition waits for its dead letter: a pause for company would only be added to each.
    ["linger.ms"] = "0",
    ["enable.idempotence"] = "true",
    ["acks"] = "all",
    -- What is not delivered by then is tried again or parks the partition; below the 60 s of a
    -- transaction.
    ["delivery.timeout.ms"] = "30000",
  },
}

local COMMIT <const> = {
  ["enable.auto.commit"] = "false",
  ["enable.auto.offset.store"] = "false",
  ["enable.partition.eof"] = "false",
}

local function with(base, extra)
  local merged = {}
  for name, value in pairs(base) do
    merged[name] = value
  end
  for name, value in pairs(extra) do
    merged[name] = value
  end
  return merged
end

-- Values nobody but the runtime may change. The group ids of doorbell and query are never
-- subscribed.
local FIXED <const> = {
  doorbell = with(COMMIT, { ["group.id"] = "rouse-doorbell", ["auto.offset.reset"] = "error",
    ["isolation.level"] = "read_committed", ["fetch.min.bytes"] = "1", ["check.crcs"] = "false" }),
  query = with(COMMIT, { ["group.id"] = "rouse-query", ["auto.offset.reset"] = "error",
    ["isolation.level"] = "read_committed" }),
  claims = with(COMMIT, { ["auto.offset.reset"] = "error" }),
  consumer = with(COMMIT, { ["auto.offset.reset"] = "earliest" }),
  producer = {},
}

local GROUPS <const> = {
  observer = "the routes name the groups; OBSERVER_CONSUMER_GROUP names the observer's own",
  consumer = "use consume.group or CONSUMER_GROUP",
}
local COMMITS <const> = "Rouse commits what a handler has finished"

-- What to use instead of an owned property.
local OWNERS <const> = {
  ["enable.auto.commit"] = COMMITS,
  ["enable.auto.offset.store"] = COMMITS,
  ["enable.partition.eof"] = "Rouse decides when a partition is drained",
  ["auto.offset.reset"] = "use reset= of the route or of consume",
  ["group.instance.id"] = "use consume.instance_id; instances that share an id fence each other",
  ["isolation.level"] = "the doorbell must ring for committed records only",
  ["fetch.min.bytes"] = "the doorbell must ring for the first byte",
  ["check.crcs"] = "the doorbell reads no payload",
  ["log.queue"] = "Rouse's log reads librdkafka's",
  ["transactional.id"] = "use consume.transactional",
}

-- Owned whatever the role is.
local EVERYWHERE <const> = {
  ["group.id"] = true, ["group.instance.id"] = true, ["enable.auto.commit"] = true,
  ["enable.auto.offset.store"] = true, ["enable.partition.eof"] = true,
  ["auto.offset.reset"] = true, ["log.queue"] = true, ["transactional.id"] = true,
}

-- Properties that mean something on one side only; librdkafka warns when the other side gets them.
local CONSUMER_ONLY <const> = { "^fetch%.", "^queued%.", "^allow%.auto%.create", "^check%.crcs$",
  "^session%.timeout%.ms$", "^heartbeat%.interval%.ms$", "^max%.poll%.interval%.ms$",
  "^partition%.assignment%.strategy$", "^isolation%.level$", "^coordinator%.query",
  "^auto%.commit%.interval%.ms$", "^group%.protocol" }
local PRODUCER_ONLY <const> = { "^queue%.buffering%.", "^linger%.ms$", "^batch%.", "^acks$",
  "^retries$", "^retry%.backoff%.ms$", "^enable%.idempotence$", "^transactional%.id$",
  "^transaction%.timeout%.ms$", "^delivery%.timeout%.ms$", "^compression%.",
  "^request%.timeout%.ms$", "^partitioner$", "^sticky%.partitioning", "^enable%.gapless" }

local SECRETS <const> = { "sasl.password", "ssl.key.password", "ssl.key.pem",
  "ssl.keystore.password", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config" }

local function matches(name, patterns)
  for _, pattern in ipairs(patterns) do
    if name:find(pattern) then
      return true
    end
  end
  return false
end

local function canonical(name)
  return ALIASES[name] or name
end

---Says why a property may not be set in these roles, or nil when it may.
---@param name string
---@param roles rouse.Role[]
---@return string?
function properties.owner(name, roles)
  local own = canonical(name)
  local owned = EVERYWHERE[own]
  local observes = false
  for _, role in ipairs(roles) do
    owned = owned or FIXED[role][own] ~= nil
    observes = observes or role == "doorbell" or role == "query" or role == "claims"
  end
  if not owned then
    return nil
  end
  local instead = OWNERS[own] or (observes and GROUPS.observer or GROUPS.consumer)
  return ("'%s' is owned by Rouse: %s"):format(name, instead)
end

---Checks properties that somebody wrote. Returns them as strings under their canonical names, or
---nil, the message and the name it is about.
---@param values table
---@param roles rouse.Role[]
---@return rouse.Properties?
---@return string? message never holds a value
---@return any name
function properties.check(values, roles)
  local names, result = {}, {}
  for name in pairs(values) do
    if type(name) ~= "string" or name == "" then
      return nil, ("a property's name is %s, expected a string like \"client.id\""):format(
        options.show(name)), name
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value, owner = values[name], properties.owner(name, roles)
    if owner then
      return nil, owner, name
    elseif type(value) == "number" and math.tointeger(value) then
      value = math.tointeger(value)
    elseif type(value) ~= "string" and type(value) ~= "number" and type(value) ~= "boolean" then
      return nil, ("'%s' is %s, expected a string, a number or true or false"):format(name,
        options.show(value)), name
    end
    result[canonical(name)] = tostring(value)
  end
  return result
end

---Reads ROUSE_KAFKA: name=value, separated by ';' or newlines; blanks around names and values do
---not count.
---@param text string
---@return rouse.Properties?
---@return string? message names the entry by its number, as its text may be part of a password
function properties.parse(text)
  local result, number = {}, 0
  for entry in text:gmatch("[^;\r\n]+") do
    if entry:find("%S") then
      number = number + 1
      local name, value = entry:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
      if not name or name == "" then
        return nil, ("entry %d is not name=value"):format(number)
      elseif name:find("[^%w._-]") then
        return nil, ("entry %d: a name has letters, digits, '.', '_' and '-' only"):format(number)
      end
      result[canonical(name)] = value
    end
  end
  return result
end

---Merges the layers without the role's defaults and fixed values: what the program as a whole was
---told.
---@param layers rouse.KafkaLayers
---@return rouse.Properties
function properties.told(layers)
  local result = with(COMMON, layers.environment or {})
  for name, value in pairs(layers.script or {}) do
    result[canonical(name)] = tostring(value)
  end
  return with(result, layers.override or {})
end

---Says whether the properties make the client authenticate with SASL, and whether it uses TLS.
---@param told rouse.Properties
---@return boolean sasl
---@return boolean tls
function properties.security(told)
  local protocol = (told["security.protocol"] or ""):lower()
  return protocol:find("sasl", 1, true) ~= nil, protocol:find("ssl", 1, true) ~= nil
end

---Properties of a handle of this role, ready for librdkafka. Raises on properties that Rouse owns.
---@param role rouse.Role
---@param layers rouse.KafkaLayers
---@param own? rouse.Properties the runtime's own values, over everything: ["group.id"] = "payments-group"
---@return rouse.Properties
function properties.resolve(role, layers, own)
  if not DEFAULTS[role] then
    error(("properties.resolve: unknown role %s"):format(options.show(role)), 2)
  end
  local result = with(COMMON, DEFAULTS[role])
  local foreign = role == "producer" and CONSUMER_ONLY or PRODUCER_ONLY
  for _, layer in ipairs { layers.environment or {}, layers.script or {}, layers.override or {} } do
    local checked, message = properties.check(layer, { role })
    if not checked then
      error("kafka: " .. message, 2)
    end
    for name, value in pairs(checked) do
      if not matches(name, foreign) then
        result[name] = value
      end
    end
  end
  -- Credentials that the chosen protocol does not use stay out of the handle.
  local sasl, tls = properties.security(result)
  for name in pairs(layers.environment or {}) do
    if (not sasl and name:find("^sasl%.")) or (not tls and name:find("^ssl%.")) then
      result[name] = nil
    end
  end
  if not sasl then
    result["sasl.mechanisms"] = nil
  end
  return with(with(result, FIXED[role]), own or {})
end

---Values among the layers that must not appear in any output.
---@param layers rouse.KafkaLayers
---@return string[]
function properties.secrets(layers)
  local list = {}
  for _, layer in ipairs { layers.environment or {}, layers.script or {}, layers.override or {} } do
    for _, name in ipairs(SECRETS) do
      if layer[name] and layer[name] ~= "" then
        list[#list + 1] = tostring(layer[name])
      end
    end
  end
  return list
end

return properties
