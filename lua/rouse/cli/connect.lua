-- What `rouse check --connect` asks: the broker for topics and partitions, Code Engine for jobs and
-- their definitions.

local properties = require "rouse.config.properties"
local task = require "rouse.task"

local connect = {}

local TIMEOUT <const> = 10

-- ---- Kafka ----

-- Metadata of the cluster, or nil and the reason; an error event (refused credentials, no broker
-- up) tells more than a time-out does.
local function metadata(admin)
  local reason
  local watcher = task.spawn(function()
    while true do
      local event, _, code = admin:poll { timeout = TIMEOUT }
      if event and event.kind == "error" then
        -- What comes after a refusal only says that there is no connection.
        reason = event.code == "_AUTHENTICATION" and event.message or reason or event.message
      elseif not event and code ~= "TIMEDOUT" then
        return
      end
    end
  end)
  local found, message = admin:metadata { timeout = TIMEOUT }
  watcher:cancel()
  return found, reason or message
end

local function check_topic(findings, found, topic, partitions)
  local known = found.topics[topic]
  if not known or known.error then
    findings:problem("topic %s does not exist%s", topic,
      known and known.error and (" (%s)"):format(known.error) or "")
    return
  end
  local count = #known.partitions
  if partitions and partitions ~= count then
    findings:warning("topic %s has %d partitions, the route says %d; the cluster counts", topic, count,
      partitions)
  else
    findings:ok("topic %s has %d partition%s", topic, count, count == 1 and "" or "s")
  end
end

local function check_pattern(findings, found, pattern, match)
  local names = {}
  for name in pairs(found.topics) do
    if match(pattern, name) then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  if #names == 0 then
    findings:warning("the pattern %s matches no topic now", pattern)
  else
    findings:ok("the pattern %s matches %s", pattern, table.concat(names, ", "))
  end
end

---@param findings rouse.Findings
---@param admin table from rouse.kafka
---@param topics {topic: string, pattern: boolean, partitions?: integer}[]
---@param match fun(pattern: string, name: string): boolean
---@param brokers string as configured, for messages
function connect.kafka(findings, admin, topics, match, brokers)
  local found, message = metadata(admin)
  if not found then
    findings:problem("Kafka at %s does not answer: %s", brokers, message)
    return
  end
  findings:ok("Kafka answers (%d broker%s)", #found.brokers, #found.brokers == 1 and "" or "s")
  for _, item in ipairs(topics) do
    if item.pattern then
      check_pattern(findings, found, item.topic, match)
    else
      check_topic(findings, found, item.topic, item.partitions)
    end
  end
end

-- ---- Code Engine ----

local function check_definition(findings, route, job, definition, claims)
  local env = definition.env or {}
  if env.CE_REMOVE_COMPLETED_JOBS then
    findings:warning("job %s has CE_REMOVE_COMPLETED_JOBS=%s: its finished runs vanish, and with them what a "
      .. "restarted observer would know of failures; Rouse removes finished runs itself", job.name,
      env.CE_REMOVE_COMPLETED_JOBS)
  end
  local group = job.group or env.CONSUMER_GROUP
  if not group and not claims then
    findings:warning("job %s names no consumer group, so the messages of %s are claimed; give the job "
      .. "CONSUMER_GROUP, or kafkadata its `group`, and only offsets are watched", job.name, route.topic)
  end
  local topic = env.KAFKA_TOPIC
  if topic and not route.pattern and not (" " .. topic:gsub(",", " ") .. " "):find(
    " " .. route.topic .. " ", 1, true) then
    findings:warning("job %s has KAFKA_TOPIC=%s, its route is %s", job.name, topic, route.topic)
  end
end

---@param findings rouse.Findings
---@param target table a target that tells a job's definition
---@param routes rouse.Route[]
---@param how {uses: fun(job: rouse.Job): boolean, claims: boolean} uses: whether the job is this target's
function connect.jobs(findings, target, routes, how)
  local asked = {}
  for _, route in ipairs(routes) do
    for _, job in ipairs(route.jobs) do
      local known = asked[job.name]
      if how.uses(job) and not known then
        local definition, message, code = target:job(job.name)
        known = { definition = definition }
        asked[job.name] = known
        if definition then
          findings:ok("job %s exists (%s mode)", job.name, definition.mode or "task")
        elseif code == "NOT_FOUND" then
          findings:problem("job %s does not exist in the project", job.name)
        else
          findings:problem("job %s cannot be looked up: %s", job.name, message)
          -- The same answer would come for every job.
          if code ~= "INVALID" then
            return
          end
        end
      end
      if known and known.definition then
        check_definition(findings, route, job, known.definition, how.claims)
      end
    end
  end
end

-- ---- the command ----

local function check_kafka(findings, settings, role, topics)
  local kafka = require "rouse.kafka"
  local admin, message = kafka.admin { properties = properties.resolve(role, settings.kafka,
    { ["group.id"] = "rouse-check" }) }
  if not admin then
    findings:wrong("Kafka's properties: %s", message)
    return
  end
  connect.kafka(findings, admin, topics, kafka.match, settings.brokers)
  admin:close {}
end

local function check_codeengine(findings, loaded, settings, routes)
  local client = require "rouse.http".client { ca_file = settings.ca_file }
  local tokens = require "rouse.target.iam".new {
    endpoint = settings.iam.endpoint, api_key = settings.iam.api_key,
    cr_token_file = settings.iam.cr_token_file, profile_name = settings.iam.profile_name,
    profile_id = settings.iam.profile_id, http = client,
  }
  local target, message = require "rouse.target.codeengine".new {
    base_url = settings.codeengine.base_url, project = settings.codeengine.project,
    region = settings.codeengine.region, http = client,
    token = function(rejected)
      return tokens:token { force = rejected }
    end,
  }
  if not target then
    findings:wrong("Code Engine: %s", message)
    return
  end
  local default = loaded.table.observe.target
  connect.jobs(findings, target, routes, {
    claims = loaded.table.on_record ~= nil or settings.claims_group ~= nil,
    uses = function(job)
      local chosen = job.target or default
      return not chosen or chosen.kind == "codeengine"
    end,
  })
  target:close()
  tokens:close()
  client:close()
end

---@param findings rouse.Findings
---@param loaded rouse.Script
---@param settings rouse.Settings
---@param routes? rouse.Route[] an observer's
function connect.run(findings, loaded, settings, routes)
  if loaded.kind == "consumer" then
    local topics = {}
    for i, topic in ipairs(settings.topics) do
      topics[i] = { topic = topic, pattern = topic:sub(1, 1) == "^" }
    end
    check_kafka(findings, settings, "consumer", topics)
    return
  end
  check_kafka(findings, settings, "query", routes)
  if settings.codeengine then
    check_codeengine(findings, loaded, settings, routes)
  end
end

return connect
