-- Settings from environment variables, as Code Engine and its service bindings set them. Pure: the
-- environment comes in as a table, settings go out; files are read through a function. Everything
-- missing or wrong is reported at once.
--
-- Secrets may come from files: MESSAGEHUB_USER_FILE, MESSAGEHUB_PASSWORD_FILE, IAM_API_KEY_FILE.
-- The caller hands settings.secrets to rouse.log.secret before it logs anything.

local address = require "rouse.config.address"
local cluster = require "rouse.config.cluster"
local options = require "rouse.options"
local properties = require "rouse.config.properties"
local variables = require "rouse.config.variables"

local environment = {}

---@class rouse.Problem
---@field name string the variable
---@field why string what is wrong, or what the variable is for
---@field missing boolean

---@class rouse.Settings
---@field kafka rouse.KafkaLayers for environment.kafka and properties.resolve
---@field brokers string
---@field user? string
---@field ca_file? string
---@field job_mode? string "task" or "daemon"
---@field job? string Code Engine's name of the job this runs in
---@field run? string and of the run
---@field index? integer JOB_INDEX
---@field secrets string[]
---@field notes string[] what is accepted and worth a line in the log

---@class rouse.ObserverSettings: rouse.Settings
---@field kafkadata? {text: string, file: string, path?: string} path where it can be watched; nil: the script's routes
---@field claims_group? string OBSERVER_CONSUMER_GROUP: the observer claims messages in that group
---@field codeengine? {base_url: string, project: string, region?: string}
---@field admin {host: string, port: integer}|false where the admin endpoint listens; false: nowhere
---@field iam? {endpoint: string, api_key?: string, cr_token_file?: string, profile_name?: string, profile_id?: string}

---@class rouse.ConsumerSettings: rouse.Settings
---@field topics string[]
---@field group string
---@field idle_exit number
---@field reset "earliest"|"latest"
---@field assign "group"|"index"

local IAM_ENDPOINT <const> = "https://iam.cloud.ibm.com"

-- A reader of variables (variables.lua) with what an observer or a consumer needs on top.
local reader = setmetatable({}, { __index = variables.reader })
reader.__index = reader
for name, fn in pairs(cluster.methods) do reader[name] = fn end

local function new(env, how)
  return setmetatable(variables.new(env, how and how.read), reader)
end

environment.brokers = cluster.brokers

function reader:common(layers)
  local told = properties.told(layers)
  return {
    kafka = layers,
    brokers = told["bootstrap.servers"],
    user = told["sasl.username"],
    ca_file = self.ca_file,
    job_mode = self:get("JOB_MODE"),
    job = self:get("CE_JOB"),
    run = self:get("CE_JOBRUN"),
    index = self:number("JOB_INDEX", { name = "JOB_INDEX", type = "integer", min = 0 }),
    secrets = self.secrets,
    notes = self.notes,
  }
end

function reader:codeengine()
  local base, region = self:url("CE_API_BASE_URL"), self:get("CE_REGION")
  if base then
    base = base:gsub("/v2$", "")
  elseif not self:get("CE_API_BASE_URL") then
    if not region then
      self:missing("CE_API_BASE_URL", "address of Code Engine's API (the platform sets it), "
        .. "or CE_REGION, the region to build it from")
    elseif not region:find("^[%l%d][%l%d-]*$") then
      self:wrong("CE_REGION", ("is %s, expected a region like eu-de"):format(options.show(region)))
    else
      base = ("https://api.%s.codeengine.cloud.ibm.com"):format(region)
    end
  end
  local project = self:get("CE_PROJECT_ID")
  if not project then
    self:missing("CE_PROJECT_ID", "the Code Engine project's id (the platform sets it)")
  elseif project:find("[^%w_-]") then
    self:wrong("CE_PROJECT_ID", ("is %s, expected an id"):format(options.show(project)))
  end
  return { base_url = base, project = project, region = region }
end

function reader:iam()
  local key, reported = self:secret("IAM_API_KEY")
  local name, id = self:get("ROUSE_IAM_PROFILE_NAME"), self:get("ROUSE_IAM_PROFILE_ID")
  local endpoint = self:url("IBMCLOUD_IAM_API_ENDPOINT") or IAM_ENDPOINT
  local iam = { endpoint = (endpoint:gsub("/identity/token$", "")) }
  if key then
    iam.api_key = key
    self.secrets[#self.secrets + 1] = key
    if name or id then
      self.notes[#self.notes + 1] = "IAM_API_KEY is used, the trusted profile is not"
    end
  elseif name or id then
    iam.profile_name, iam.profile_id = name, id
    iam.cr_token_file = self:get("ROUSE_CR_TOKEN_FILE")
  elseif not reported then
    self:missing("IAM_API_KEY", "API key to start job runs with, or IAM_API_KEY_FILE, a file "
      .. "with it, or ROUSE_IAM_PROFILE_NAME or ROUSE_IAM_PROFILE_ID, a trusted profile")
  end
  return iam
end

function reader:kafkadata()
  local path = self:get("ROUSE_KAFKADATA")
  if path then
    local text, message = self.read(path)
    if not text then
      self:wrong("ROUSE_KAFKADATA", ("cannot be read: %s"):format(message or path))
      return nil
    end
    return { text = text, file = path, path = path }
  end
  -- Not trimmed: positions in messages are those of the variable's text.
  local text = self.env.kafkadata
  if not text or not text:find("%S") then
    self:missing("kafkadata", "topics and the jobs that consume them, as YAML, "
      .. "or ROUSE_KAFKADATA, a file with them")
    return nil
  end
  return { text = text, file = "kafkadata" }
end

-- Where the admin endpoint listens.
function reader:admin()
  local text = self:get("ROUSE_ADMIN")
  if not text then
    return address.ADMIN
  end
  local where, message = address.loopback(text)
  if where == nil then
    self:wrong("ROUSE_ADMIN", message)
  end
  return where
end

---What kafkadata is and where it comes from, when the rest of the environment may be incomplete; nil
---where it is missing.
---@param env table<string, string>
---@param how? {read?: function}
---@return {text: string, file: string, path?: string}?
function environment.kafkadata(env, how)
  return new(env, how):kafkadata()
end

-- Whether anything may have to be started through Code Engine.
local function uses_codeengine(observe)
  local default = observe.target and observe.target.kind or "codeengine"
  if not observe.routes then
    return default == "codeengine"
  end
  for _, route in ipairs(observe.routes) do
    for _, job in ipairs(route.jobs) do
      if (job.target and job.target.kind or default) == "codeengine" then
        return true
      end
    end
  end
  return false
end

-- Several topics are separated by commas or blanks; a pattern may hold commas itself.
local function topics_of(text)
  local topics = {}
  for topic in text:gmatch(text:find("^%^") and ".+" or "[^,%s]+") do
    topics[#topics + 1] = topic
  end
  return topics
end

local function finish(self, settings)
  if #self.problems > 0 then
    return nil, self.problems
  end
  return settings
end

---Settings of an observer. how.script is the script's checked `observe` table, how.read reads a
---file.
---@param env table<string, string>
---@param how? {script?: table, read?: fun(path: string): string?, string?}
---@return rouse.ObserverSettings?
---@return rouse.Problem[]? problems
function environment.observer(env, how)
  local self, observe = new(env, how), how and how.script or {}
  local settings = self:common(self:kafka("observer", observe.kafka))
  if uses_codeengine(observe) then
    settings.codeengine, settings.iam = self:codeengine(), self:iam()
  end
  if not observe.routes then
    settings.kafkadata = self:kafkadata()
  end
  settings.admin = self:admin()
  settings.claims_group = self:get("OBSERVER_CONSUMER_GROUP")
  if self:get("OBSERVER_TICKER") then
    self.notes[#self.notes + 1] = "OBSERVER_TICKER has no effect: records ring, nothing is polled"
  end
  return finish(self, settings)
end

---Settings of a consumer, the script's `consume` table already over the environment (only
---ROUSE_RESET, which the run sets, wins over the script's reset).
---@param env table<string, string>
---@param how? {script?: table, read?: fun(path: string): string?, string?}
---@return rouse.ConsumerSettings?
---@return rouse.Problem[]? problems
function environment.consumer(env, how)
  local self, consume = new(env, how), how and how.script or {}
  local settings = self:common(self:kafka("consumer", consume.kafka))
  settings.topics = consume.topics or topics_of(self:get("KAFKA_TOPIC") or "")
  if #settings.topics == 0 then
    self:missing("KAFKA_TOPIC", "topic to consume (or consume.topics in the script)")
  end
  settings.group = consume.group or self:get("CONSUMER_GROUP")
  if not settings.group then
    self:missing("CONSUMER_GROUP", "consumer group to commit in (or consume.group in the script)")
  end
  local idle = self:number("IDLE_TIMEOUT",
    { name = "IDLE_TIMEOUT", type = "number", min = 0, expected = "seconds, 0 or more" })
  settings.idle_exit = consume.idle_exit or idle or 60
  settings.reset = self:choice("ROUSE_RESET", { "earliest", "latest" }) or consume.reset
    or "earliest"
  settings.assign = self:choice("ROUSE_ASSIGN", { "group", "index" }) or "group"
  return finish(self, settings)
end

---Settings of a program that only reaches the brokers, with a consumer's variables.
---@param env table<string, string>
---@param how? {read?: fun(path: string): string?, string?}
---@return rouse.Settings?
---@return rouse.Problem[]? problems
function environment.client(env, how)
  local self = new(env, how)
  return finish(self, self:common(self:kafka("consumer")))
end

---Properties of a handle, or the problems of the environment they come from. Raises on properties
---of the script that Rouse owns.
---@param env table<string, string>
---@param how {role: rouse.Role, script?: table, own?: rouse.Properties, read?: function}
---@return rouse.Properties?
---@return rouse.Problem[]?
function environment.kafka(env, how)
  local kind = (how.role == "consumer" or how.role == "producer") and "consumer" or "observer"
  local self = new(env, how)
  local layers = self:kafka(kind, how.script)
  if #self.problems > 0 then
    return nil, self.problems
  end
  return properties.resolve(how.role, layers, how.own)
end

---One line per problem, ready to be shown.
---@param problems rouse.Problem[]
---@return string[]
function environment.lines(problems)
  local lines = {}
  for i, problem in ipairs(problems) do
    lines[i] = problem.missing and ("%s is not set: %s"):format(problem.name, problem.why)
      or ("%s %s"):format(problem.name, problem.why)
  end
  return lines
end

return environment
