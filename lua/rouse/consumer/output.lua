-- What a transactional handler produces (ctx.produce): checked where it is produced, so that the
-- script's line is named, and held back until the handler has answered.

local options = require "rouse.options"

local output = {}

---@type rouse.Option[]
local FIELDS <const> = {
  { name = "topic", type = "string", required = true },
  { name = "partition", type = "integer", min = 0, max = 2147483647 },
  { name = "key" },
  { name = "value" },
  { name = "headers", type = "table" },
  { name = "timestamp", type = "number", min = 0 },
}

local DEFAULT_SIZE <const> = 1000000

---@class rouse.consumer.Output
local methods = {}
local metatable = { __name = "rouse.consumer.output", __index = methods }

---@param knows fun(topic: string): true|nil, string|nil, string|nil whether a topic is there
---@param properties table of the producer, for its limits
---@return rouse.consumer.Output
function output.new(knows, properties)
  return setmetatable({
    knows = knows, topics = {}, most = tonumber(properties["message.max.bytes"]) or DEFAULT_SIZE,
  }, metatable)
end

local function copy_headers(headers)
  local copy = {}
  for i, header in ipairs(headers) do
    if type(header) ~= "table" or type(header.name) ~= "string"
      or (header.value ~= nil and type(header.value) ~= "string") then
      return nil, ("headers: item %d: a table {name=, value=} of strings expected"):format(i)
    end
    copy[i] = { name = header.name, value = header.value }
  end
  return copy
end

---Whether a record can be sent: its topic is there, and it is not larger than the producer takes.
---@param record table
---@return true|nil
---@return string|nil message
---@return string|nil code
function methods:check(record)
  local size = #(record.key or "") + #(record.value or "")
  for _, header in ipairs(record.headers or {}) do size = size + #header.name + #(header.value or "") + 10 end
  if size > self.most then
    return nil, ("topic %s: the record has %d bytes, message.max.bytes is %d"):format(record.topic, size,
      self.most), "MSG_SIZE_TOO_LARGE"
  end
  if self.topics[record.topic] then return true end
  local ok, message, code = self.knows(record.topic)
  if not ok then return nil, message, code end
  self.topics[record.topic] = true
  return true
end

-- A checked copy of what a script gave, or nil and what is wrong with it; never with a value in it.
local function check(record)
  if type(record) ~= "table" then
    return nil, ("ctx.produce: a table expected, got a %s"):format(type(record))
  end
  for _, name in ipairs { "key", "value" } do
    local kind = type(record[name])
    if kind ~= "string" and kind ~= "nil" then
      return nil, ("ctx.produce: %s: a string expected, got a %s"):format(name, kind)
    end
  end
  local key, value = record.key, record.value
  local rest = {}
  for name, field in pairs(record) do
    if name ~= "key" and name ~= "value" then rest[name] = field end
  end
  local checked, message = options.apply(rest, FIELDS, "ctx.produce")
  if not checked then return nil, message end
  checked.key, checked.value = key, value -- as they are: an empty key is one
  if checked.headers then
    checked.headers, message = copy_headers(checked.headers)
    if not checked.headers then return nil, "ctx.produce: " .. message end
  end
  return checked
end

---A ctx.produce that adds to box.list. It raises on what cannot be sent: a handler that overlooked it
---would lose the record.
---@param box {list: table[]}
---@return fun(record: rouse.produce)
function methods:collector(box)
  return function(record)
    local checked, message = check(record)
    if not checked then error(message, 2) end
    local ok
    ok, message = self:check(checked)
    if not ok then error("ctx.produce: " .. tostring(message), 2) end
    box.list[#box.list + 1] = checked
    return true
  end
end

return output
