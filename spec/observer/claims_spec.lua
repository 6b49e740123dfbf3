-- Where a member of the claims group starts: at its commits; without one behind what the topic holds, which is claimed.
require "spec.helper"
local claims = require "rouse.observer.claims"
local log = require "rouse.log"
local task = require "rouse.task"

-- What a member is told. options: commits (place → offset, or an error), and low and ends: place → offset, an error, or a
-- function that returns one of them.
local function member(options)
  local told = { events = {}, assigned = {}, asked = 0 }
  local function value(list, part)
    local it = (list or {})[part.topic .. "/" .. part.partition]
    if type(it) == "function" then it = it() end
    return it
  end
  local function answers(list, parts)
    local result = {}
    for i, part in ipairs(parts) do
      local it = value(list, part)
      result[i] = { topic = part.topic, partition = part.partition, offset = math.tointeger(it),
        error = type(it) == "string" and it or nil }
    end
    return result
  end
  told.claims = claims.new {
    group = "observer-group", jobs = { pay = true }, fault = error,
    route_of = function() return { jobs = { { name = "pay" } } } end,
    emit = function(event) told.events[#told.events + 1] = event end,
    consumer = {
      committed = function(_, parts) return answers(options.commits, parts) end,
      assign = function(_, parts)
        for _, part in ipairs(parts) do
          told.assigned[part.topic .. "/" .. part.partition] = part.offset
        end
        return true
      end,
    },
    offsets = { bounds = function(_, parts)
      told.asked = told.asked + 1
      local lows, ends, list = answers(options.low, parts), answers(options.ends, parts), {}
      for i, part in ipairs(parts) do
        list[i] = { topic = part.topic, partition = part.partition, low = lows[i].offset, end_offset = ends[i].offset,
          error = lows[i].error or ends[i].error }
      end
      return list
    end },
  }
  told.give = function(_, count)
    local parts = {}
    for partition = 0, count - 1 do
      parts[#parts + 1] = { topic = "a", partition = partition }
    end
    return told.claims:assign { protocol = "EAGER", partitions = parts }
  end

  return told
end

local function in_task(name, fn)
  it(name, function() task.run(fn) end)
end

describe("a member of the claims group", function()
  local sleep, warn, fail, warned = task.sleep, log.warn, log.error, nil
  before_each(function()
    warned = {}
    task.sleep = function() sleep(0) end
    log.warn = function(text, fields) warned[#warned + 1] = { text = text, fields = fields } end
    log.error = log.warn
  end)
  after_each(function() task.sleep, log.warn, log.error = sleep, warn, fail end)

  in_task("goes on at its commits, and claims what there is where it has none", function()
    local m = member { commits = { ["a/0"] = 5 }, low = { ["a/1"] = 2, ["a/2"] = 7 }, ends = { ["a/1"] = 9, ["a/2"] = 7 } }
    assert.is_true(m:give(3))
    assert.same({ ["a/0"] = 5, ["a/1"] = 9, ["a/2"] = 7 }, m.assigned)
    assert.equal(1, #m.events)
    assert.same({ 1, 2, 8 }, { m.events[1].partition, m.events[1].offset, m.events[1].last })
  end)

  in_task("asks again for a partition whose leader is away, and starts it where it was then", function()
    local tries = 0
    local m = member { low = { ["a/0"] = 0, ["a/1"] = 0 }, ends = { ["a/0"] = 4, ["a/1"] = function()
      tries = tries + 1
      return tries > 2 and 6 or "LEADER_NOT_AVAILABLE"
    end } }
    assert.is_true(m:give(2))
    assert.same({ ["a/0"] = 4, ["a/1"] = 6 }, m.assigned)
    assert.equal(2, #m.events)
  end)

  in_task("reads a partition from its beginning whose leader stays away, rather than to miss what it holds", function()
    local m = member { low = { ["a/0"] = 0, ["a/1"] = "_TIMED_OUT" }, ends = { ["a/0"] = 4, ["a/1"] = 8 } }
    assert.is_true(m:give(2))
    assert.same({ ["a/0"] = 4, ["a/1"] = "beginning" }, m.assigned)
    assert.equal(1, #m.events)
    assert.same({ { text = "the partition's end cannot be read: its records are claimed from the beginning",
      fields = { topic = "a", partition = 1, code = "_TIMED_OUT" } } }, warned)
  end)

  in_task("takes a share of nothing", function()
    local m = member {}
    assert.is_true(m:give(0))
    assert.equal(0, m.asked)
  end)

  in_task("starts nowhere while a commit cannot be read, or nothing can", function()
    local m = member { commits = { ["a/0"] = 5, ["a/1"] = "COORDINATOR_LOAD_IN_PROGRESS" }, low = {}, ends = {} }
    assert.is_false(m:give(2))
    assert.equal("COORDINATOR_LOAD_IN_PROGRESS", warned[1].fields.code)
    m = member { low = { ["a/0"] = "_TRANSPORT" }, ends = { ["a/0"] = "_TRANSPORT" } }
    assert.is_false(m:give(1))
    assert.matches("nothing is claimed yet", warned[2].text)
    assert.equal("_TRANSPORT", warned[2].fields.code)
    assert.same({}, m.assigned)
    assert.same({}, m.events)
  end)
end)
