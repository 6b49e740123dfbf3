-- Reads single environment variables and collects what is wrong with them: blanks around values do
-- not count, an empty variable is one that is not set, and a secret may come from the file that
-- NAME_FILE names.

local options = require "rouse.options"

local variables = {}

local function default_read(path)
  local file, message = io.open(path, "rb")
  if not file then
    return nil, message
  end
  local content, failure = file:read("a")
  file:close()
  return content, failure
end

local reader = {}
reader.__index = reader

---@param env table<string, string>
---@param read? fun(path: string): string?, string? reads a file
---@return table reader its problems, secrets and notes collect what is found
function variables.new(env, read)
  return setmetatable({
    env = env, read = read or default_read, problems = {}, secrets = {}, notes = {},
  }, reader)
end

-- A variable without the blanks around it; empty ones count as not set.
function reader:get(name)
  local value = self.env[name]
  value = value and value:match("^%s*(.-)%s*$")
  return value ~= "" and value or nil
end

function reader:missing(name, purpose)
  self.problems[#self.problems + 1] = { name = name, why = purpose, missing = true }
end

function reader:wrong(name, why)
  self.problems[#self.problems + 1] = { name = name, why = why, missing = false }
end

-- A variable, or the content of the file that NAME_FILE names. Second result: whether a problem was
-- reported.
function reader:secret(name)
  local value, path = self:get(name), self:get(name .. "_FILE")
  if value and path then
    self:wrong(name, ("is set and so is %s_FILE, expected one of them"):format(name))
    return nil, true
  elseif path then
    local content, message = self.read(path)
    if not content then
      self:wrong(name .. "_FILE", ("cannot be read: %s"):format(message or path))
      return nil, true
    end
    value = content:match("^%s*(.-)%s*$")
    if value == "" then
      self:wrong(name .. "_FILE", ("names an empty file: %s"):format(path))
      return nil, true
    end
  end
  return value, false
end

function reader:number(name, item)
  local text = self:get(name)
  if not text then
    return nil
  end
  local number = text:find("^[-+]?[%d.]+$") and tonumber(text) or nil
  local value, expected = options.verify(item, number or text)
  if value == nil then
    self:wrong(name, ("is %s, expected %s"):format(options.show(text), expected))
  end
  return value
end

function reader:choice(name, choices)
  local text = self:get(name)
  if not text then
    return nil
  end
  local item = { name = name, type = "string", choices = choices }
  local value, expected = options.verify(item, text)
  if not value then
    self:wrong(name, ("is %s, expected %s"):format(options.show(text), expected))
  end
  return value
end

function reader:url(name)
  local text = self:get(name)
  if text and not text:find("^https?://[^/%s]+") then
    self:wrong(name, ("is %s, expected a URL like https://HOST"):format(options.show(text)))
    return nil
  end
  return text and (text:gsub("/+$", ""))
end

variables.reader = reader

return variables
