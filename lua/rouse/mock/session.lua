--- A mock Kafka, a mock Code Engine with IAM, and the environment in which observers and consumers find both: what
--- `rouse mock` and `rouse demo` start.
local codeengine = require "rouse.mock.codeengine"
local jobs = require "rouse.mock.jobs"
local json = require "rouse.json"
local kafka = require "rouse.mock.kafka"
local sys = require "rouse.core.sys"

---@class rouse.mock.session
---@field kafka rouse.mock.kafka
---@field codeengine rouse.mock.codeengine
---@field topics { name: string, partitions: integer }[]
---@field kafkadata string
local Session = { __name = "rouse.mock.session" }
Session.__index = Session

local session = {}

session.TOPICS = { { name = "payments", partitions = 4 }, { name = "shipping", partitions = 3 } }

---@class rouse.mock.session.options
---@field environ table<string, string> what this process was given
---@field topics { name: string, partitions: integer }[]? default: payments with 4 partitions, shipping with 3
---@field brokers integer? default 1
---@field jobs table<string, rouse.target.process.job>? beside the topics' own, or in their place
---@field http_port integer? default: a free one
---@field idle_timeout number? of the topics' own jobs, default 5 seconds
---@field quiet boolean? children print nothing
---@field execute boolean? default true: job runs are local processes
---@field page integer? most items on a page of Code Engine's lists
---@field grace number? seconds from SIGTERM to SIGKILL for children, default 5

--- Starts both mocks in tasks of the calling task, until that ends or `close`. Raises where even a cluster in
--- memory does not start.
---@param options rouse.mock.session.options
---@return rouse.mock.session?
---@return string? message
---@return string? code
function session.start(options)
  local topics, defined = options.topics or session.TOPICS, options.jobs or {}
  local executable = options.environ.ROUSE_EXECUTABLE or sys.executable()
  local all = {}
  for _, topic in ipairs(topics) do
    all[jobs.name_of(topic.name)] = jobs.consumer(topic.name, executable, options.idle_timeout or 5)
  end
  for name, job in pairs(defined) do all[name] = job end
  local cluster = kafka.new { topics = topics, brokers = options.brokers }
  local self = setmetatable({
    kafka = cluster, topics = topics, kafkadata = jobs.kafkadata(topics, defined),
    idle_timeout = options.idle_timeout or 5,
  }, Session)
  self.children = {}
  self.codeengine = codeengine.new {
    jobs = all, execute = options.execute ~= false, environ = self.children, page = options.page,
    port = options.http_port, grace = options.grace or 5,
    stdout = options.quiet and "null" or "stderr", stderr = options.quiet and "null" or "inherit",
  }
  local started, message, code = self.codeengine:start()
  if not started then
    cluster:close()
    return nil, message, code
  end
  -- The children's environment names the ports, which are known only now.
  for name, value in pairs(self:environ(options.environ)) do self.children[name] = value end
  return self
end

--- Lists the variables that an observer and a consumer need, in the order they are printed.
---@return { [1]: string, [2]: string }[]
function Session:exports()
  local brokers = {}
  for broker in self.kafka:bootstrap_servers():gmatch("[^,%s]+") do
    brokers[#brokers + 1] = broker
  end
  local url, first = self.codeengine:url(), self.topics[1]
  local exports = {
    { "MESSAGEHUB_KAFKA_BROKERS_SASL", json.encode(json.array(brokers)) },
    { "MESSAGEHUB_USER", "token" },
    { "MESSAGEHUB_PASSWORD", "mock-password" },
    -- The mock cluster answers a waiting fetch only when its time is over: a short one keeps it quick.
    { "ROUSE_KAFKA", "security.protocol=plaintext;fetch.wait.max.ms=20" },
    { "IAM_API_KEY", self.codeengine.settings.api_key },
    { "IBMCLOUD_IAM_API_ENDPOINT", url },
    { "CE_API_BASE_URL", url },
    { "CE_REGION", self.codeengine.site.region },
    { "CE_PROJECT_ID", self.codeengine.site.project },
    { "kafkadata", self.kafkadata },
    { "IDLE_TIMEOUT", ("%g"):format(self.idle_timeout) },
  }
  if first then
    exports[#exports + 1] = { "KAFKA_TOPIC", first.name }
    exports[#exports + 1] = { "CONSUMER_GROUP", jobs.group_of(first.name) }
  end
  return exports
end

--- Returns an environment with the exports over it.
---@param base table<string, string>
---@return table<string, string>
function Session:environ(base)
  local env = {}
  for name, value in pairs(base) do env[name] = value end
  for _, export in ipairs(self:exports()) do env[export[1]] = export[2] end
  -- A path to another kafkadata would win over ours.
  env.ROUSE_KAFKADATA = nil
  return env
end

--- Ends every process that was started, and both mocks.
function Session:close()
  self.codeengine:close()
  self.kafka:close()
end

return session
