--- The fault switches of the mock Code Engine. Pure. A switch is a number (so many requests), true
--- or "always", 0 or false (off), or a table: count (number or "always"; default "always"), on (an
--- operation, a list of them, or "*"), and the switch's own settings.
local options = require "rouse.options"

---@class rouse.mock.faults
---@field private switches table<string, table>
---@field private hits table<string, integer>
local Faults = { __name = "rouse.mock.faults" }
Faults.__index = Faults

local faults = {}

-- What each switch is for, on which operations it acts unless told otherwise, and its settings with
-- defaults.
local KNOWN = {
  conflict_transient = { on = { "create" }, doc = "409 as of a busy quota, nothing created" },
  conflict_duplicate = { on = { "create" }, doc = "409 as of a name in use, nothing created" },
  throttle = { on = "*", retry_after = 1, form = "seconds", doc = "429 with Retry-After" },
  status = { on = "*", status = 503, doc = "an error status, nothing done" },
  html = { on = "*", status = 502, doc = "an HTML page as of a proxy, nothing done" },
  unauthorized = { on = "*", doc = "401 although the token is good" },
  drop_before = { on = "*", doc = "the connection closed, nothing done" },
  drop_after_create = { on = { "create" }, doc = "the connection closed, the run created" },
  status_after_create = {
    on = { "create" }, status = 504, doc = "an error status, the run created",
  },
  slow = { on = "*", seconds = 1, doc = "the answer delayed, the work done at once" },
  token_expiry = { on = { "iam" }, seconds = 60, doc = "the life of tokens issued from now on" },
  iam_down = { on = { "iam" }, status = 503, doc = "IAM answers with an error status" },
  iam_refuse = { on = { "iam" }, doc = "IAM refuses the credentials" },
  pending = { on = { "create" }, seconds = 60, doc = "new runs stay pending" },
  omit_status_details = { on = { "create" }, doc = "answers lack status and status_details" },
}

faults.OPERATIONS = { "create", "list", "get", "delete", "jobs", "job", "job_create", "job_update",
  "job_delete", "projects", "project", "iam" }

-- What each switch is for, by name.
faults.DOC = {}

local NAMES = {}
for name, known in pairs(KNOWN) do
  NAMES[#NAMES + 1], faults.DOC[name] = name, known.doc
end
table.sort(NAMES)

--- Makes the switches, all off.
---@return rouse.mock.faults
function faults.new()
  return setmetatable({ switches = {}, hits = {} }, Faults)
end

local function operations(on)
  local list = type(on) == "table" and on or { on }
  local set = {}
  for _, operation in ipairs(list) do
    if operation == "*" then return "*" end
    local known = false
    for _, name in ipairs(faults.OPERATIONS) do known = known or name == operation end
    if not known then return nil, ("'%s' is not an operation"):format(tostring(operation)) end
    set[operation] = true
  end
  return set
end

local function count_of(value)
  if value == nil or value == true or value == "always" then return math.huge end
  if value == false then return 0 end
  local number = type(value) == "number" and math.tointeger(value)
  return number and number >= 0 and number or nil
end

local function switch(name, value)
  local known = KNOWN[name]
  local settings = type(value) == "table" and value or { count = value }
  local result = {}
  for key, default in pairs(known) do
    if key ~= "doc" and key ~= "on" then result[key] = default end
  end
  for key, setting in pairs(settings) do
    if key ~= "count" and key ~= "on" then
      if result[key] == nil then
        return nil, ("%s has no setting '%s'"):format(name, tostring(key))
      end
      if type(setting) ~= type(result[key]) then
        return nil, ("%s.%s must be a %s"):format(name, key, type(result[key]))
      end
      result[key] = setting
    end
  end
  result.count = count_of(settings.count)
  if not result.count then return nil, name .. ": the count must be a number or \"always\"" end
  local message
  result.on, message = operations(settings.on or known.on)
  if not result.on then return nil, name .. ": " .. message end
  return result
end

--- Turns switches on and off; those not named stay as they are. All or nothing.
---@param values table<string, any>
---@return true? ok
---@return string? message
function Faults:set(values)
  local changed = {}
  for name, value in pairs(values) do
    if not KNOWN[name] then
      local near = options.nearest(tostring(name), NAMES)
      return nil, ("no fault '%s'%s"):format(tostring(name),
        near and (", did you mean '%s'?"):format(near) or "")
    end
    local made, message = switch(name, value)
    if not made then return nil, message end
    changed[name] = made
  end
  for name, made in pairs(changed) do
    self.switches[name] = made.count > 0 and made or nil
  end
  return true
end

--- Turns everything off. The number of hits stays.
function Faults:clear()
  self.switches = {}
end

--- Uses a switch once, if it is on for the operation.
---@param name string
---@param operation string
---@return table? settings
function Faults:take(name, operation)
  local found = self.switches[name]
  -- "*" means the API; IAM has switches of its own.
  if not found then return nil end
  local applies = found.on == "*" and operation ~= "iam" or found.on ~= "*" and found.on[operation]
  if not applies then return nil end
  found.count = found.count - 1
  if found.count <= 0 then self.switches[name] = nil end
  self.hits[name] = (self.hits[name] or 0) + 1
  return found
end

--- Describes the switches that are on, and how often each has struck.
---@return table<string, table> on
---@return table<string, integer> hits
function Faults:show()
  local shown = {}
  for name, found in pairs(self.switches) do
    local copy = {}
    for key, value in pairs(found) do copy[key] = value end
    copy.count = found.count == math.huge and "always" or found.count
    if found.on ~= "*" then
      copy.on = {}
      for operation in pairs(found.on) do copy.on[#copy.on + 1] = operation end
      table.sort(copy.on)
    end
    shown[name] = copy
  end
  local hits = {}
  for name, number in pairs(self.hits) do hits[name] = number end
  return shown, hits
end

return faults
