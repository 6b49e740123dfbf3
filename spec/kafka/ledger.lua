--- Consumers whose handlers write down where each record was, one file a process, so that nothing of it is lost with a
--- process that is killed; and what must hold between what was written down and what the group has committed.
local assert = require "luassert"
local support = require "spec.kafka.support"

local Ledger = { __name = "spec.ledger" }
Ledger.__index = Ledger

local ledger = {}

-- The handler that a spec gives may fail, wait or answer something else; "done" is written down.
local SCRIPT <const> = [[
local log, task = require "rouse.log", require "rouse.task"
local function handle(record, ctx)
%s
end
return {
  consume = { %s },
  handle = function(record, ctx)
    local verdict, reason = handle(record, ctx)
    if verdict then return verdict, reason end
    log.info("finished", log.place(record))
    return "done"
  end,
}
]]

--- A topic with records on each partition, a group, and no consumer yet.
---@param scope table
---@param options { partitions: integer, count: integer, handle: string?, consume: string?, env: table? } count: of each
--- partition; handle: the body of a function of record and ctx that returns nothing for "done"
function ledger.new(scope, options)
  local self = setmetatable({ scope = scope, partitions = options.partitions, count = options.count, files = {}, dead = {},
    env = options.env, group = support.name "group" }, Ledger)
  self.topic = scope:topic { partitions = options.partitions, prefix = "ledger", properties = options.properties }
  scope:run(os.getenv "KAFKA_TOOL", scope.brokers, "load", self.topic, tostring(options.partitions),
    tostring(options.partitions * options.count), "20")
  self.script = scope:file("script.lua", SCRIPT:format(options.handle or "", options.consume or ""))
  return self
end

--- Starts a consumer; what it writes goes to a file of its own.
---@param env table?
function Ledger:consume(env)
  local path = self.scope:log "consumer"
  table.insert(self.files, path)
  local process = self.scope:spawn {
    command = { "/bin/sh", "-c", 'exec "$0" run "$1" 2>"$2"', support.rouse, self.script, path }, name = "consumer",
    env = support.merge(support.kafka("plaintext", self.scope.brokers), {
      KAFKA_TOPIC = self.topic, CONSUMER_GROUP = self.group, IDLE_TIMEOUT = "1",
    }, self.env, env),
  }
  process.file = path
  return process
end

--- Starts the consumer of one index.
function Ledger:index(number, env)
  return self:consume(support.merge({ ROUSE_ASSIGN = "index", JOB_INDEX = tostring(number), CE_JOBRUN = "run-1" }, env))
end

--- What a consumer said.
function ledger.text(path)
  local file = io.open(path)
  local text = file and file:read "a" or ""
  if file then file:close() end
  return text
end

--- The same without the records it finished.
function ledger.said(process)
  return (ledger.text(process.file):gsub('[^\n]*"message":"finished"[^\n]*\n', ""))
end

--- The records that a file has, in its order, from byte `from` on; the last line may have been torn by a kill.
---@return fun(): integer?, integer? partition and offset
function ledger.entries(path, from)
  local next_one = ledger.text(path):sub((from or 0) + 1):gmatch('"partition":(%d+),"offset":(%d+)}\n')
  return function()
    local partition, offset = next_one()
    return math.tointeger(partition), math.tointeger(offset)
  end
end

--- How many records a consumer has finished.
function ledger.progress(process)
  local _, count = ledger.text(process.file):gsub('"offset":%d+}\n', "")
  return count
end

--- Waits until a consumer has finished `count` records.
function ledger.wait(process, count, seconds)
  support.wait(("%d finished records"):format(count), seconds or 30, function()
    return ledger.progress(process) >= count
  end)
end

--- partition -> what the group has committed, 0 for nothing.
function Ledger:committed()
  local list = {}
  local _, rows = self.scope:left(self.group, self.topic)
  for _, row in ipairs(rows) do
    list[row.partition] = math.max(0, row.committed)
  end
  return list
end

--- Reads the commits and remembers what each file held afterwards: from here on nothing below them may be handled again.
--- Nothing below them may be missing either, but what `self.dead` names ("PARTITION/OFFSET").
function Ledger:mark()
  local mark = { committed = self:committed(), sizes = {} }
  for _, path in ipairs(self.files) do
    mark.sizes[path] = #ledger.text(path)
  end
  local times = self:times()
  for partition, committed in pairs(mark.committed) do
    for offset = 0, committed - 1 do
      if not times[partition][offset] and not self.dead[partition .. "/" .. offset] then
        error(("record %d/%d is committed and was not handled"):format(partition, offset))
      end
    end
  end
  table.insert(self, mark)
  return mark
end

--- partition -> offset -> how often it was finished, by all consumers so far.
---@return table<integer, table<integer, integer>>, integer count
function Ledger:times()
  local times, count = {}, 0
  for partition = 0, self.partitions - 1 do times[partition] = {} end
  for _, path in ipairs(self.files) do
    for partition, offset in ledger.entries(path) do
      times[partition][offset] = (times[partition][offset] or 0) + 1
      count = count + 1
    end
  end
  return times, count
end

-- After each mark no file has an entry below the commits of then.
local function expect_marks(self)
  for number, mark in ipairs(self) do
    for _, path in ipairs(self.files) do
      for partition, offset in ledger.entries(path, mark.sizes[path]) do
        if offset < mark.committed[partition] then
          error(("record %d/%d came again although %d was committed at mark %d"):format(partition, offset,
            mark.committed[partition], number))
        end
      end
    end
  end
end

--- What holds of every drain, when it is over: each record finished, at most `most` times, in order within a process, none
--- again that was committed at a mark, and everything committed.
---@return integer repeated
function Ledger:expect_drained(most)
  local times, count = self:times()
  for partition = 0, self.partitions - 1 do
    for offset = 0, self.count - 1 do
      local n = times[partition][offset] or 0
      if n < 1 or n > (most or math.huge) then
        error(("record %d/%d was finished %d times"):format(partition, offset, n))
      end
    end
  end
  expect_marks(self)
  assert.equal(0, (self.scope:left(self.group, self.topic)))
  return count - self.partitions * self.count
end

--- Each consumer finished the records of a partition in rising order, none twice. Not for one that lost partitions and got
--- them back.
function Ledger:expect_order()
  for _, path in ipairs(self.files) do
    local last = {}
    for partition, offset in ledger.entries(path) do
      if offset <= (last[partition] or -1) then
        error(("record %d/%d came after %d"):format(partition, offset, last[partition]))
      end
      last[partition] = offset
    end
  end
end

return ledger
