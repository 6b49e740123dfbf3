-- How a consumer comes by its partitions: by joining the group, or by its index. Both try until the
-- session has an outcome.

local backoff = require "rouse.backoff"
local faults = require "rouse.consumer.faults"
local index = require "rouse.consumer.index"

local start = {}

-- A topic that the brokers do not know this many times, a second apart, does not exist.
local UNKNOWN_TRIES <const> = 5
-- Whoever started this instance has seen its partition: a broker that has not heard of it yet will soon.
local RANGE_TRIES <const> = 4
local RANGE_PAUSE <const> = 0.5

-- Which of these topics the brokers do not have, or refuse; nil when they answer for all.
local function lacking(meta, names)
  for _, name in ipairs(names) do
    local topic = meta.topics[name]
    local code = not topic and "UNKNOWN_TOPIC_OR_PART" or topic.error
    if code then return name, code end
  end
end

local function no_topic(name)
  return faults.at_start(faults.exit.configuration, "topic does not exist", { topic = name })
end

-- A group silently waits for topics that do not exist: look for them beside it.
local function check_topics(s)
  local names = {}
  for _, name in ipairs(s.settings.topics) do
    if name:sub(1, 1) ~= "^" then names[#names + 1] = name end
  end
  local unknown = 0
  while #names > 0 and not s.outcome do
    local meta = s.admin:metadata { topics = names, timeout = 10 }
    local name, code
    if meta then
      s:alive()
      name, code = lacking(meta, names)
      if not name then return end
    end
    local kind = faults.kind(code)
    if kind == "topic" then
      unknown = unknown + 1
      if unknown >= UNKNOWN_TRIES then
        s:finish(no_topic(name))
        return
      end
    elseif kind == "authorization" then
      s:refused(code, ("topic %s: %s"):format(name, code))
      return
    end
    s.task.sleep(1)
  end
end

---Joins the group.
---@param s rouse.consumer.Session
function start.group(s)
  local ok, message = s.consumer:subscribe(s.settings.topics)
  if not ok then
    s:finish(faults.at_start(faults.exit.configuration, "cannot subscribe", { reason = message }))
    return
  end
  check_topics(s)
end

-- One try to claim; what it says about going on: "done", "group", "again" or "end".
local function try_claim(s, how)
  local handles = { consumer = s.consumer, admin = s.admin }
  local claim, message, code = index.claim(handles, how)
  local kind = faults.kind(code)
  if claim then
    s:alive()
    if s.transactions then
      s.transactions:claimed(claim)
    else
      s.committer = function(item, timeout)
        return index.commit(handles, claim, item.offset, timeout)
      end
    end
    local ok, reason = s.consumer:assign {
      { topic = claim.topic, partition = claim.partition, offset = claim.offset },
    }
    if not ok then error("assign: " .. tostring(reason)) end
    s:add { claim }
    s.partitions[claim.topic][claim.partition].committed = claim.offset
    return "done"
  elseif code == "REFUSED" then
    s.log.info("partition not taken by index, joining the group", { reason = message })
    return "group"
  elseif code == "RANGE" then
    s:say(code, "partition not there yet", { reason = message }, "info")
    return "again", "range", message
  elseif kind == "credentials" or kind == "authorization" then
    s:refused(code, message)
    return "end"
  end
  s:say(code or "?", "partition not taken yet", { reason = message })
  if s.transactions and code == "TIMEDOUT" then s.transactions:end_former(how) end
  return "again", kind
end

---Takes the partition of JOB_INDEX, or joins the group where that is refused.
---@param s rouse.consumer.Session
function start.index(s)
  local settings = s.settings
  local how = { topic = settings.topics[1], partition = settings.index, name = settings.name,
    reset = settings.reset, timeout = s.transactions and 2 or 5 }
  local unknown, beyond, tries = 0, 0, 0
  while not s.outcome do
    local result, kind, message = try_claim(s, how)
    if result == "group" then return start.group(s) end
    if result ~= "again" then return end
    unknown = kind == "topic" and unknown + 1 or 0
    beyond = kind == "range" and beyond + 1 or 0
    if unknown >= UNKNOWN_TRIES then
      return s:finish(no_topic(how.topic))
    elseif beyond >= RANGE_TRIES then
      return s:finish(faults.at_start(faults.exit.configuration, message))
    end
    tries = tries + 1
    s.task.sleep(kind == "topic" and 1 or kind == "range" and RANGE_PAUSE
      or backoff.delay(tries, { first = 0.2, max = 5 }))
  end
end

return start
