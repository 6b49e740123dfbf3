require "spec.helper"
local task = require "rouse.task"
local working = require "spec.consumer.working"

local with_partition, push, await, records = working.run, working.push, working.await, working.records

-- A post office: letters, but `express` ones, wait until they are let go; `most` is how many waited at once.
local function office(express)
  local self = { tried = {}, waiting = 0, most = 0, gate = task.event(), answers = {} }
  function self.bury(record)
    table.insert(self.tried, record.offset)
    self.waiting = self.waiting + 1
    self.most = math.max(self.most, self.waiting)
    if record.offset ~= express then self.gate:wait() end
    self.waiting = self.waiting - 1
    local answer = table.remove(self.answers[record.offset] or {}, 1)
    if answer then return nil, answer, "CODE" end
    return true
  end
  return self
end

-- A handler that gives up these offsets, and how many records it was called with.
local function deadly(...)
  local dead, seen = {}, {}
  for _, offset in ipairs { ... } do dead[offset] = true end
  return function(record)
    seen[#seen + 1] = record.offset
    if dead[record.offset] then return "dead", "poison" end
    return "done"
  end, seen
end

describe("consumer.letters", function()
  it("have the records after them handled meanwhile, so many, and only the commit stays before them", function()
    local post = office()
    local handle, seen = deadly(3, 5)
    local p = with_partition({ handle = handle, bury = post.bury, letters = 10 }, function(p)
      push(p, records(0, 8))
      push(p, records(9, 40))
      await(function() return p.waiting == "letters" end)
      assert.equal(14, #seen) -- 0 to 3, and ten more
      assert.equal(2, post.most)
      assert.equal(3, p:position())
      assert.is_true(p:busy())
      post.gate:set()
      await(function() return not p:busy() end)
    end)
    assert.equal(41, #seen)
    assert.same({ 3, 5 }, post.tried)
    assert.equal(41, p.prefix.position)
  end)

  it("move the commit as far as they are acknowledged", function()
    local slow = task.event()
    with_partition({ handle = (deadly(1, 4)), letters = 10, bury = function(record)
      if record.offset == 4 then slow:wait() end
      return true
    end }, function(p)
      push(p, records(0, 7))
      await(function() return p:position() == 4 end)
      assert.is_true(p:busy()) -- with nothing queued any more
      assert.equal(1, p.underway)
      slow:set()
      await(function() return not p:busy() end)
      assert.equal(8, p:position())
    end)
  end)

  it("that were not written are tried again, the first one first, before anything else is handled", function()
    local post = office(2)
    post.answers = { [1] = { "full" }, [2] = { "full", "still full" } }
    local handle, seen = deadly(1, 2)
    local at = {}
    local p, logged = with_partition({ handle = handle, letters = 3, bury = function(record)
      at[#at + 1] = #seen
      return post.bury(record)
    end }, function(p)
      push(p, records(0, 9))
      await(function() return #p.failed == 1 and post.waiting == 1 end)
      post.gate:set()
      await(function() return not p:busy() end)
    end)
    assert.same({ 1, 2, 1, 2, 2 }, post.tried)
    assert.same({ at[3], at[3], at[3] }, { at[3], at[4], at[5] })
    assert.is_true(at[3] <= 5)
    assert.equal(10, #seen)
    assert.equal(10, p.prefix.position)
    assert.same({ "full", "full", "still full" }, { logged[1].reason, logged[2].reason, logged[3].reason })
    assert.same({ 1, 2, 2 }, { logged[1].offset, logged[2].offset, logged[3].offset })
    assert.equal(3, #logged)
  end)

  it("that are refused for good park the partition before their record, also when nothing else waits", function()
    local tries = 0
    local p, logged = with_partition({ handle = (deadly(2)), letters = 10, bury = function()
      tries = tries + 1
      task.sleep(0)
      return nil, "disk full", "KAFKA_STORAGE_ERROR"
    end }, function(p)
      push(p, records(0, 4))
      await(function() return p.state == "parked" end)
      assert.is_false(p:busy())
    end)
    assert.equal(2, p.prefix.position)
    assert.equal(3, tries)
    assert.equal("partition parked", logged[#logged].message)
    assert.equal(2, logged[#logged].offset)
  end)

  it("that meet a bug end the partition's task with it", function()
    local p = with_partition({ handle = (deadly(2)), letters = 10, ends = "failed", bury = function()
      error "a bug in here"
    end }, function(p, own)
      push(p, records(0, 4))
      local _, message = own:join(30)
      assert.matches("a bug in here", message, 1, true)
      assert.equal(2, p:position())
    end)
    assert.equal("running", p.state)
  end)

  it("are waited for when the partition is stopped, and left when it is cancelled", function()
    local post = office()
    local p = with_partition({ handle = (deadly(1)), bury = post.bury, letters = 10 }, function(p, own)
      push(p, records(0, 3))
      await(function() return post.waiting == 1 and p.queued == 0 end)
      p:stop()
      task.sleep(0)
      assert.equal(1, p:in_hand())
      assert.equal("running", own:status())
      post.gate:set()
    end)
    assert.equal(4, p.prefix.position)
    post = office()
    p = with_partition({ handle = (deadly(1)), bury = post.bury, letters = 10, ends = "cancelled" }, function(q, own)
      push(q, records(0, 3))
      await(function() return post.waiting == 1 end)
      own:cancel()
    end)
    assert.equal(1, p.prefix.position)
  end)

  it("of a batch are written side by side, and beside the batches after it", function()
    local post = office()
    local batches = 0
    local p = with_partition({ batch = 5, letters = 8, bury = post.bury, handle_batch = function(list)
      batches = batches + 1
      local verdicts = {}
      for i, record in ipairs(list) do verdicts[i] = record.offset < 4 and "dead" or "done" end
      return verdicts
    end }, function(p)
      push(p, records(0, 29))
      await(function() return p.waiting == "letters" end)
      assert.equal(4, post.most)
      assert.equal(2, batches) -- the first five records and, as they are less than eight, five more
      assert.is_nil(p:position())
      post.gate:set()
      await(function() return not p:busy() end)
    end)
    assert.equal(6, batches)
    assert.equal(30, p.prefix.position)
    assert.equal(0, p.queued)
  end)
end)
