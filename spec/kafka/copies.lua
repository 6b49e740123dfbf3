--- A transactional consumer that copies a topic, and somebody who reads committed records only: what exactly once is
--- measured with.
local assert = require "luassert"
local support = require "spec.kafka.support"

local copies = {}

-- Copies each record to OUT, with what says where it came from.
local COPY = [[
local log = require "rouse.log"
return {
  consume = { transactional = true, %s },
  handle = function(record, ctx)
    %s
    ctx.produce { topic = "%s", partition = record.partition, key = record.key,
      value = record.partition .. "/" .. record.offset }
    return "done"
  end,
}
]]

--- The script's file. how.consume: more settings; how.body: what the handler does before it copies.
---@param how { consume: string?, body: string? }?
---@return string path
function copies.script(scope, out, how)
  how = how or {}
  return scope:file("copy", COPY:format(how.consume or "", how.body or "", out))
end

--- Starts a consumer.
function copies.consume(scope, sut, path, env)
  return scope:spawn {
    command = { support.rouse, "run", path }, name = "consumer",
    env = support.merge(support.kafka "plaintext", {
      KAFKA_TOPIC = sut.topic, CONSUMER_GROUP = sut.group, IDLE_TIMEOUT = "0.2",
    }, env),
  }
end

--- The environment of an instance that takes a partition by its index.
function copies.index(number, run)
  return { ROUSE_ASSIGN = "index", JOB_INDEX = tostring(number), CE_JOBRUN = run or "run-1" }
end

--- What a reader of committed records sees of a topic: times by value, and how many in all.
function copies.committed(scope, topic)
  local text = scope:run("kcat", "-C", "-e", "-q", "-b", support.brokers, "-X", "isolation.level=read_committed",
    "-t", topic, "-f", "%s\n")
  local times, count = {}, 0
  for value in text:gmatch "[^\n]+" do
    times[value] = (times[value] or 0) + 1
    count = count + 1
  end
  return times, count
end

--- Each record of each partition is there once, and nothing else.
function copies.expect_once(scope, out, partitions, count)
  local times, all = copies.committed(scope, out)
  for partition = 0, partitions - 1 do
    for offset = 0, count - 1 do
      local id = partition .. "/" .. offset
      assert.equal(1, times[id] or 0, id)
    end
  end
  assert.equal(partitions * count, all)
end

--- A topic with records, and a group.
---@param count integer? of each partition
function copies.source(scope, partitions, count)
  local sut = { topic = scope:topic { partitions = partitions }, group = support.name "group", partitions = {} }
  for number = 0, partitions - 1 do sut.partitions[number + 1] = number end
  if count then scope:produce { topic = sut.topic, partitions = sut.partitions, count = count } end
  return sut
end

--- The same with a topic for the copies.
function copies.system(scope, partitions, count)
  local sut = copies.source(scope, partitions, count)
  sut.out = scope:topic { partitions = partitions, prefix = "out" }
  return sut
end

return copies
