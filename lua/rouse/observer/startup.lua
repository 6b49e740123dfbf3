--- What has to be true before an observer can observe: a broker that answers, credentials that are accepted, the definitions of
--- the jobs. Unreachable things are reported once per state change and retried with back-off; refusals end the start.
local backoff = require "rouse.backoff"
local log = require "rouse.log"
local task = require "rouse.task"

local startup = {}

startup.UNAVAILABLE, startup.CREDENTIALS, startup.CONFIGURATION = 69, 77, 78

local REFUSED = { _AUTHENTICATION = true, SASL_AUTHENTICATION_FAILED = true, _SSL = false }

--- A line per change of state of one thing ("Kafka", "Code Engine"): reachable or not, and why.
---@param what string
function startup.reporter(what)
  local down
  return function(ok, message, code)
    if ok and down then
      log.info(what .. " is reachable again")
    elseif not ok and down ~= code then
      log.warn(what .. " is not reachable, trying on", { reason = message, code = code })
    end
    if ok then
      down = nil
    else
      down = code
    end
  end
end

--- Calls fn until it succeeds or fails for good.
---@param what string
---@param fn fun(): any|nil, string?, string?
---@param final table<string, boolean> codes that end the trying
---@return any|nil, string?, string?
function startup.until_done(what, fn, final)
  local report, attempt = startup.reporter(what), 0
  while true do
    local value, message, code = fn()
    if value ~= nil then
      report(true)
      return value
    elseif final[code] then
      return nil, message, code
    end
    report(false, message, code)
    attempt = attempt + 1
    task.sleep(backoff.delay(attempt, { first = 0.5, max = 30 }))
  end
end

--- Waits for a broker's metadata. Fails only when the broker refuses the credentials.
---@param admin table the query handle
---@return table|nil metadata, string?, string? code "CREDENTIALS"
function startup.metadata(admin)
  local refused
  local watcher = task.spawn(function()
    while true do
      local event, _, code = admin:poll {}
      if event and event.kind == "error" and REFUSED[event.code] then
        refused = event.message
      elseif not event and code ~= "TIMEDOUT" then
        return
      end
    end
  end)
  local metadata, message, code = startup.until_done("Kafka", function()
    local answer, why, name = admin:metadata { timeout = 5 }
    if answer then
      return answer
    end
    return nil, refused or why, refused and "CREDENTIALS" or name
  end, { CREDENTIALS = true })
  watcher:cancel()
  return metadata, message, code
end

--- Definitions of the jobs named in the routes. A job that does not exist is its route's problem.
---@param targets table from rouse.observer.targets
---@param jobs table<string, string> job → target id
---@param faults table<string, string> job → why its definition cannot be read, filled in
---@return table<string, table>|nil definitions, string?, string?
function startup.definitions(targets, jobs, faults)
  local definitions = {}
  for name, id in pairs(jobs) do
    local definition, message, code = startup.until_done("the API of target " .. id, function()
      return targets:get(id):job(name)
    end, { CREDENTIALS = true, UNAUTHORIZED = true, NOT_FOUND = true, FORBIDDEN = true })
    faults[name] = nil
    if definition then
      definitions[name] = definition
    elseif code == "CREDENTIALS" or code == "UNAUTHORIZED" then
      return nil, "the target refused the credentials: " .. message, "CREDENTIALS"
    else
      faults[name] = message or code
      log.warn(("job %s: its definition cannot be read"):format(name), { reason = message, code = code })
    end
  end
  return definitions
end

return startup
