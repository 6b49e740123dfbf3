require "spec.helper"
local doorbell = require "rouse.observer.doorbell"

-- A consumer that only remembers what it was asked for.
local function fake()
  local calls = {}
  local consumer = { calls = calls }
  for _, method in ipairs { "incremental_assign", "incremental_unassign" } do
    consumer[method] = function(_, list)
      for _, item in ipairs(list) do
        calls[#calls + 1] = ("%s %s/%d@%s"):format(method, item.topic, item.partition, tostring(item.offset))
      end
      return true
    end
  end
  return consumer
end

describe("doorbell", function()
  local consumer, rings, faults, bell

  before_each(function()
    consumer, rings, faults = fake(), {}, {}
    bell = doorbell.new(consumer, function(event) rings[#rings + 1] = event end,
      function(event) faults[#faults + 1] = event end)
    bell:set("t", 0, 10)
    bell:flush()
  end)

  it("arms at the offset, and moves by unassigning first", function()
    bell:set("t", 0, 12)
    bell:flush()
    assert.same({ "incremental_assign t/0@10", "incremental_unassign t/0@nil", "incremental_assign t/0@12" }, consumer.calls)
  end)

  it("rings once per arming and unassigns the partition", function()
    bell:take { kind = "records", records = { { topic = "t", partition = 0, offset = 11 },
      { topic = "t", partition = 0, offset = 12 } } }
    assert.same({ { kind = "rung", topic = "t", partition = 0, offset = 11 } }, rings)
    assert.equal("incremental_unassign t/0@nil", consumer.calls[2])
    bell:set("t", 0, nil)
    bell:flush()
    assert.equal(2, #consumer.calls) -- it is unassigned already
  end)

  it("ignores records of an arming that is over", function()
    bell:take { kind = "records", records = { { topic = "t", partition = 0, offset = 9 },
      { topic = "t", partition = 1, offset = 99 } } }
    assert.same({}, rings)
  end)

  it("rings with the error when the position is refused", function()
    bell:take { kind = "error", code = "_AUTO_OFFSET_RESET", topic = "t", partition = 0, offset = -1 }
    assert.same({ { kind = "rung", topic = "t", partition = 0, offset = 10, error = "_AUTO_OFFSET_RESET" } }, rings)
  end)

  it("passes on errors of the handle", function()
    bell:take { kind = "error", code = "_ALL_BROKERS_DOWN", message = "down" }
    assert.equal("_ALL_BROKERS_DOWN", faults[1].code)
    assert.same({}, rings)
  end)
end)
