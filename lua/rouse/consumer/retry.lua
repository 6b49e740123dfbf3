-- Whether and when a record is tried again: doubled, jittered, capped, and not more often than the
-- script allows.

local backoff = require "rouse.backoff"

local retry = {}

retry.defaults = { first = 1, max = 60, tries = 10 }

---Seconds to wait before the next attempt, or nil when `attempt` was the last one.
---@param policy {first: number, max: number, tries: integer, random: (fun(): number)|nil}
---@param attempt integer  the attempt that failed, from 1
---@return number|nil
function retry.delay(policy, attempt)
  if attempt >= policy.tries then return nil end
  return backoff.delay(attempt, policy)
end

return retry
