-- Index assignment (C5): the instance takes the partition that is its JOB_INDEX itself, without
-- joining the group, and commits as a non-member. Safety comes from the broker, which refuses such
-- a commit while the group has members, and from the commit's metadata, which names the run that
-- owns the partition. Waits, but keeps no state beyond the claim it returns.

local faults = require "rouse.consumer.faults"

local index = {}

---@class rouse.consumer.Claim
---@field topic string
---@field partition integer
---@field offset integer  where to start
---@field tried integer  the highest offset this run committed, or tried to: an answer may be lost
---@field name string  the run, as it stands in the commit's metadata

---Whether an instance assigns its own partition, or why it joins the group although ROUSE_ASSIGN
---says index.
---@param settings {assign: string, index: integer|nil, topics: string[]}
---@return boolean
---@return string|nil why
function index.applies(settings)
  if settings.assign ~= "index" then return false end
  if not settings.index then return false, "JOB_INDEX is not set" end
  if #settings.topics > 1 then return false, "the job consumes several topics" end
  if settings.topics[1]:sub(1, 1) == "^" then return false, "the topic is a pattern" end
  return true
end

-- One item of a list answer, or the first error of the call or the item.
local function only(list, message, code)
  if not list then return nil, message, code end
  local item = list[1]
  if not item then return nil, "the broker answered nothing", "EMPTY" end
  if item.error then return nil, item.error, item.error end
  return item
end

local function commit(handles, claim, offset, timeout)
  claim.tried = math.max(claim.tried or 0, offset)
  local item, message, code = only(handles.consumer:commit({ {
    topic = claim.topic, partition = claim.partition, offset = offset, metadata = claim.name,
  } }, { timeout = timeout }))
  if item then return true end
  if faults.kind(code) == "group" then
    return nil, "the group has members: " .. message, "REFUSED"
  end
  return nil, message, code
end

local function read(handles, claim, timeout)
  return only(handles.consumer:committed({ { topic = claim.topic, partition = claim.partition } },
    { timeout = timeout }))
end

local function has_offset(item)
  return math.type(item.offset) == "integer" and item.offset >= 0
end

---Claims the partition: commits the offset it just read, or the reset policy's, under the run's
---name.
---@param handles {consumer: table, admin: table}
---@param how {topic: string, partition: integer, name: string, reset: string, timeout: number}
---@return rouse.consumer.Claim|nil
---@return string|nil message
---@return string|nil code  "REFUSED": the group has members, join it. "RANGE": no such partition
function index.claim(handles, how)
  local meta, message, code = handles.admin:metadata {
    topics = { how.topic }, timeout = how.timeout,
  }
  if not meta then return nil, message, code end
  local topic = meta.topics[how.topic]
  if not topic then return nil, "the broker does not know it", "UNKNOWN_TOPIC_OR_PART" end
  if topic.error then return nil, topic.error, topic.error end
  local count = #topic.partitions
  if how.partition >= count then
    return nil, ("JOB_INDEX is %d, but topic %s has %d partition%s"):format(how.partition, how.topic,
      count, count == 1 and "" or "s"), "RANGE"
  end
  local claim = { topic = how.topic, partition = how.partition, name = how.name }
  local item
  item, message, code = read(handles, claim, how.timeout)
  if item and not has_offset(item) then
    item, message, code = only(handles.admin:offsets {
      partitions = { { topic = how.topic, partition = how.partition } },
      at = how.reset == "latest" and "end" or "beginning", timeout = how.timeout,
    })
  end
  if not item then return nil, message, code end
  claim.offset = item.offset
  local ok
  ok, message, code = commit(handles, claim, item.offset, how.timeout)
  if not ok then return nil, message, code end
  return claim
end

---Commits later progress, after a look at whether the partition is still this run's.
---@param handles {consumer: table}
---@param claim rouse.consumer.Claim
---@param offset integer
---@param timeout number
---@return true|nil
---@return string|nil message
---@return string|nil code  "TAKEN": another instance works here. "REFUSED": a group does, join it
function index.commit(handles, claim, offset, timeout)
  local item, message, code = read(handles, claim, timeout)
  if not item then return nil, message, code end
  if not has_offset(item) then
    return nil, "the commit of this run is gone", "REFUSED"
  elseif (item.metadata or "") == "" then
    -- runs leave their name; members, who may have come and gone between two commits, leave none
    return nil, ("a member of the group has committed %d"):format(item.offset), "REFUSED"
  elseif item.metadata ~= claim.name then
    return nil, ("run '%s' has taken the partition"):format(item.metadata), "TAKEN"
  elseif item.offset > claim.tried then
    return nil, ("the commit is at %d, ours at %d"):format(item.offset, claim.tried), "TAKEN"
  end
  return commit(handles, claim, offset, timeout)
end

return index
