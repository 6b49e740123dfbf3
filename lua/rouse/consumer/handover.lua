-- How a session parts with partitions: at a rebalance, where its index is not its own any more (C5), and
-- at the end (C4). Methods of rouse.consumer.session.

local start = require "rouse.consumer.start"

-- A handler that is told to end and does so at once is not worth a line.
local FIRST_LINE <const> = 0.1
-- librdkafka's, where nobody sets another one.
local MAX_POLL_INTERVAL <const> = 300

---@class rouse.consumer.Session
local methods = {}

local function working(part) return part.worker and part.worker:status() == "running" end

-- Stops these partitions, waits until what runs has ended or the seconds are over, cancels the rest.
-- Returns whether all ended by themselves.
function methods:stop(parts, seconds)
  local deadline = self.task.monotonic() + seconds
  for _, part in ipairs(parts) do part:stop() end
  local clean = true
  for _, part in ipairs(parts) do
    if part.worker then
      part.worker:join { timeout = math.max(0, deadline - self.task.monotonic()) }
    end
    if working(part) then
      clean = false
      part.worker:cancel()
      self.log.warn("handler stopped in the middle", { topic = part.topic,
        partition = part.partition, waited = seconds })
    end
  end
  return clean
end

-- The seconds that handlers get when partitions are taken away, and those of the commit after them. The
-- group waits for us for max.poll.interval.ms and then goes on without us.
function methods:revoke_times()
  local property = tonumber((self.settings.properties or {})["max.poll.interval.ms"])
  local interval = property and property / 1000 or MAX_POLL_INTERVAL
  return math.min(self.settings.drain, interval / 2), math.min(10, interval / 4)
end

-- Gives partitions back: their prefix is committed while they are still ours. Lost ones may be somebody
-- else's already: what runs is stopped at once, nothing is committed.
function methods:remove(list, lost)
  local parts = {}
  for _, item in ipairs(list) do
    local part = (self.partitions[item.topic] or {})[item.partition]
    if part then parts[#parts + 1] = part end
  end
  local handlers, commit = self:revoke_times()
  self:stop(parts, lost and 0 or handlers)
  if not lost then self:commit(commit) end
  if self.transactions then self.transactions:leave(parts) end
  for _, part in ipairs(parts) do
    self.partitions[part.topic][part.partition] = nil
    self.count = self.count - 1
  end
  self:limit()
  self.active_at = self.task.monotonic()
end

---Our index is not ours alone any more. Whoever works there started from the last commit: what we handled
---since is handled again, so nothing more is handled here. Another run's instance leaves us nothing to
---do; a group can be joined.
---@param part rouse.consumer.Partition
---@param message string
---@param code "TAKEN"|"REFUSED"
function methods:lose_index(part, message, code)
  local fields = { topic = part.topic, partition = part.partition, committed = part.committed,
    reason = message, code = code }
  if not self.transactions then self.committer = nil end -- theirs serves an index and a group
  part:stop()
  if code == "REFUSED" and not self.draining and not self.outcome then
    self.log.warn("partition given up, joining the group", fields)
    self.joining = true
    self.bell:set()
  else
    self.log.warn("partition given up", fields)
    self.given_up = true
    self:finish { kind = "given up" }
  end
end

-- From an index to the group: the assignment is dropped, the group's commits say where it goes on.
function methods:join_group()
  self:stop(self:each(), (self:revoke_times()))
  if self.transactions then self.transactions:leave(self:each()) end
  self.consumer:assign {}
  self.partitions, self.count, self.joining = {}, 0, nil
  self:limit()
  self:await_assignment()
  if not self.outcome then self:spawn(start.group, self) end
end

-- "draining: 3 records in hand on 2 partitions, 9 s left", once a second.
function methods:countdown(parts, deadline)
  local function count(n, noun) return ("%d %s%s"):format(n, noun, n == 1 and "" or "s") end
  self.task.sleep(FIRST_LINE)
  while true do
    local records, partitions = 0, 0
    for _, part in ipairs(parts) do
      if working(part) then records, partitions = records + part:in_hand(), partitions + 1 end
    end
    if partitions == 0 then return end
    local left = math.ceil(deadline - self.task.monotonic())
    self.log.info(("draining: %s in hand on %s, %d s left"):format(count(records, "record"),
      count(partitions, "partition"), left), { records = records, partitions = partitions, seconds = left })
    self.task.sleep(1)
  end
end

-- The last commit. A rebalance may refuse it for a moment; what is taken away by it is not ours to commit.
function methods:last_commit(seconds)
  local deadline = self.task.monotonic() + seconds
  repeat
    local left = deadline - self.task.monotonic()
    if self:commit(math.max(left, 0.1)) or self.given_up or self.joining then return true end
    self.task.sleep(0.1)
  until self.task.monotonic() >= deadline
  return false
end

---Stops fetching, lets running handlers end, commits. Returns whether everything ended and is committed in
---time.
---@param seconds number
---@return boolean
function methods:drain(seconds)
  self.draining = true
  self:start_workers()
  local parts, ids = self:each(), {}
  for i, part in ipairs(parts) do ids[i] = { topic = part.topic, partition = part.partition } end
  if #parts > 0 then self.consumer:pause(ids) end
  local line = self:spawn(self.countdown, self, parts, self.task.monotonic() + seconds)
  local clean = self:stop(parts, seconds)
  line:cancel()
  return self:last_commit(math.max(seconds / 2, 1)) and clean
end

return methods
