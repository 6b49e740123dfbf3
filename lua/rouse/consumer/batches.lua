-- A partition's records for handle_batch: up to `batch` of them at once, one verdict for all or one for each. Methods of
-- rouse.consumer.partition.

local retry = require "rouse.consumer.retry"
local verdicts = require "rouse.consumer.verdicts"

local unpack = table.unpack

---@class rouse.consumer.Partition
local methods = {}

-- Takes up to `batch` records off the queue. Returns them in a table of their own, with which the
-- handler may do what it likes, their number, and where they are in the slices.
function methods:take()
  local slices, batch, taken, count, pieces = self.slices, self.batch, nil, 0, {}
  while self.head <= self.tail and count < batch do
    local slice = slices[self.head]
    local first, last = slice.first, math.min(slice.last, slice.first + batch - count - 1)
    if taken then
      table.move(slice.records, first, last, count + 1, taken)
    else -- a table of the right size at once
      taken = { unpack(slice.records, first, last) }
    end
    count = count + last - first + 1
    pieces[#pieces + 1] = { records = slice.records, first = first, last = last }
    if last < slice.last then
      -- what remains stands for its bytes in proportion; only back-pressure reads them
      local share = slice.bytes * (last - first + 1) // (slice.last - first + 1)
      slices[self.head] = { records = slice.records, first = last + 1, last = slice.last,
        bytes = slice.bytes - share }
      self.bytes = self.bytes - share
    else
      slices[self.head] = nil
      self.head = self.head + 1
      self.bytes = self.bytes - slice.bytes
    end
  end
  return taken, count, pieces
end

local function join(pieces)
  local list = {}
  for _, piece in ipairs(pieces) do
    table.move(piece.records, piece.first, piece.last, #list + 1, list)
  end
  return list
end

-- Calls the handler with a batch it may change.
function methods:call_batch(given, count)
  self.ctx.now, self.calling = self.task.now(), count
  local ok, value, second = self.task.guard(self.handle_batch, given, self.ctx)
  self.check_cancelled(ok, second)
  return verdicts.batch(count, ok, value, second)
end

-- One batch: all of it, then again only what asked for a retry, until every record of it is
-- finished.
function methods:handle_slices()
  if not self:room(1) then return end
  local given, count, pieces = self:take()
  self.ctx.attempt = 1
  local verdict, why, code, each = self:call_batch(given, count)
  if verdict == "done" then
    local piece = pieces[#pieces]
    self.prefix:advance(piece.records[piece.last].offset)
    self.queued = self.queued - count
  else
    self:settle_batch(join(pieces), verdict, why, code, each)
  end
  self.beyond = self.beyond + count
  self:breathe()
end

-- Follows a batch whose first attempt was not "done" to its end, or until the partition is stopped
-- or parked.
function methods:settle_batch(batch, verdict, why, code, each)
  local ctx, done, last_said = self.ctx, self.prefix, nil
  for i = 1, #batch do done:open(batch[i].offset) end
  while true do
    local left = {}
    for i = 1, #batch do
      local record = batch[i]
      local one, reason = verdict, why
      if each then one, reason = each[i].verdict, each[i].reason end
      if one == "retry" then
        last_said = self:complain(record, reason, code, ctx.attempt, last_said)
        if ctx.attempt >= self.retry.tries then one = "dead" end
      end
      if one == "retry" then
        left[#left + 1] = record
      else
        if one ~= "dead" then
          done:finish(record.offset)
        elseif not self:give_up(record, reason, ctx.attempt) then
          return
        end
        self.queued = self.queued - 1
      end
    end
    if #left == 0 then return end
    self:park("retry", retry.delay(self.retry, ctx.attempt))
    if self.stopping then return end
    ctx.attempt = ctx.attempt + 1
    batch = left
    verdict, why, code, each = self:call_batch(table.move(left, 1, #left, 1, {}), #left)
  end
end

return methods
