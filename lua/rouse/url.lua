--- The parts of URLs: percent-encoding, paths, queries.
local url = {}

--- Encodes all but the unreserved characters of RFC 3986.
---@param text string
---@return string
function url.encode(text)
  return (text:gsub("[^A-Za-z0-9._~-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- Decodes %XX; what is not one stays as it is.
---@param text string
---@return string
function url.decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- Builds a path of encoded segments: url.path("jobs", "a/b") is "/jobs/a%2Fb".
---@param ... string|number
---@return string
function url.path(...)
  local segments = {}
  for i = 1, select("#", ...) do
    segments[i] = "/" .. url.encode(tostring((select(i, ...))))
  end
  return table.concat(segments)
end

--- Builds a query of a table: sorted by name, an array gives one pair per item.
---@param values table<string, any>
---@return string query without the question mark
function url.query(values)
  local names, parts = {}, {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = values[name]
    for _, item in ipairs(type(value) == "table" and value or { value }) do
      parts[#parts + 1] = url.encode(name) .. "=" .. url.encode(tostring(item))
    end
  end
  return table.concat(parts, "&")
end

--- Reads a query or a form body. The last of several values of one name wins.
---@param text string without the question mark
---@return table<string, string>
function url.parse_query(text)
  local values = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=(.*)$")
    name, value = (name or pair):gsub("+", " "), (value or ""):gsub("+", " ")
    values[url.decode(name)] = url.decode(value)
  end
  return values
end

return url
