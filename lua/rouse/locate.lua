-- Finds the line of a script where a key of its table is written. A table does not know where it
-- comes from, a message about it should: so the source is searched for the key being assigned.

-- Names and strings of Lua source with their lines, comments left out; enough to find where a key
-- is written.
local function tokens(source)
  local list, position, line = {}, 1, 1
  local function skip(stop)
    local _, breaks = source:sub(position, stop):gsub("\n", "")
    position, line = stop + 1, line + breaks
  end
  while position <= #source do
    local long = source:match("^%-%-%[(=*)%[", position) or source:match("^%[(=*)%[", position)
    local _, stop
    if long then
      _, stop = source:find("]" .. long .. "]", position, true)
      skip(stop or #source)
    elseif source:find("^%-%-", position) then
      skip((source:find("\n", position, true) or #source + 1) - 1)
    elseif source:find("^[\"']", position) then
      local quote, at = source:sub(position, position), position + 1
      while at <= #source and source:sub(at, at) ~= quote do
        at = at + (source:sub(at, at) == "\\" and 2 or 1)
      end
      list[#list + 1] = { kind = "string", text = source:sub(position + 1, at - 1), line = line }
      skip(math.min(at, #source))
    else
      _, stop = source:find("^[%a_][%w_]*", position)
      local kind = stop and "name" or "sign"
      stop = stop or position
      local text = source:sub(position, stop)
      if text:find("%S") then
        list[#list + 1] = { kind = kind, text = text, line = line }
      end
      skip(stop)
    end
  end
  return list
end

-- Index of the token that writes `key` in a table constructor, or nil.
local function find_key(list, key, from)
  for i = from, #list do
    local token = list[i]
    if token.text == key and token.kind ~= "sign" then
      local after = list[i + 1] and list[i + 1].text
      local assigned = token.kind == "name" and after == "="
        or (token.kind == "string" and after == "]")
      if assigned and not (list[i + 2] and list[i + 2].text == "=" and after == "=") then
        return i
      end
    end
  end
  return nil
end

---Line where the last key of a path is written in the source, or that of the nearest enclosing key
---found; nil when none is.
---@param source string
---@param path any[]
---@return integer?
local function locate(source, path)
  local list, from, line = tokens(source), 1, nil
  for depth, key in ipairs(path) do
    local text = tostring(key)
    local at = find_key(list, text, from)
    -- A table may be filled above the constructor that names it; the last key is the one that
    -- counts.
    if not at and depth == #path then
      at = find_key(list, text, 1)
      for i = from, at and 0 or #list do
        if list[i].kind == "string" and list[i].text == text then
          at = i
          break
        end
      end
    end
    if at then
      from, line = at, list[at].line
    end
  end
  return line
end

return locate
