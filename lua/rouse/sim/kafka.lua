--- An in-memory Kafka, as far as offsets tell: partitions whose offsets hold plain records, records of open, committed and
--- aborted transactions, markers and gaps (compaction); low and high offsets, the last stable offset; commits of groups.
--- Plain data; nothing here knows of time.
local Cluster = { __name = "rouse.sim.kafka" }
Cluster.__index = Cluster

local kafka = {}

--- Kinds of what an offset holds: consumable for a read_committed consumer are these.
local CONSUMABLE = { plain = true, committed = true }

local function new_partition()
  return { low = 0, high = 0, log = {}, open = nil }
end

---@param topics table<string, integer> topic → number of partitions
function kafka.new(topics)
  local self = setmetatable({ topics = {}, commits = {}, version = 0 }, Cluster)
  for name, count in pairs(topics) do
    self:create(name, count)
  end
  return self
end

function Cluster:create(name, count)
  local topic = { count = count }
  for i = 0, count - 1 do
    topic[i] = new_partition()
  end
  self.topics[name] = topic
  self.version = self.version + 1
end

--- Topics in order.
function Cluster:names()
  local names = {}
  for name in pairs(self.topics) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

function Cluster:partition(topic, partition)
  return self.topics[topic] and self.topics[topic][partition]
end

function Cluster:grow(name, count)
  local topic = self.topics[name]
  for i = topic.count, count - 1 do
    topic[i] = new_partition()
  end
  topic.count = math.max(topic.count, count)
  self.version = self.version + 1
end

--- Deleted and created again; the commits of groups go with it unless `keep` (groups with members keep them).
function Cluster:recreate(name, keep)
  self:create(name, self.topics[name].count)
  for _, group in pairs(self.commits) do
    if not keep then
      group[name] = nil
    end
  end
end

--- Deleted: the commits of groups go with it.
function Cluster:delete(name)
  self.topics[name] = nil
  for _, group in pairs(self.commits) do
    group[name] = nil
  end
  self.version = self.version + 1
end

--- Appends records; with `open` they belong to the partition's open transaction.
---@return integer offset of the first
function Cluster:produce(topic, partition, count, open)
  local part = self:partition(topic, partition)
  local first = part.high
  for _ = 1, count do
    part.log[part.high] = open and "open" or "plain"
    part.high = part.high + 1
  end
  if open and not part.open then
    part.open = first
  end
  self.version = self.version + 1
  return first
end

--- Ends the open transaction: its records become committed or aborted, and a marker takes an offset.
function Cluster:finish(topic, partition, outcome)
  local part = self:partition(topic, partition)
  if not part.open then
    return false
  end
  for offset = part.open, part.high - 1 do
    if part.log[offset] == "open" then
      part.log[offset] = outcome
    end
  end
  part.log[part.high] = "marker"
  part.high, part.open = part.high + 1, nil
  self.version = self.version + 1
  return true
end

--- Retention: nothing below `low` is there any more.
function Cluster:trim(topic, partition, low)
  local part = self:partition(topic, partition)
  low = math.min(low, part.high)
  for offset = part.low, low - 1 do
    part.log[offset] = nil
  end
  part.low = math.max(part.low, low)
  if part.open and part.open < part.low then
    part.open = part.low < part.high and part.low or nil
  end
  self.version = self.version + 1
end

--- Compaction: the records before `stop` leave gaps, offsets and ends stay.
function Cluster:compact(topic, partition, stop)
  local part = self:partition(topic, partition)
  for offset = part.low, math.min(stop, part.high) - 1 do
    if CONSUMABLE[part.log[offset]] then
      part.log[offset] = nil
    end
  end
  self.version = self.version + 1
end

--- The end for read_committed consumers.
function Cluster:stable(part)
  return part.open or part.high
end

--- The first consumable record at or past an offset, or nil.
function Cluster:consumable(topic, partition, from)
  local part = self:partition(topic, partition)
  if not part then
    return nil
  end
  for offset = math.max(from, part.low), self:stable(part) - 1 do
    if CONSUMABLE[part.log[offset]] then
      return offset
    end
  end
  return nil
end

--- Whether a fetch at this position is refused.
function Cluster:out_of_range(topic, partition, offset)
  local part = self:partition(topic, partition)
  return part ~= nil and (offset < part.low or offset > part.high)
end

function Cluster:committed(group, topic, partition)
  local topics = self.commits[group]
  return topics and topics[topic] and topics[topic][partition]
end

function Cluster:commit(group, topic, partition, offset)
  local topics = self.commits[group] or {}
  self.commits[group] = topics
  topics[topic] = topics[topic] or {}
  topics[topic][partition] = offset
  self.version = self.version + 1
end

--- The commit is there no longer: it was too old.
function Cluster:expire(group, topic, partition)
  local topics = self.commits[group]
  if topics and topics[topic] then
    topics[topic][partition] = nil
    self.version = self.version + 1
  end
end

--- Where a group's consumer begins: its commit, else what its reset policy says. nil: at the end, whatever comes (latest).
function Cluster:start(group, topic, partition, reset)
  local committed = self:committed(group, topic, partition)
  if committed and not self:out_of_range(topic, partition, committed) then
    return committed
  end
  local part = self:partition(topic, partition)
  return reset ~= "latest" and part and part.low or nil
end

return kafka
