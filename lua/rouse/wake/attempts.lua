--- Attempts (pure): a run that ended where it began made no progress on that partition; the next attempt waits longer, and
--- after a limit the partition is quarantined and looked at slowly. Progress shows as a changed start, at once.
local naming = require "rouse.wake.naming"
local coverage = require "rouse.wake.coverage"

local attempts = {}

attempts.FIRST = 5 -- seconds after the first run without progress
attempts.MAX = 600
attempts.LIMIT = 6 -- runs without progress before the quarantine

--- Newest finished run per partition of a job: topic → partition → { attempt, mark, run }.
---@param runs rouse.Run[]
---@param job string
function attempts.index(runs, job)
  local finished = {}
  for _, run in ipairs(runs) do
    if run.job == job and coverage.finished(run) and run.env and run.env.ROUSE_WAKE then
      finished[#finished + 1] = run
    end
  end
  table.sort(finished, function(a, b)
    return (naming.number(job, a.name) or 0) < (naming.number(job, b.name) or 0)
  end)
  local index = {}
  for _, run in ipairs(finished) do
    for topic, partitions in pairs(naming.decode(run.env.ROUSE_WAKE)) do
      index[topic] = index[topic] or {}
      for partition, entry in pairs(partitions) do
        index[topic][partition] = { attempt = entry.attempt, mark = entry.mark, run = run }
      end
    end
  end
  return index
end

--- The number of the next attempt on a part, and when the one before ended.
---@param part rouse.Part
---@param index table from attempts.index
---@param ended table<string, number> run name → clock when it was first seen ended
---@return integer attempt, number? since clock
function attempts.next(part, index, ended)
  local mark = naming.mark(part.topic, part.partition, part.start or 0)
  local attempt, since = 0, nil
  local listed = index[part.topic] and index[part.topic][part.partition]
  if listed and listed.mark == mark then
    attempt, since = listed.attempt, ended[listed.run.name]
  end
  local tried = part.tried -- memory, for runs that vanish by themselves
  if tried and tried.mark == mark and tried.attempt > attempt and ended[tried.name] then
    attempt, since = tried.attempt, ended[tried.name] -- a run that is still there has not failed
  end
  return attempt + 1, since
end

--- Seconds to wait after an attempt without progress; the jitter comes from the mark, so that asking again does not move it.
---@param attempt integer the attempt to come
---@param part rouse.Part
function attempts.delay(attempt, part)
  if attempt <= 1 then
    return 0
  end
  if attempt > attempts.LIMIT then
    return attempts.MAX
  end
  local full = math.min(attempts.MAX, attempts.FIRST * 2 ^ (attempt - 2))
  local jitter = naming.hash(part.topic .. part.partition .. attempt) % 1024 / 1024
  return full / 2 + full / 2 * jitter
end

return attempts
