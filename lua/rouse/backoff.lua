-- How long to wait before trying again: doubled each time, capped, and jittered so that many do not
-- return at once.

local backoff = {}

---Returns the delay in seconds before the try that follows `attempt` failed ones. The doubled delay
---is first, 2 first, 4 first ... up to max; the result lies between half of it and all of it.
---@param attempt integer failed tries so far, from 1
---@param how? {first?: number, max?: number, random?: fun(): number} random returns [0,1)
---@return number
function backoff.delay(attempt, how)
  how = how or {}
  local first, max, random = how.first or 1, how.max or 60, how.random or math.random
  assert(attempt >= 1, "backoff.delay: attempts count from 1")
  -- 2^64 is beyond any cap, and larger powers would overflow to infinity times zero.
  local full = math.min(max, first * 2.0 ^ math.min(attempt - 1, 64))
  return full / 2 + full / 2 * random()
end

return backoff
