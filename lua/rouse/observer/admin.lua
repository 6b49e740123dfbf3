--- The admin endpoint: HTTP on this machine only, for `rouse explain`, probes and people. It reads and never changes anything.
local address = require "rouse.config.address"
local http = require "rouse.http"
local json = require "rouse.json"
local log = require "rouse.log"
local status = require "rouse.observer.status"
local task = require "rouse.task"

local admin = {}

local TEXT <const> = { ["Content-Type"] = "text/plain; charset=utf-8" }
local JSON <const> = { ["Content-Type"] = "application/json", ["Cache-Control"] = "no-store" }

local function text(code, body)
  return { status = code, headers = TEXT, body = body .. "\n" }
end

---@class rouse.AdminRoute
---@field doc string one line
---@field answer fun(observer: table, request: rouse.http.Request): table

--- Path → what is there. An answer is what rouse.http's respond takes.
---@type table<string, rouse.AdminRoute>
admin.ROUTES = {
  ["/livez"] = {
    doc = "200 while the observer runs",
    answer = function() return text(200, "ok") end,
  },
  ["/readyz"] = {
    doc = "200 while the observer decides on what is so now, else 503 and why",
    answer = function(observer)
      local ready, reason = status.ready(observer)
      return text(ready and 200 or 503, ready and "ok" or reason)
    end,
  },
  ["/status"] = {
    doc = "what is known, decided and waited for, as JSON; ?job=NAME for one job",
    answer = function(observer, request)
      return { body = json.encode(status.of(observer, request.query.job), { sorted = true }), headers = JSON }
    end,
  },
}

local function index()
  local lines = {}
  for path, route in pairs(admin.ROUTES) do
    lines[#lines + 1] = ("%-10s %s"):format(path, route.doc)
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- Answers a request.
---@param observer table
---@param request rouse.http.Request
---@return table answer
function admin.answer(observer, request)
  local route = admin.ROUTES[request.path]
  if not route then
    return text(request.path == "/" and 200 or 404, index())
  elseif request.method ~= "GET" and request.method ~= "HEAD" then
    return { status = 405, headers = { Allow = "GET, HEAD" }, body = "" }
  end
  return route.answer(observer, request)
end

--- Listens and serves in a task of the caller's until that is cancelled or the server closed. A port that is taken is a warning:
--- an observer works without being asked.
---@param observer table
---@return rouse.http.Server|nil
function admin.start(observer)
  local where = observer.settings.admin
  if not where then
    return nil
  end
  local server, message, code = http.server { host = where.host, port = where.port }
  if not server then
    log.warn(("no admin endpoint at %s: `rouse explain` will not find this observer"):format(address.show(where)),
      { reason = message, code = code })
    return nil
  end
  log.debug("admin endpoint at " .. server:url())
  task.spawn(function()
    server:serve(function(request) return admin.answer(observer, request) end, function(failure)
      log.error("admin endpoint: " .. failure)
    end)
  end)
  return server
end

return admin
