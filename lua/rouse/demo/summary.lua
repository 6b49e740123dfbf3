--- The demo's closing summary (pure but for the printing).
local summary = {}

local function plural(n, noun)
  return ("%d %s%s"):format(n, noun, n == 1 and "" or "s")
end

--- For every burst that a submit answers: seconds from its first record in the log to the submit's arrival.
---@param bursts { topic: string, first: number }[]
---@param submits { monotonic: number, job: string, created: boolean }[]
---@return number[] sorted
function summary.delays(bursts, submits)
  local delays = {}
  for _, burst in ipairs(bursts) do
    local best
    for _, submit in ipairs(submits) do
      local delay = submit.monotonic - burst.first
      local answers = submit.created and submit.job == burst.topic .. "-consumer" and delay > -0.05
      if answers and (not best or delay < best) then
        best = math.max(0, delay)
      end
    end
    -- A burst that met running consumers needed no submit; one a long time later is another burst's.
    if best and best < 2 then
      delays[#delays + 1] = best
    end
  end
  table.sort(delays)
  return delays
end

---@param facts table bursts, submits, samples (instances alive), left (records), seconds, topics
function summary.print(facts)
  local records, busy = 0, 0
  for _, burst in ipairs(facts.bursts) do
    records = records + burst.records
  end
  for _, active in ipairs(facts.samples) do
    busy = busy + active
  end
  local instances = 0
  for _, topic in ipairs(facts.topics) do
    instances = instances + topic.partitions
  end
  local delays = summary.delays(facts.bursts, facts.submits)
  print()
  print(("records: %d in %s"):format(records, plural(#facts.bursts, "burst")))
  print(("wakes: %s"):format(plural(#facts.submits, "job run")))
  if #delays > 0 then
    print(("delay from record to submit: median %.0f ms, highest %.0f ms"):format(
      delays[(#delays + 1) // 2] * 1000, delays[#delays] * 1000))
  end
  print(("records left behind: %s"):format(facts.left or "unknown"))
  print(("share of time consumers ran: %.0f %% (always-on consumers: 100 %%), over %.0f s"):format(
    100 * busy / math.max(1, #facts.samples * instances), facts.seconds))
end

return summary
