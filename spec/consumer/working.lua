--- A partition of a consumer with its task, in one call, for specs.
local assert = require "luassert"
local partition = require "rouse.consumer.partition"
local task = require "rouse.task"

local working = {}

--- Runs fn(partition, task) beside a partition that works; afterwards nothing of it may be left. `ends` is how its task
--- is to end, "done" unless told otherwise; the other options are the partition's.
---@return rouse.consumer.Partition, table[] logged each with level and message among its fields
function working.run(options, fn)
  local logged = {}
  local function say(level)
    return function(message, fields)
      fields.level, fields.message = level, message
      logged[#logged + 1] = fields
    end
  end
  local made = { topic = "payments", partition = 2, group = "g", batch = 500, task = task,
    retry = { first = 0.001, max = 0.002, tries = 3 }, log = { error = say "error", warn = say "warn" },
    on_change = function() end }
  for name, value in pairs(options) do made[name] = value end
  local p = partition.new(made)
  task.run(function()
    local own = task.spawn(p.run, p)
    fn(p, own)
    p:stop()
    own:join(30)
    assert.equal(options.ends or "done", own:status())
    local _, tasks = task.handles()
    assert.equal(1, tasks)
  end)
  return p, logged
end

--- The partition's records from one offset to another.
---@param step integer? 1
function working.records(first, last, step)
  local list = {}
  for offset = first, last, step or 1 do
    list[#list + 1] = { topic = "payments", partition = 2, offset = offset, value = "v" .. offset }
  end
  return list
end

--- Gives a partition records, as one fetch.
function working.push(p, list)
  p:push(list, 1, #list, 10 * #list)
end

--- Waits until cond() holds; the deadline is far beyond what any case needs.
function working.await(cond)
  local deadline = task.monotonic() + 30
  while not cond() do
    assert(task.monotonic() < deadline, "nothing happened in 30 s")
    task.sleep(0.001)
  end
end

return working
