--- What an answer of Code Engine or IAM means for the caller: the table of status codes in one
--- place. Pure.
local json = require "rouse.json"
local time = require "rouse.target.time"

local reply = {}

local REASONS = {
  [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found",
  [408] = "Request Timeout", [409] = "Conflict", [422] = "Unprocessable Entity",
  [429] = "Too Many Requests", [500] = "Internal Server Error", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout",
}

-- Transport failures that prove that nothing of the request was sent.
local UNSENT = { CONNECT = true, RESOLVE = true, TLS = true }

-- Gateways put this in their answers; whichever is there helps IBM's support to find the request.
local REQUEST_IDS = { "x-request-id", "x-correlation-id", "x-transaction-id" }

local function text(value)
  return type(value) == "string" and value ~= "" and value or nil
end

local function member(value, key)
  return type(value) == "table" and value[key] or nil
end

--- Decodes a JSON body; an HTML page of a proxy is simply not one.
---@param body string?
---@return any value nil when there is none
function reply.decode(body)
  if not text(body) then return nil end
  local value = json.decode(body)
  if value == json.null then return nil end
  return value
end

--- Finds the message of a failed answer, in the order of IBM's own SDKs: Code Engine, gateway and
--- IAM differ.
---@param response table status, headers, body
---@return string message
---@return string? code the service's own code
function reply.message(response)
  local body = reply.decode(response.body)
  local first = member(member(body, "errors"), 1)
  local message = text(member(first, "message")) or text(member(body, "error"))
    or text(member(body, "message")) or text(member(body, "errorMessage"))
    or REASONS[response.status] or "no message"
  local code = text(member(first, "code")) or text(member(body, "code"))
    or text(member(body, "errorCode"))
  return message, code
end

--- Reads Retry-After, which holds seconds or an HTTP date.
---@param headers table<string, string>?
---@param now number epoch seconds
---@return number? seconds from now
function reply.retry_after(headers, now)
  local value = text(member(headers, "retry-after"))
  if not value then return nil end
  local seconds = value:match("^%s*(%d+)%s*$")
  if seconds then return tonumber(seconds) end
  local at = time.from_http_date(value)
  return at and math.max(0, at - now) or nil
end

--- Finds the id under which the service knows the request.
---@param headers table<string, string>?
---@return string?
function reply.request_id(headers)
  for _, name in ipairs(REQUEST_IDS) do
    if text(member(headers, name)) then return headers[name] end
  end
  return nil
end

--- Finds Code Engine's own trace id in the body of a failed answer.
---@param response table
---@return string?
function reply.trace(response)
  return text(member(reply.decode(response.body), "trace"))
end

local function code_of(status, operation, message)
  if status == 400 or status == 422 then return "INVALID" end
  if status == 401 then return "UNAUTHORIZED" end
  if status == 403 then return message:lower():find("quota", 1, true) and "QUOTA" or "FORBIDDEN" end
  if status == 404 then return "NOT_FOUND" end
  if status == 409 then return operation == "create" and "CONFLICT" or "UNAVAILABLE" end
  if status == 429 then return "THROTTLED" end
  -- Applied or not, nobody knows: a gateway may give up on a request that the service behind it
  -- carries out.
  if status >= 500 or status == 408 then
    return operation == "create" and "AMBIGUOUS" or "UNAVAILABLE"
  end
  if status >= 400 then return "INVALID" end
  return "UNAVAILABLE"
end

--- Classifies an answer that is not 2xx.
---@param operation "create"|"list"|"get"|"delete"|"job"
---@param what string what was asked, for the message
---@param response table
---@param now number epoch seconds, for Retry-After dates
---@return string message
---@return string code
---@return number? retry_after
function reply.failure(operation, what, response, now)
  local message, own = reply.message(response)
  local code = code_of(response.status, operation, message)
  if code == "FORBIDDEN" then
    message = message .. " (the service role Writer is missing, or a quota is used up)"
  end
  local shown = ("%s: http %d%s: %s"):format(what, response.status, own and " " .. own or "",
    message)
  return shown, code, reply.retry_after(response.headers, now)
end

--- Classifies a request without an answer.
---@param operation "create"|"list"|"get"|"delete"|"job"
---@param what string
---@param message string
---@param code string the HTTP client's
---@return string message
---@return string code
function reply.lost(operation, what, message, code)
  local shown = ("%s: %s"):format(what, message)
  if code == "URL" then return shown, "INVALID" end
  if operation == "create" and not UNSENT[code] then return shown, "AMBIGUOUS" end
  return shown, "UNAVAILABLE"
end

return reply
