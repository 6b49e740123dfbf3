-- How Kafka is reached: the variables that name brokers and credentials, and ROUSE_KAFKA over them. Methods of the reader in
-- rouse.config.environment.

local options = require "rouse.options"
local properties = require "rouse.config.properties"

local cluster = {}

---Reads a list of brokers in any of the forms in use: a JSON array, Go's [a b], commas, blanks.
---@param text string
---@return string? brokers comma separated
---@return string? message
function cluster.brokers(text)
  local inner = text:match("^%s*%[(.*)%]%s*$") or text
  local list = {}
  for broker in inner:gmatch("[^,%s\"']+") do
    local bare = broker:gsub("^%a[%w_]*://", "")
    local host, port = bare:match("^(.-):(%d+)$")
    if not host then
      host = bare
    end
    if not (host:find("^[%w._-]+$") or host:find("^%[[%x:.]+%]$")) or (port and #port > 5)
      or (port and (tonumber(port) < 1 or tonumber(port) > 65535)) then
      return nil, ("holds %s, expected HOST:PORT"):format(options.show(broker))
    end
    list[#list + 1] = broker
  end
  if #list == 0 then
    return nil, "names no broker, expected HOST:PORT, more of them separated by commas"
  end
  return table.concat(list, ",")
end

---@class rouse.config.ClusterReader
local methods = {}
cluster.methods = methods

-- Layers of Kafka properties, and what the variables lack for them.
function methods:kafka(role_kind, script)
  local layers = { environment = {}, script = {}, override = {} }
  local roles = properties.ROLES[role_kind]
  local override = self:get("ROUSE_KAFKA")
  if override then
    local parsed, message = properties.parse(override)
    if parsed then
      parsed, message = properties.check(parsed, roles)
    end
    if not parsed then
      self:wrong("ROUSE_KAFKA", message .. "; expected properties as name=value;name=value")
    end
    layers.override = parsed or {}
  end
  if script then
    local checked, message = properties.check(script, roles)
    if not checked then
      error("kafka: " .. message, 0)
    end
    layers.script = checked
  end
  self.ca_file = self:get("SSL_CERT_FILE")
  if self.ca_file then
    local readable, message = self.read(self.ca_file)
    if not readable then
      self:wrong("SSL_CERT_FILE", ("cannot be read: %s"):format(message or self.ca_file))
    end
    layers.environment["ssl.ca.location"] = self.ca_file
  end
  local told = properties.told(layers)
  self:kafka_brokers(layers.environment, told)
  self:kafka_credentials(layers.environment, told)
  for _, secret in ipairs(properties.secrets(layers)) do
    self.secrets[#self.secrets + 1] = secret
  end
  return layers
end

function methods:kafka_brokers(derived, told)
  local name = "MESSAGEHUB_KAFKA_BROKERS_SASL"
  local text = self:get(name)
  if text then
    local brokers, message = cluster.brokers(text)
    if brokers then
      derived["bootstrap.servers"] = brokers
    elseif not told["bootstrap.servers"] then
      self:wrong(name, message)
    end
  elseif not told["bootstrap.servers"] then
    self:missing(name, "Kafka's brokers, HOST:PORT separated by commas or as a JSON array "
      .. "(a service binding to Event Streams sets it)")
  end
end

function methods:kafka_credentials(derived, told)
  local mechanism = (told["sasl.mechanisms"] or ""):upper()
  local sasl = properties.security(told)
  local needed = sasl and (mechanism == "PLAIN" or mechanism:find("^SCRAM"))
  local purposes = {
    { "MESSAGEHUB_USER", "sasl.username", "Kafka's user name (`token` on Event Streams)" },
    { "MESSAGEHUB_PASSWORD", "sasl.password",
      "Kafka's password (Event Streams: an API key), or MESSAGEHUB_PASSWORD_FILE, a file with it" },
  }
  for _, purpose in ipairs(purposes) do
    local name, property, text = table.unpack(purpose)
    local value, reported = nil, false
    -- Without SASL the variables may hold anything.
    if needed then
      value, reported = self:secret(name)
    end
    if value then
      derived[property] = value
    elseif needed and not reported and not told[property] then
      self:missing(name, text)
    end
  end
end

return cluster
