--- IBM Cloud IAM tokens, by API key or by trusted profile (the container's own token file; no
--- stored secret). A token is fetched again at 80 % of its life in the background, and is never
--- used in its last 10 seconds. Times come from the monotonic clock and `expires_in`, so a wrong
--- wall clock does no harm. Secrets and tokens are never logged.
local log = require "rouse.log"
local nursery = require "rouse.target.nursery"
local reply = require "rouse.target.reply"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local url = require "rouse.url"

---@class rouse.target.iam
---@field private endpoint string
---@field private http table
---@field private clock fun(): number
---@field private cached { token: string, refresh_at: number, ends_at: number }?
---@field private fetching table? the fetch under way, which all callers share
---@field private nursery rouse.nursery
local Iam = { __name = "rouse.target.iam" }
Iam.__index = Iam

local iam = {}

local TIMEOUT <const> = 30
local LAST_SECONDS <const> = 10
local RETRY_REFRESH <const> = 60
-- A token that does not say how long it lives is not trusted for long.
local UNKNOWN_LIFE <const> = 60

-- Where the container's token is mounted, in the order of IBM's SDK.
local CR_TOKEN_FILES = {
  "/var/run/secrets/tokens/vault-token",
  "/var/run/secrets/tokens/sa-token",
  "/var/run/secrets/codeengine.cloud.ibm.com/compute-resource-token/token",
}

-- Removes a secret that the service might repeat in its message.
local function without(message, secret)
  if not secret or secret == "" then return message end
  local from, to = message:find(secret, 1, true)
  while from do
    message = message:sub(1, from - 1) .. "***" .. message:sub(to + 1)
    from, to = message:find(secret, from + 3, true)
  end
  return message
end

---@class rouse.target.iam.options
---@field http table an HTTP client; stays the caller's
---@field endpoint string? default https://iam.cloud.ibm.com
---@field api_key string?
---@field cr_token_file string? default: where Code Engine mounts it
---@field profile_name string?
---@field profile_id string?
---@field clock (fun(): number)? monotonic seconds

--- Opens a source of tokens: with `api_key`, else with a trusted profile. To be called inside a
--- task, with whose end the source ends.
---@param options rouse.target.iam.options
---@return rouse.target.iam
function iam.new(options)
  assert(options.http, "iam.new: http is missing")
  assert(options.api_key or options.profile_name or options.profile_id,
    "iam.new: neither api_key nor profile_name nor profile_id is given")
  if options.api_key then log.secret(options.api_key) end
  local endpoint = (options.endpoint or "https://iam.cloud.ibm.com"):gsub("/+$", "")
  return setmetatable({
    endpoint = endpoint:gsub("/identity/token$", ""):gsub("/+$", ""),
    http = options.http,
    clock = options.clock or task.monotonic,
    api_key = options.api_key,
    cr_token_file = options.cr_token_file,
    profile_name = options.profile_name,
    profile_id = options.profile_id,
    nursery = nursery.new(),
  }, Iam)
end

-- The platform rotates the file, so it is read for every request.
---@private
function Iam:cr_token()
  local files = self.cr_token_file and { self.cr_token_file } or CR_TOKEN_FILES
  local message
  for _, file in ipairs(files) do
    local content, failure = sys.read_file(file)
    local token = content and content:match("^%s*(.-)%s*$")
    if token and token ~= "" then return token end
    message = failure or (file .. ": empty")
  end
  return nil, "iam: no token of a trusted profile: " .. message, "CREDENTIALS"
end

---@private
function Iam:request_body()
  if self.api_key then
    return url.query {
      grant_type = "urn:ibm:params:oauth:grant-type:apikey", apikey = self.api_key,
      response_type = "cloud_iam",
    }, self.api_key
  end
  local token, message, code = self:cr_token()
  if not token then return nil, message, code end
  return url.query {
    grant_type = "urn:ibm:params:oauth:grant-type:cr-token", cr_token = token,
    profile_name = self.profile_name, profile_id = self.profile_id,
  }, token
end

-- One request to IAM: the token as cached, or nil, message, code.
---@private
function Iam:fetch_once()
  local body, secret, code = self:request_body()
  if not body then return nil, secret, code end
  local started = self.clock()
  local response, message = self.http:request {
    method = "POST", url = self.endpoint .. "/identity/token", timeout = TIMEOUT, body = body,
    headers = {
      ["Content-Type"] = "application/x-www-form-urlencoded", Accept = "application/json",
    },
  }
  if not response then return nil, "iam: " .. message, "UNAVAILABLE" end
  if response.status < 200 or response.status > 299 then
    local text, own = reply.message(response)
    local refused = response.status == 400 or response.status == 401 or response.status == 403
    return nil, ("iam: http %d%s: %s"):format(response.status, own and " " .. own or "",
      without(text, secret)), refused and "CREDENTIALS" or "UNAVAILABLE",
      reply.retry_after(response.headers, task.now())
  end
  local answer = reply.decode(response.body)
  local token = type(answer) == "table" and answer.access_token
  if type(token) ~= "string" or token == "" then
    return nil, "iam: the answer holds no token", "UNAVAILABLE"
  end
  local life = type(answer.expires_in) == "number" and answer.expires_in or UNKNOWN_LIFE
  return {
    token = token, refresh_at = started + 0.8 * life, ends_at = started + life - LAST_SECONDS,
  }
end

-- Starts a fetch, or joins the one under way. It is not the caller's own task: a cancelled caller
-- would take the token from the others.
---@private
function Iam:fetch()
  local shared = self.fetching
  if shared then return shared end
  shared = { done = task.event(), message = "iam: the request was abandoned", code = "UNAVAILABLE" }
  self.fetching = shared
  self.nursery:spawn(function()
    local _ <close> = setmetatable({}, { __close = function()
      self.fetching = nil
      shared.done:set()
    end })
    local cached
    cached, shared.message, shared.code, shared.retry_after = self:fetch_once()
    if cached then
      self.cached, shared.token = cached, cached.token
    end
  end)
  return shared
end

-- Past 80 %: one fetch in the background; if it fails the next one is a minute later, or before the
-- end.
---@private
function Iam:refresh(cached, now)
  cached.refresh_at = now + math.min(RETRY_REFRESH, math.max(1, (cached.ends_at - now) / 4))
  self:fetch()
end

--- Returns a token that is good for 10 seconds at least.
---@param options { force: boolean|string|nil }? drops the cached token; a string only that token
---@return string? token
---@return string? message
---@return string? code CREDENTIALS when IAM refused, UNAVAILABLE when it could not be asked
---@return number? retry_after
function Iam:token(options)
  local force = options and options.force
  local cached, now = self.cached, self.clock()
  if cached and force and (force == true or force == cached.token) then
    self.cached, cached = nil, nil
  end
  if cached and now < cached.ends_at then
    if now >= cached.refresh_at then self:refresh(cached, now) end
    return cached.token
  end
  local shared = self:fetch()
  shared.done:wait(2 * TIMEOUT)
  if shared.token then return shared.token end
  return nil, shared.message, shared.code, shared.retry_after
end

--- Ends a fetch under way and forgets the token.
function Iam:close()
  self.cached = nil
  self.nursery:close()
end

return iam
