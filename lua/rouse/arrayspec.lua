-- Code Engine's array specs: the indices of a job run as text, "0,3-5". Parsed into sorted lists
-- without repeats.

local arrayspec = {
  MAX_INDEX = 9999999,
  MAX_INSTANCES = 1000,
  MAX_LENGTH = 253,
}

local function refuse(text, why)
  local shown = #text > 60 and text:sub(1, 60) .. "..." or text
  return nil, ("array spec '%s': %s"):format(shown, why), "ARRAYSPEC"
end

local function index(digits)
  if #digits > 7 or (#digits > 1 and digits:sub(1, 1) == "0") then
    return nil
  end
  return math.tointeger(tonumber(digits))
end

local function sorted(set)
  local list = {}
  for value in pairs(set) do
    list[#list + 1] = value
  end
  table.sort(list)
  return list
end

---Reads a spec. The empty string is the empty list: that is how a run says that no index is in a
---state.
---@param text string
---@return integer[]? indices sorted, each once
---@return string? message
---@return string? code "ARRAYSPEC"
function arrayspec.parse(text)
  assert(type(text) == "string", "arrayspec.parse: expected a string")
  local set, count = {}, 0
  if text == "" then
    return {}
  end
  for item in (text .. ","):gmatch("([^,]*),") do
    local from, to = item:match("^(%d+)%-(%d+)$")
    if not from then
      from = item:match("^%d+$")
      to = from
    end
    local first, last = from and index(from), to and index(to)
    if not first or not last then
      return refuse(text, ("'%s' is not an index or a range like 3-5"):format(item))
    elseif last < first then
      return refuse(text, ("the range '%s' runs backwards"):format(item))
    elseif last - first >= arrayspec.MAX_INSTANCES then
      return refuse(text, ("more than %d indices"):format(arrayspec.MAX_INSTANCES))
    end
    for i = first, last do
      if not set[i] then
        set[i], count = true, count + 1
      end
    end
    if count > arrayspec.MAX_INSTANCES then
      return refuse(text, ("more than %d indices"):format(arrayspec.MAX_INSTANCES))
    end
  end
  return sorted(set)
end

---Writes indices as a spec, neighbours as ranges. Order and repeats do not matter. Fails, with the
---code "ARRAYSPEC", where the service would refuse the result: too many instances, or too long a
---text.
---@param indices integer[]
---@return string?
---@return string? message
---@return string? code
function arrayspec.format(indices)
  local set, count = {}, 0
  for _, value in ipairs(indices) do
    local whole = math.tointeger(value)
    if not whole or whole < 0 or whole > arrayspec.MAX_INDEX then
      error(("arrayspec.format: %s is not an index"):format(tostring(value)), 2)
    end
    if not set[whole] then
      set[whole], count = true, count + 1
    end
  end
  if count > arrayspec.MAX_INSTANCES then
    return nil, ("%d indices, a job run has at most %d"):format(count, arrayspec.MAX_INSTANCES),
      "ARRAYSPEC"
  end
  local list, parts = sorted(set), {}
  local i = 1
  while i <= #list do
    local first = list[i]
    while list[i + 1] == list[i] + 1 do
      i = i + 1
    end
    parts[#parts + 1] = first == list[i] and tostring(first) or first .. "-" .. list[i]
    i = i + 1
  end
  local text = table.concat(parts, ",")
  if #text > arrayspec.MAX_LENGTH then
    return nil, ("the array spec has %d characters, at most %d are allowed"):format(#text,
      arrayspec.MAX_LENGTH), "ARRAYSPEC"
  end
  return text
end

return arrayspec
