--- Parts of small worlds as texts from which they can be made again: plain data without cycles, tables that are one stay one.
local matters = require "rouse.sim.matters"

local state = {}

local CLOCK <const>, WALL <const> = 1000000, 1700000000
local SHARED <const> = matters.SHARED

local function is_time(value)
  return value > CLOCK / 2 and value < CLOCK * 2 or value > WALL / 2 and value < WALL * 2
end

-- What is no table of a part's own, by number and back: scalars, functions, metatables and what never changes.
local values, numbers, floats, equals = {}, {}, {}, {}

local function numbered(value, list)
  local code = list[value]
  if not code then
    code = #values + 1
    values[code], list[value] = value, code
  end
  return code
end

-- The number of such a value, or the value where it is a table of its own.
local function code_of(value, key, shift)
  local kind = math.type(value) or type(value)
  if kind == "float" or kind == "integer" then
    value = shift ~= 0 and is_time(value) and value - shift or value
    return numbered(value, math.type(value) == "float" and floats or numbers)
  elseif kind == "table" and SHARED[key] then
    local hashed = matters.constant(value)
    equals[hashed] = equals[hashed] or value -- the first of those that are equal stands for all
    return numbered(equals[hashed], numbers)
  end
  return kind == "table" and value or numbered(value, numbers)
end

-- The shapes of tables: their metatable, their keys in order, and which of their values are tables. A shape makes its tables,
-- as large as they need to be. They are found key by key.
local shapes, tree = {}, {}

local function branch(node, key, own)
  local side = own and "tables" or "scalars"
  node[side] = node[side] or {}
  local found = node[side][key]
  if not found then
    found = {}
    node[side][key] = found
  end
  return found
end

local function literal(key)
  return (type(key) == "string" and "[%q] = " or "[%d] = "):format(key)
end

local function new_shape(meta, keys, own)
  local fields = {}
  for i, key in ipairs(keys) do
    fields[i] = ("%s%s[codes[at + %d]]"):format(key == i and "" or literal(key), own[i] and "made" or "values", i)
  end
  local text = ("local values, meta = ...; return function(codes, at, made) return %s{ %s }%s end"):format(
    meta and "setmetatable(" or "", table.concat(fields, ", "), meta and ", meta)" or "")
  shapes[#shapes + 1] = { size = #keys + 1, make = assert(load(text, "=shape", "t"))(values, meta) }
  return #shapes
end

-- Adds a table's shape and values, after those of the tables in it. Returns its number.
local function add(t, shift, codes, ids)
  local keys, own, found, meta = {}, {}, {}, getmetatable(t)
  local node = branch(tree, meta or false)
  for key, value in next, t do
    assert(type(key) ~= "table", "a table as a key")
    local code, i = code_of(value, key, shift), #keys + 1
    keys[i], own[i] = key, type(code) == "table"
    node = branch(node, key, own[i])
    found[i] = own[i] and (ids[code] or add(code, shift, codes, ids)) or code
  end
  node.shape = node.shape or new_shape(meta, keys, own)
  codes[#codes + 1] = node.shape
  table.move(found, 1, #found, #codes + 1, codes)
  ids.count = ids.count + 1
  ids[t] = ids.count
  return ids.count
end

local CHUNK <const> = 200

--- A part as text.
---@param part table
---@param shift number seconds that all of its times move back
---@return string
function state.pack(part, shift)
  local codes, chunks = {}, {}
  add(part, shift, codes, { count = 0 })
  for first = 1, #codes, CHUNK do
    chunks[#chunks + 1] = utf8.char(table.unpack(codes, first, math.min(first + CHUNK - 1, #codes)))
  end
  return table.concat(chunks)
end

--- The part that a text holds: tables of its own, but for what never changes.
---@param text string
---@return table
function state.unpack(text)
  local codes = { utf8.codepoint(text, 1, -1, true) }
  local made, count, at, last = {}, 0, 1, #codes
  while at <= last do
    local shape = shapes[codes[at]]
    count = count + 1
    made[count] = shape.make(codes, at, made)
    at = at + shape.size
  end
  return made[count]
end

return state
