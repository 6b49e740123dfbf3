--- Names and environments of the runs that Rouse submits (pure). The name is the job's, a short hash and a number one above
--- the highest listed, so that two submitters who saw the same list collide and exactly one wins. The environment carries per
--- partition the attempt and a hash of its start: where the hash still holds after the run, the run made no progress.
local naming = {}

local MAX_NAME = 53 -- Code Engine's limit for the name of a job run (ibmcloud ce jobrun submit)

--- FNV-1a, 32 bits.
---@param text string
---@return integer
function naming.hash(text)
  local hash = 0x811c9dc5
  for i = 1, #text do
    hash = ((hash ~ text:byte(i)) * 0x01000193) & 0xffffffff
  end
  return hash
end

--- What every run name of a job begins with.
---@param job string
function naming.prefix(job)
  return ("%s-%06x-"):format(job:sub(1, MAX_NAME - 17):gsub("%-+$", ""), naming.hash(job) & 0xffffff)
end

--- The number of a run name that Rouse gave to this job, or nil.
---@param job string
---@param name string
---@return integer?
function naming.number(job, name)
  local prefix = naming.prefix(job)
  if name:sub(1, #prefix) ~= prefix then
    return nil
  end
  return math.tointeger(tonumber(name:sub(#prefix + 1):match("^%d+$")))
end

--- The next name: one above the highest number that is listed. Nothing else counts, least of all what one submitter remembers:
--- all who saw the same list have to choose the same name.
---@param job string
---@param runs rouse.Run[]
---@return string name, integer number
function naming.next(job, runs)
  local highest = 0
  for _, run in ipairs(runs) do
    highest = math.max(highest, naming.number(job, run.name) or 0)
  end
  return naming.prefix(job) .. highest + 1, highest + 1
end

--- A short mark of where a partition's work started.
---@param topic string
---@param partition integer
---@param start integer
function naming.mark(topic, partition, start)
  return ("%04x"):format(naming.hash(topic .. "/" .. partition .. "@" .. start) & 0xffff)
end

--- ROUSE_WAKE: "TOPIC/PARTITION=ATTEMPT:MARK,..."; a topic is written once: "payments/0=1:3fa2,3=2:0c1d;shipping/1=1:88aa".
---@param entries { topic: string, partition: integer, attempt: integer, start: integer }[] sorted by topic
---@return string
function naming.encode(entries)
  local topics, current = {}, nil
  for _, entry in ipairs(entries) do
    if not current or current.topic ~= entry.topic then
      current = { topic = entry.topic }
      topics[#topics + 1] = current
    end
    current[#current + 1] = ("%d=%d:%s"):format(entry.partition, entry.attempt,
      naming.mark(entry.topic, entry.partition, entry.start))
  end
  for i, topic in ipairs(topics) do
    topics[i] = topic.topic .. "/" .. table.concat(topic, ",")
  end
  return table.concat(topics, ";")
end

--- The reverse; anything unreadable is skipped.
---@param text string?
---@return table<string, table<integer, { attempt: integer, mark: string }>>
function naming.decode(text)
  local result = {}
  for topic, list in (text or ""):gmatch("([^;/]+)/([^;]*)") do
    local partitions = result[topic] or {}
    result[topic] = partitions
    for partition, attempt, mark in list:gmatch("(%d+)=(%d+):(%x+)") do
      partitions[math.tointeger(tonumber(partition))] = { attempt = math.tointeger(tonumber(attempt)), mark = mark }
    end
  end
  return result
end

return naming
