-- What a handler's answer means. Only "done" and "dead" are answers; everything else, an error
-- included, is "retry", so that a handler with a bug cannot lose a record.

local verdicts = {}

local known = { done = true, retry = true, dead = true }

local function describe(value)
  if value == nil then return "the handler returned nothing" end
  if type(value) == "string" then return ("the handler returned %q"):format(value) end
  return "the handler returned a " .. type(value)
end

---@param value any
---@param reason any
---@return "done"|"retry"|"dead" verdict
---@return string|nil reason
local function read(value, reason)
  if not known[value] then
    return "retry", describe(value) .. ', expected "done", "retry" or "dead"'
  end
  if value == "done" then return value, nil end
  return value, reason ~= nil and tostring(reason) or nil
end

---One record's verdict from what task.guard gave back.
---@param ok boolean
---@param value any  the handler's first result, or the message of its error
---@param reason any  its second result, or the code of its error
---@return "done"|"retry"|"dead" verdict
---@return string|nil reason
---@return string|nil code  "ERROR", "CPU" or "MEMORY" when the handler did not answer
function verdicts.one(ok, value, reason)
  if not ok then return "retry", tostring(value), reason or "ERROR" end
  return read(value, reason)
end

---The verdicts of a batch: a string for all records alike, or a table with one per record: a string
---or {verdict, reason}.
---@param count integer
---@param ok boolean
---@param value any
---@param reason any
---@return "done"|"retry"|"dead"|nil verdict  nil when they differ by record
---@return string|nil reason
---@return string|nil code
---@return {verdict: string, reason: string|nil}[]|nil each
function verdicts.batch(count, ok, value, reason)
  if not ok or type(value) ~= "table" then return verdicts.one(ok, value, reason) end
  local each, all_done = {}, true
  for i = 1, count do
    local entry = value[i]
    local verdict, why
    if type(entry) == "table" then
      verdict, why = read(entry[1], entry[2])
    else
      verdict, why = read(entry)
    end
    all_done = all_done and verdict == "done"
    each[i] = { verdict = verdict, reason = why }
  end
  if all_done then return "done" end
  return nil, nil, nil, each
end

return verdicts
