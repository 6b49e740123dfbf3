--- HTTP: a client and a small server. Calls that wait take `timeout` in seconds and work in any task; the world's failures
--- return `nil, message, code`, and messages never hold a query, a header or a body.
---
--- Codes of requests: URL, RESOLVE, CONNECT, TLS (nothing was sent), TIMEDOUT, LOST (sent: it may have been applied),
--- TOO_LARGE (an answer came, larger than max_response).
local core = require "rouse.core.http"
local json = require "rouse.json"
local task = require "rouse.task"
local url = require "rouse.url"

local http = {
  encode = url.encode,
  decode = url.decode,
  path = url.path,
  query = url.query,
  parse_query = url.parse_query,
}

---@class rouse.http.Response
---@field status integer
---@field headers table<string, string> names in lower case
---@field body string

---@class rouse.http.RequestOptions
---@field url string http or https
---@field method? string default GET, or POST with json
---@field headers? table<string, string|number>
---@field query? table<string, any> appended to the URL, encoded
---@field body? string
---@field json? any sent as JSON, with its content type
---@field timeout? number seconds for everything, default 30
---@field connect_timeout? number seconds until the request can be sent, default 10

-- A copy of the options without the keys that C does not know, with what they stand for.
local function expand(options)
  if type(options) ~= "table" or (options.query == nil and options.json == nil) then
    return options
  end
  local sent = {}
  for key, value in pairs(options) do sent[key] = value end
  sent.query, sent.json = nil, nil
  if options.query ~= nil then
    local query = url.query(options.query)
    if query ~= "" then
      sent.url = options.url .. (options.url:find("?", 1, true) and "&" or "?") .. query
    end
  end
  if options.json ~= nil then
    sent.body = json.encode(options.json)
    sent.headers = { ["Content-Type"] = "application/json" }
    for name, value in pairs(options.headers or {}) do
      if name:lower() == "content-type" then sent.headers["Content-Type"] = nil end
      sent.headers[name] = value
    end
  end
  return sent
end

-- Lua functions around those of C, so that misuse is reported with a name, and a line for relay to replace.
local function ask(handle, options) return handle:request(options) end
local function answer_with(handle, answer) return handle:respond(answer) end

-- Passes results on; misuse is reported at the line of our caller's caller. Use it in tail calls.
local function relay(ok, first, ...)
  if ok then return first, ... end
  local text = type(first) == "string" and first:match("^[^\n]*rouse/http%.lua:%d+: (.*)")
  if text then error(text, 2) end
  error(first, 0)
end

---@class rouse.http.Client
local Client = { __name = "rouse.http.client" }
Client.__index = Client

--- Opens a client. It keeps connections and reuses them; redirects are not followed.
---@param options? { ca_file?: string, user_agent?: string, max_response?: integer }
---@return rouse.http.Client? client
---@return string? message
---@return string? code
function http.client(options)
  local handle, message, code = core.client(options)
  if not handle then return nil, message, code end
  return setmetatable({ handle = handle }, Client)
end

--- Sends a request and waits for its response, whatever its status.
---@param options rouse.http.RequestOptions
---@return rouse.http.Response? response
---@return string? message
---@return string? code
function Client:request(options)
  local sent = expand(options)
  if sent ~= options and options.json ~= nil then sent.method = sent.method or "POST" end
  return relay(pcall(ask, self.handle, sent))
end

local function with(method, address, options)
  local sent = {}
  for key, value in pairs(options or {}) do sent[key] = value end
  sent.method, sent.url = method, address
  return sent
end

---@param address string http or https URL
---@param options? rouse.http.RequestOptions
---@return rouse.http.Response? response
---@return string? message
---@return string? code
function Client:get(address, options)
  return relay(pcall(ask, self.handle, expand(with("GET", address, options))))
end

---@param address string http or https URL
---@param options? rouse.http.RequestOptions body or json among them
---@return rouse.http.Response? response
---@return string? message
---@return string? code
function Client:post(address, options)
  return relay(pcall(ask, self.handle, expand(with("POST", address, options))))
end

--- Sends a request whose answer is expected to be JSON, and returns its value. Another status than 2xx is the failure
--- STATUS, a body that is no JSON the failure JSON; both come with the response as fourth result.
---@param options rouse.http.RequestOptions
---@return any value
---@return string|rouse.http.Response message or, with a value, the response
---@return string? code
---@return rouse.http.Response? response
function Client:json(options)
  local response, message, code = self:request(options)
  if not response then return nil, message, code end
  local what = ("%s %s"):format(options.method or (options.json ~= nil and "POST" or "GET"),
    options.url:match("^[^?#]*"):gsub("//[^/@]*@", "//"))
  if response.status < 200 or response.status > 299 then
    return nil, ("%s: http %d"):format(what, response.status), "STATUS", response
  end
  local value, reason = http.json(response)
  if value == nil then return nil, ("%s: %s"):format(what, reason), "JSON", response end
  return value, response
end

--- Closes the connections; requests that still run end as LOST.
function Client:close()
  self.handle:close()
end

Client.__close = Client.close

--- Decodes the JSON body of a response or of a request that a server received.
---@param message { body: string }
---@return any value
---@return string? reason
---@return string? code
function http.json(message)
  return json.decode(message.body)
end

---@class rouse.http.Request a request that a server received
---@field method string
---@field path string as received, undecoded
---@field query table<string, string> decoded
---@field headers table<string, string> names in lower case
---@field body string
local Request = { __name = "rouse.http.request" }
Request.__index = Request

--- Answers. A request is answered once.
---@param answer? { status?: integer, headers?: table<string, string|number>, body?: string, json?: any }
---@return true? done
---@return string? message
---@return string? code
function Request:respond(answer)
  return relay(pcall(answer_with, self.handle, expand(answer)))
end

--- Closes the connection without an answer.
function Request:drop()
  self.handle:drop()
end

---@class rouse.http.Server
local Server = { __name = "rouse.http.server" }
Server.__index = Server

--- Listens, on loopback unless told otherwise. Port 0 is one that the kernel chooses. Failures: ADDRESS, IN_USE, DENIED,
--- LISTEN.
---@param options? { host?: string, port?: integer, max_body?: integer, max_connections?: integer, idle_timeout?: integer }
---@return rouse.http.Server? server
---@return string? message
---@return string? code
function http.server(options)
  local handle, message, code = core.server(options)
  if not handle then return nil, message, code end
  local host = options and options.host or "127.0.0.1"
  return setmetatable({ handle = handle, host = host }, Server)
end

---@return integer
function Server:port()
  return self.handle:port()
end

--- Returns where the server is reached, without a slash at the end.
---@return string
function Server:url()
  local host = self.host
  if host == "0.0.0.0" then host = "127.0.0.1" elseif host == "::" then host = "::1" end
  if host:find(":", 1, true) then host = "[" .. host .. "]" end
  return ("http://%s:%d"):format(host, self:port())
end

--- Waits for the next request. A request that nobody answers is answered with 500 when it is collected.
---@param options? { timeout?: number }
---@return rouse.http.Request? request
---@return string? message
---@return string? code TIMEDOUT or CLOSED
function Server:accept(options)
  local handle, received, code = self.handle:accept(options)
  if not handle then return nil, received, code end
  local path, query = received.target:match("^([^?#]*)%??([^#]*)")
  received.path = path:gsub("^https?://[^/]*", "")
  received.query = url.parse_query(query)
  received.handle = handle
  return setmetatable(received, Request)
end

local function answer_one(handler, request)
  local ok, answer = task.guard(handler, request)
  if ok and type(answer) == "table" then ok, answer = pcall(request.respond, request, answer) end
  local open = pcall(request.handle.respond, request.handle,
    { status = 500, body = "internal error\n" }) -- raises where it is answered
  if ok and open then return false, "the handler returned no answer" end
  return ok, answer
end

--- Serves until the server is closed: each request in a task of its own. The handler returns the answer (as for respond)
--- or answers by itself; when it fails, the client sees 500 and `on_error` is told.
---@param handler fun(request: rouse.http.Request): table?
---@param on_error? fun(message: string, request: rouse.http.Request)
function Server:serve(handler, on_error)
  while true do
    local request = self:accept()
    if not request then return end
    task.spawn(function()
      local ok, message = answer_one(handler, request)
      if not ok and on_error then on_error(tostring(message), request) end
    end)
  end
end

--- Closes all connections, answered or not; tasks that wait in accept get CLOSED.
function Server:close()
  self.handle:close()
end

Server.__close = Server.close

return http
