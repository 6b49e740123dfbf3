--- IAM of the mock Code Engine: issues tokens and knows which are good. No I/O: clock and random
--- numbers come in.
local url = require "rouse.url"

local tokens = {}

---@class rouse.mock.tokens
---@field private issued table<string, number> token -> monotonic end
local Tokens = { __name = "rouse.mock.tokens" }
Tokens.__index = Tokens

local LIFE <const> = 3600

---@class rouse.mock.tokens.options
---@field api_key string the only good one
---@field cr_token string? the only good container token; default: any
---@field clock fun(): number monotonic seconds
---@field now fun(): number epoch seconds
---@field random fun(): number

--- Makes an IAM that has issued nothing.
---@param options rouse.mock.tokens.options
---@return rouse.mock.tokens
function tokens.new(options)
  return setmetatable({
    api_key = options.api_key, cr_token = options.cr_token, clock = options.clock,
    now = options.now, random = options.random, issued = {}, count = 0,
  }, Tokens)
end

-- As IAM words it; the codes are those met in public.
local function refuse(code, message)
  return 400, { errorCode = code, errorMessage = message, context = { requestId = "mock" } }
end

local CHECKS = {
  ["urn:ibm:params:oauth:grant-type:apikey"] = function(self, form)
    if form.apikey ~= self.api_key then
      return refuse("BXNIM0415E", "Provided API key could not be found.")
    end
  end,
  ["urn:ibm:params:oauth:grant-type:cr-token"] = function(self, form)
    local token = form.cr_token or ""
    if token == "" or self.cr_token and token ~= self.cr_token then
      return refuse("BXNIM0439E", "Provided compute resource token is not valid.")
    end
    if not form.profile_id and not form.profile_name then
      return refuse("BXNIM0398E", "Selected trusted profile not eligible.")
    end
  end,
}

--- Answers POST /identity/token.
---@param headers table<string, string>
---@param body string?
---@param life number? seconds a new token lives
---@return integer status
---@return table body
function Tokens:issue(headers, body, life)
  if not (headers["content-type"] or ""):find("application/x-www-form-urlencoded", 1, true) then
    return refuse("BXNIM0105E", "The body is not a form.")
  end
  local form = url.parse_query(body or "")
  local check = CHECKS[form.grant_type]
  if not check then return refuse("BXNIM0108E", "The grant_type is not supported.") end
  local status, refusal = check(self, form)
  if status then return status, refusal end
  self.count = self.count + 1
  local token = ("mock.%d.%016x"):format(self.count, math.floor(self.random() * 2 ^ 52))
  life = life or LIFE
  self.issued[token] = self.clock() + life
  return 200, {
    access_token = token, refresh_token = "not_supported", token_type = "Bearer",
    expires_in = math.ceil(life), expiration = math.floor(self.now() + life), scope = "ibm openid",
  }
end

--- Tells whether an Authorization header holds a good token; with "Bearer" or, as IBM's own
--- examples, without.
---@param header string?
---@return boolean
function Tokens:good(header)
  if not header then return false end
  local token = header:match("^[Bb]earer%s+(%S+)%s*$") or header
  local ends_at = self.issued[token]
  if ends_at and self.clock() >= ends_at then
    self.issued[token] = nil
    return false
  end
  return ends_at ~= nil
end

--- Ends every token at once.
function Tokens:expire()
  self.issued = {}
end

return tokens
