--- Topics whose partitions the broker does not let the doorbell read. librdkafka says so once and goes on asking in silence; so
--- they are armed again at a look at the topics, and what is not refused anew can be read again.
local log = require "rouse.log"

local refusals = {}

-- Seconds until an arming that was not refused counts as accepted. librdkafka rests a refused partition for 5 s, also when it is
-- assigned anew.
refusals.SILENCE = 10

local REFUSED <const> = { TOPIC_AUTHORIZATION_FAILED = true, GROUP_AUTHORIZATION_FAILED = true,
  CLUSTER_AUTHORIZATION_FAILED = true }

local function readable(observer, topic)
  if observer.refused[topic] then
    observer.refused[topic] = nil
    log.info(("%s: the doorbell may read the topic again"):format(topic))
  end
end

--- Takes an error of the doorbell if it is such a refusal, which is told once.
---@param observer table
---@param event table
---@return boolean taken
function refusals.take(observer, event)
  if not (REFUSED[event.code] and event.topic) then
    return false
  end
  local refused = observer.refused[event.topic]
  if not refused or refused.code ~= event.code then
    log.error(("%s: the broker refuses the doorbell: nobody is woken for this topic"):format(event.topic),
      { code = event.code, reason = event.message, topic = event.topic })
  end
  observer.refused[event.topic] = { code = event.code }
  return true
end

--- A record came: the topic can be read.
function refusals.rung(observer, event)
  if not event.error then
    readable(observer, event.topic)
  end
end

--- A look at the topics: what was not refused long enough since it was armed again is over, what was refused is armed again.
---@param now number task.monotonic()
function refusals.look(observer, now)
  for topic, refused in pairs(observer.refused) do
    if not refused.asked then
      refused.asked = now
      observer.doorbell:again(topic)
    elseif now - refused.asked >= refusals.SILENCE then
      readable(observer, topic)
    end
  end
end

return refusals
