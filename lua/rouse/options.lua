-- Option tables as data: an array of {name, type, default, doc, ...} says what a table may hold.
-- The same items check a script's table, a function's arguments and the nodes of a kafkadata file,
-- so that all of them complain alike.

local options = {}

---@class rouse.Option
---@field name string
---@field type? string `string number integer boolean function table any`, or several with `|`
---@field default? any
---@field required? boolean
---@field doc? string
---@field min? number least value of a number
---@field max? number greatest value of a number
---@field choices? string[] the only strings allowed
---@field expected? string replaces the generated text after "expected"
---@field check? fun(value: any): any, string? returns the value to use, or nil and what was expected

local MAX_SHOWN <const> = 40

-- Edit distance where swapping two neighbours counts once; stops being exact above what nearest()
-- accepts.
local function distance(a, b)
  local before, previous
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    before, previous, row = previous, row, { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
  end
  return row[#b]
end

local function fold(name)
  return (name:lower():gsub("[-_. ]", ""))
end

-- How many mistakes are believed: more where the beginning is right, none in one or two letters.
local function tolerance(written, candidate)
  if #written <= 2 then
    return 0
  end
  local right = written:byte() == candidate:byte()
  return math.max(1, right and #written // 2 or #written // 3)
end

local function first_word(name)
  return name:match("^(%a+)_") or name
end

---Finds the name somebody probably meant: the closest spelling, else the only one that contains
---what was written or begins with the same word.
---@param name any
---@param names string[]
---@return string?
function options.nearest(name, names)
  if type(name) ~= "string" or name == "" then
    return nil
  end
  local folded = fold(name)
  local best, least = nil, math.huge
  local containing, count = nil, 0
  for _, candidate in ipairs(names) do
    local other = fold(candidate)
    local d = distance(folded, other)
    if d < least and d <= tolerance(folded, other) then
      best, least = candidate, d
    end
    if #folded >= 3 and (other:find(folded, 1, true) or folded:find(other, 1, true)
      or first_word(name) == first_word(candidate)) then
      containing, count = candidate, count + 1
    end
  end
  return best or (count == 1 and containing or nil)
end

---Says ", did you mean 'x'?", or the empty string when nothing is near.
---@param name any
---@param names string[]
---@return string
function options.hint(name, names)
  local near = options.nearest(name, names)
  return near and (", did you mean '%s'?"):format(near) or ""
end

---Shows a value in a message: short, on one line, tables and functions by their kind.
---@param value any
---@return string
function options.show(value)
  local kind = type(value)
  if kind == "string" then
    local text = value:gsub("%c", "?")
    if #text > MAX_SHOWN then
      text = text:sub(1, MAX_SHOWN) .. "..."
    end
    return "'" .. text .. "'"
  elseif kind == "number" or kind == "boolean" or kind == "nil" then
    return tostring(value)
  end
  return "a " .. kind
end

local KINDS <const> = {
  string = "a string", number = "a number", integer = "a whole number", boolean = "true or false",
  ["function"] = "a function", table = "a table", any = "any value",
}

local function listed(words, last)
  if #words < 2 then
    return words[1] or ""
  end
  return table.concat(words, ", ", 1, #words - 1) .. last .. words[#words]
end

---Says what an option takes, for messages and help: "a whole number of 1 or more".
---@param item rouse.Option
---@return string
function options.expected(item)
  if item.expected then
    return item.expected
  elseif item.choices then
    return listed(item.choices, " or ")
  end
  local words = {}
  for kind in (item.type or "any"):gmatch("[^|]+") do
    words[#words + 1] = KINDS[kind] or kind
  end
  local text = listed(words, " or ")
  if item.min and item.max then
    return ("%s from %s to %s"):format(text, item.min, item.max)
  elseif item.min then
    return ("%s of %s or more"):format(text, item.min)
  elseif item.max then
    return ("%s of %s or less"):format(text, item.max)
  end
  return text
end

local function typed(kinds, value)
  local kind = type(value)
  for wanted in kinds:gmatch("[^|]+") do
    if wanted == "any" then
      return value
    elseif wanted == "integer" then
      -- 8 / 2 is a whole number too.
      local whole = kind == "number" and math.tointeger(value)
      if whole then
        return whole
      end
    elseif wanted == kind then
      return value
    end
  end
  return nil
end

---Checks one value against its option. Returns the value to use, or nil and what was expected.
---@param item rouse.Option
---@param value any not nil
---@return any
---@return string? expected
function options.verify(item, value)
  local checked = typed(item.type or "any", value)
  if checked == nil then
    return nil, options.expected(item)
  end
  if type(checked) == "number" then
    local finite = checked == checked and checked ~= math.huge and checked ~= -math.huge
    if not finite or checked < (item.min or checked) or checked > (item.max or checked) then
      return nil, options.expected(item)
    end
  elseif checked == "" then
    return nil, "something that is not empty"
  end
  if item.choices then
    for _, choice in ipairs(item.choices) do
      if choice == checked then
        return item.check and item.check(checked) or checked
      end
    end
    return nil, options.expected(item)
  end
  if item.check then
    local value_or_nil, expected = item.check(checked)
    return value_or_nil, value_or_nil == nil and (expected or options.expected(item)) or nil
  end
  return checked
end

---Words the complaint about a value that verify refused: "reset is 'newest', expected earliest or
---latest".
---@param item rouse.Option
---@param value any
---@param expected string
---@return string
function options.complain(item, value, expected)
  if type(value) == "table" and typed(item.type or "any", value) then
    return ("wrong %s, expected %s"):format(item.name, expected)
  end
  return ("%s is %s, expected %s"):format(item.name, options.show(value), expected)
end

---Names of the options, in their order.
---@param spec rouse.Option[]
---@return string[]
function options.names(spec)
  local names = {}
  for i, item in ipairs(spec) do
    names[i] = item.name
  end
  return names
end

local function unknown(values, spec)
  local known, strangers = {}, {}
  for _, item in ipairs(spec) do
    known[item.name] = true
  end
  for key in pairs(values) do
    if not known[key] then
      strangers[#strangers + 1] = key
    end
  end
  -- The same complaint every time, whatever order the table has.
  table.sort(strangers, function(a, b) return tostring(a) < tostring(b) end)
  return strangers[1]
end

---Like check, but returns nil, the message and the key it is about instead of raising.
---@param values table?
---@param spec rouse.Option[]
---@param where string what the table is, for messages
---@return table?
---@return string? message
---@return any key
function options.apply(values, spec, where)
  if values == nil then
    values = {}
  elseif type(values) ~= "table" then
    return nil, ("%s is %s, expected a table"):format(where, options.show(values))
  end
  local key = unknown(values, spec)
  if key ~= nil then
    local hint = options.hint(key, options.names(spec))
    return nil, ("%s: unknown key %s%s"):format(where, options.show(key), hint), key
  end
  local result = {}
  for _, item in ipairs(spec) do
    local value = values[item.name]
    if value ~= nil then
      local checked, expected = options.verify(item, value)
      if checked == nil then
        return nil, where .. ": " .. options.complain(item, value, expected), item.name
      end
      result[item.name] = checked
    elseif item.required then
      return nil, ("%s: %s is missing, expected %s"):format(where, item.name,
        options.expected(item)), item.name
    else
      result[item.name] = item.default
    end
  end
  return result
end

---Checks a table of options and returns a new one with the defaults filled in. Raises on an unknown
---key, a missing or a wrong value; nil counts as an empty table.
---@param values table?
---@param spec rouse.Option[]
---@param where string what the table is, for messages: "http.request"
---@param level? integer whose line the error names: 1 the caller of check, 2 (default) the caller's caller
---@return table
function options.check(values, spec, where, level)
  local result, message = options.apply(values, spec, where)
  if not result then
    error(message, (level or 2) + 1)
  end
  return result
end

return options
