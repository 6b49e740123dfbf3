require "spec.helper"
local doorbell = require "rouse.observer.doorbell"
local task = require "rouse.task"

-- A consumer that only remembers what it was asked for.
local function fake(calls)
  calls = calls or {}
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

  it("rings before it takes the partition off, which waits for the handle's thread", function()
    bell:hear({ kind = "records", records = { { topic = "t", partition = 0, offset = 11 } } }, "quick")
    assert.equal(1, #rings)
    bell:hear({ kind = "records", records = { { topic = "t", partition = 0, offset = 12 } } }, "quick")
    bell:flush() -- what the ring caused has nothing to say to the doorbell
    assert.equal(1, #rings)
    assert.equal(1, #consumer.calls)
    bell:set("t", 0, 13)
    bell:flush()
    assert.same({ "incremental_unassign t/0@nil", "incremental_assign t/0@13" }, { consumer.calls[2], consumer.calls[3] })
  end)

  it("takes what rang off a moment later, in one call", function()
    local records = { { topic = "t", partition = 0, offset = 11 }, { topic = "u", partition = 3, offset = 1 } }
    bell:set("u", 3, 0)
    bell:flush()
    local lists, done = {}, task.event()
    function consumer.incremental_unassign(_, list)
      lists[#lists + 1] = #list
      done:set()
      return true
    end
    local polls = { { kind = "records", records = { records[1] } }, { kind = "records", records = { records[2] } } }
    function consumer.poll()
      if #polls == 0 then
        return nil, "closed", done:wait(5) and "CLOSED"
      end
      return table.remove(polls, 1)
    end
    task.run(function()
      bell:run()
    end)
    assert.equal(2, #rings)
    assert.same({ 2 }, lists)
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

-- Looks at what may move as the runtime does, but at times of the spec's choosing.
describe("doorbell of two handles", function()
  local quick, patient, rings, bell
  local start = 0

  before_each(function()
    quick, patient, rings = fake(), fake(), {}
    bell = doorbell.new(quick, function(event) rings[#rings + 1] = event end, error, patient)
    bell:set("t", 0, 10)
    bell:flush()
    start = bell.armed["t/0"].since
  end)

  local function record(offset)
    return { kind = "records", records = { { topic = "t", partition = 0, offset = offset } } }
  end

  it("moves what was quiet, and takes it off the quick handle once the other's fetch includes it", function()
    bell:turn(start + doorbell.QUIET - 1)
    assert.same({}, patient.calls)
    bell:turn(start + doorbell.QUIET)
    assert.same({ "incremental_assign t/0@10" }, patient.calls)
    bell:turn(start + doorbell.QUIET + 2 * doorbell.PATIENCE)
    assert.same({ "incremental_assign t/0@10" }, quick.calls)
    bell:turn(start + doorbell.QUIET + 2 * doorbell.PATIENCE + 5)
    assert.equal("incremental_unassign t/0@nil", quick.calls[2])
    assert.equal(1, #patient.calls)
  end)

  it("rings from either handle while a partition is on both, once", function()
    bell:turn(start + doorbell.QUIET)
    bell:take(record(10), "patient")
    bell:take(record(10), "quick")
    assert.equal(1, #rings)
    assert.equal("incremental_unassign t/0@nil", quick.calls[2])
    assert.equal("incremental_unassign t/0@nil", patient.calls[2])
    bell:turn(start + 100)
    assert.equal(2, #quick.calls)
  end)

  it("takes nothing from a handle the partition is not on: it was fetched for an arming that is over", function()
    bell:take(record(10), "patient")
    bell:take({ kind = "error", code = "_AUTO_OFFSET_RESET", topic = "t", partition = 0 }, "patient")
    assert.same({}, rings)
  end)

  it("rings with the error of either handle", function()
    bell:turn(start + doorbell.QUIET)
    bell:turn(start + doorbell.QUIET + 100)
    bell:take({ kind = "error", code = "_AUTO_OFFSET_RESET", topic = "t", partition = 0 }, "patient")
    assert.same({ { kind = "rung", topic = "t", partition = 0, offset = 10, error = "_AUTO_OFFSET_RESET" } }, rings)
    assert.equal(2, #quick.calls) -- assigned and unassigned once: it had left already
  end)

  it("arms anew on the quick handle whatever the partition was on", function()
    bell:turn(start + doorbell.QUIET)
    bell:turn(start + doorbell.QUIET + 100)
    bell:set("t", 0, 12)
    bell:flush()
    assert.equal("incremental_unassign t/0@nil", patient.calls[2])
    assert.equal("incremental_assign t/0@12", quick.calls[#quick.calls])
    bell:set("t", 0, nil)
    bell:flush()
    assert.equal("incremental_unassign t/0@nil", quick.calls[#quick.calls])
    assert.equal(2, #patient.calls)
    assert.equal(0, bell.crowd)
  end)

  it("arms a topic anew where it is", function()
    bell:set("u", 0, 3)
    bell:flush()
    bell:again("t")
    assert.same({ "incremental_unassign t/0@nil", "incremental_assign t/0@10" }, { quick.calls[3], quick.calls[4] })
    assert.equal(4, #quick.calls)
  end)

  -- Arms so many partitions and lets all of them move on.
  local function crowd(count)
    for partition = 1, count - 1 do
      bell:set("t", partition, 10)
    end
    bell:flush()
    bell:turn(start + 100)
    bell:turn(start + 200)
    assert.equal(0, bell.crowd)
  end

  it("replaces a quick handle that a crowd has left", function()
    local fresh, closed = fake(), 0
    function quick.close() closed = closed + 1 end
    bell.reopen = function() return fresh end
    crowd(doorbell.CROWD + 1)
    assert.equal(1, closed)
    local calls = #quick.calls
    bell:set("t", 0, 12)
    bell:flush()
    assert.same({ "incremental_assign t/0@12" }, fresh.calls)
    bell:turn(start + 300)
    bell:turn(start + 400)
    assert.equal(1, closed) -- one partition is no crowd
    assert.equal(calls, #quick.calls)
  end)

  it("keeps a quick handle that knows few partitions, or when there is no other to be had", function()
    function quick.close() error "closed" end
    bell.reopen = function() return nil, "no thread", "SYSTEM" end
    crowd(doorbell.CROWD + 1)
    bell.reopen = error
    bell.known, bell.knows = {}, 0
    crowd(doorbell.CROWD)
    assert.equal(quick, bell.quick)
  end)

  it("goes on with the handle that replaced another, whose last events count no more", function()
    local fresh, opened, closed = fake(), task.event(), task.event()
    local function records() return { kind = "records", records = { { topic = "t", partition = 0, offset = 12 } } } end
    function quick.poll()
      closed:wait(5)
      return records()
    end
    function fresh.poll()
      opened:wait(5)
      opened:clear()
      return table.remove(fresh.events, 1) or nil, "closed", "CLOSED"
    end
    fresh.events = { records() }
    function patient.poll() return nil, "closed", "CLOSED" end
    function quick.close() closed:set() end
    bell.reopen = function() return fresh end
    bell.known, bell.knows = {}, doorbell.CROWD + 1
    task.run(function()
      local server = task.spawn(bell.run, bell)
      task.sleep(0)
      bell:set("t", 0, nil)
      bell:flush()
      bell:turn(start)
      bell:set("t", 0, 12)
      bell:flush()
      task.sleep(0)
      task.sleep(0)
      assert.same({}, rings)
      opened:set()
      task.sleep(0)
      task.sleep(0)
      assert.equal(1, #rings)
      opened:set()
      assert.is_nil((select(3, server:join(5))))
    end)
  end)

  it("moves a crowd at once: the quick handle's fetches list every partition on it", function()
    for partition = 1, doorbell.CROWD do
      bell:set("t", partition, 0)
    end
    bell:flush()
    bell:turn(start)
    bell:turn(start + 1)
    assert.equal(doorbell.CROWD + 1, #patient.calls)
  end)
end)
