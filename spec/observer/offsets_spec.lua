require "spec.helper"
local offsets = require "rouse.observer.offsets"
local task = require "rouse.task"

-- A query handle that answers when it is told to: its questions as "at t/0 t/1", in the order they came.
local function fake()
  local admin = { asked = {}, open = {}, errors = {} }
  function admin:offsets(question)
    assert.equal(10, question.timeout)
    local text, list = { question.at }, {}
    for _, part in ipairs(question.partitions) do
      text[#text + 1] = part.topic .. "/" .. part.partition
    end
    local gate = task.event()
    table.insert(self.asked, table.concat(text, " "))
    table.insert(self.open, { gate = gate, text = self.asked[#self.asked] })
    gate:wait()
    if self.bug then error(self.bug, 0) end
    if self.failure then
      return nil, self.failure, "_TRANSPORT"
    end
    for i, part in ipairs(question.partitions) do
      local code = self.errors[part.topic .. "/" .. part.partition]
      list[i] = { topic = part.topic, partition = part.partition, error = code, offset = not code and 7 or nil }
    end
    return list
  end
  -- Answers what is asked now, or the oldest question only.
  function admin:answer(oldest)
    for _ = 1, oldest and 1 or #self.open do
      table.remove(self.open, 1).gate:set()
    end
  end
  -- Answers the oldest question with that text.
  function admin:answer_to(text)
    for i, question in ipairs(self.open) do
      if question.text == text then
        return table.remove(self.open, i).gate:set()
      end
    end
    error("nobody has asked " .. text)
  end
  return admin
end

local function part(topic, partition)
  return { topic = topic, partition = partition }
end

describe("offsets", function()
  local admin, asker, leaders, heard
  local hold, patience = offsets.HOLD, offsets.PATIENCE

  before_each(function()
    admin, leaders, heard = fake(), {}, {}
    asker = offsets.new {
      admin = admin, timeout = 10, leader = function(topic, partition) return leaders[topic .. "/" .. partition] end,
      behind = function() table.insert(heard, "behind") end, back = function() table.insert(heard, "back") end,
    }
    offsets.HOLD = 3600
  end)

  after_each(function() offsets.HOLD, offsets.PATIENCE = hold, patience end)

  -- fn in a task, beside one that sends.
  local function asking(fn)
    task.run(function()
      local server = task.spawn(asker.run, asker)
      fn()
      server:cancel()
    end)
  end

  local function ask(at, ...)
    return task.spawn(asker.ask, asker, at, { ... })
  end

  -- Enough for whoever could ask to have asked.
  local function turn()
    for _ = 1, 10 do task.sleep(0) end
  end

  local function asked(count)
    local deadline = task.monotonic() + 10
    while #admin.asked < count and task.monotonic() < deadline do
      task.sleep(0.001)
    end
    turn()
    assert.equal(count, #admin.asked)
  end

  it("asks at once, and gathers what is asked while a question is out", function()
    asking(function()
      local first = ask("end", part("a", 0))
      asked(1)
      local second, third = ask("end", part("b", 0), part("b", 1)), ask("end", part("c", 2), part("b", 1))
      asked(1)
      admin:answer()
      assert.same({ { topic = "a", partition = 0, offset = 7 } }, (first:join(5)))
      asked(2)
      assert.same({ "end a/0", "end b/0 b/1 c/2" }, admin.asked)
      admin:answer()
      local list = second:join(5)
      assert.same({ "b", 0, "b", 1 }, { list[1].topic, list[1].partition, list[2].topic, list[2].partition })
      list = third:join(5)
      assert.same({ "c", 2, "b", 1 }, { list[1].topic, list[1].partition, list[2].topic, list[2].partition })
    end)
  end)

  it("asks for low and end offsets side by side; an error is its partition's", function()
    asking(function()
      admin.errors["a/1"] = "LEADER_NOT_AVAILABLE"
      local bounds = task.spawn(asker.bounds, asker, { part("a", 0), part("a", 1) })
      asked(2)
      admin:answer()
      assert.same({ { topic = "a", partition = 0, low = 7, end_offset = 7 },
        { topic = "a", partition = 1, error = "LEADER_NOT_AVAILABLE" } }, (bounds:join(5)))
      admin.failure = "away"
      bounds = task.spawn(asker.bounds, asker, { part("a", 0) })
      asked(4)
      admin:answer()
      assert.same({ n = 3, nil, "away", "_TRANSPORT" }, table.pack(bounds:join(5)))
    end)
  end)

  it("waits no longer than a moment for a question that is out, and for the latest of them", function()
    assert.is_true(hold > 0 and hold < 1)
    offsets.HOLD = 0.05
    asking(function()
      local first = ask("end", part("a", 0))
      asked(1)
      local second = ask("end", part("b", 0))
      asked(2)
      assert.same({ "end a/0", "end b/0" }, admin.asked)
      offsets.HOLD = 3600
      admin:answer(true)
      assert(first:join(5))
      local third = ask("end", part("c", 0))
      asked(2)
      admin:answer()
      assert(second:join(5))
      asked(3)
      admin:answer()
      assert(third:join(5))
    end)
  end)

  it("asks for what failed apart from the rest, until it answers", function()
    asking(function()
      admin.errors["a/0"] = "_TIMED_OUT"
      local function both(questions)
        admin.asked = {}
        local both_asked = ask("end", part("a", 0), part("a", 1))
        asked(questions)
        admin:answer()
        local list = both_asked:join(5)
        table.sort(list, function(a, b) return a.partition < b.partition end)
        return list
      end
      local list = both(1)
      assert.same({ "_TIMED_OUT", 7 }, { list[1].error, list[2].offset })
      admin.errors = {}
      list = both(2)
      assert.same({ 7, 7 }, { list[1].offset, list[2].offset })
      table.sort(admin.asked)
      assert.same({ "end a/0", "end a/1" }, admin.asked)
      both(1)
      assert.same({ "end a/0 a/1" }, admin.asked)
    end)
  end)

  describe("of several leaders", function()
    before_each(function() leaders = { ["a/0"] = 1, ["a/1"] = 2, ["a/2"] = 2 } end)

    -- What an asker got, as "t/0=7 t/1=CODE".
    local function got(asking_all)
      local text = {}
      for i, item in ipairs((assert(asking_all:join(5)))) do
        text[i] = ("%s/%d=%s"):format(item.topic, item.partition, item.offset or item.error)
      end
      return table.concat(text, " ")
    end

    local function all()
      return ask("end", part("a", 0), part("a", 1), part("a", 2))
    end

    it("asks each of them", function()
      asking(function()
        local asked_all = all()
        asked(2)
        table.sort(admin.asked)
        assert.same({ "end a/0", "end a/1 a/2" }, admin.asked)
        admin:answer()
        assert.equal("a/0=7 a/1=7 a/2=7", got(asked_all))
        assert.same({}, heard)
      end)
    end)

    it("waits for the others a moment when one has answered, and not at all when they have let that pass", function()
      asking(function()
        offsets.PATIENCE = 3600
        local asked_all = all()
        asked(2)
        admin:answer_to "end a/0"
        turn()
        assert.equal("running", asked_all:status())
        admin:answer()
        assert.equal("a/0=7 a/1=7 a/2=7", got(asked_all))
        offsets.PATIENCE = 0
        admin.asked, asked_all = {}, all()
        asked(2)
        admin:answer_to "end a/0"
        assert.equal("a/0=7 a/1=_TIMED_OUT a/2=_TIMED_OUT", got(asked_all))
        assert.same({ "behind" }, heard)
        assert.is_true(asker:lagging())
        -- However patient.
        offsets.PATIENCE = 3600
        admin.asked, asked_all = {}, all()
        asked(1)
        admin:answer_to "end a/0"
        assert.equal("a/0=7 a/1=_TIMED_OUT a/2=_TIMED_OUT", got(asked_all))
        assert.same({ "behind" }, heard)
      end)
    end)

    it("have one question each that is owed, however often it is asked, and tell when it is answered after all", function()
      asking(function()
        offsets.PATIENCE, offsets.HOLD = 0, 0
        for round = 1, 5 do
          local asked_all = all()
          asked(round + 1)
          admin:answer_to "end a/0"
          assert.equal("a/0=7 a/1=_TIMED_OUT a/2=_TIMED_OUT", got(asked_all))
        end
        assert.same({ "behind" }, heard)
        admin:answer_to "end a/1 a/2"
        asked(7) -- what was asked meanwhile, together
        assert.same({ "behind", "back" }, heard)
        assert.is_false(asker:lagging())
        admin:answer_to "end a/1 a/2"
        turn()
        assert.same({ "behind", "back", "back" }, heard)
        offsets.PATIENCE = 3600
        local asked_all = all()
        asked(9)
        admin:answer_to "end a/0"
        turn()
        admin:answer()
        assert.equal("a/0=7 a/1=7 a/2=7", got(asked_all))
      end)
    end)

    it("are all waited for while none has answered", function()
      asking(function()
        offsets.PATIENCE = 0
        local asked_all = all()
        asked(2)
        assert.equal("running", asked_all:status())
        admin.errors = { ["a/1"] = "_TIMED_OUT", ["a/2"] = "_TIMED_OUT" }
        admin:answer_to "end a/1 a/2" -- nor is that an answer
        turn()
        assert.equal("running", asked_all:status())
        admin:answer()
        assert.equal("a/0=7 a/1=_TIMED_OUT a/2=_TIMED_OUT", got(asked_all))
        assert.same({}, heard)
      end)
    end)

    it("get as much longer as they needed the last time", function()
      local real, later = task.monotonic, 0
      finally(function() task.monotonic = real end)
      task.monotonic = function() return real() + later end
      asking(function()
        offsets.PATIENCE = 0
        local asked_all = all()
        asked(2)
        admin:answer_to "end a/0"
        assert.equal("a/0=7 a/1=_TIMED_OUT a/2=_TIMED_OUT", got(asked_all))
        later = 3600
        admin:answer()
        turn()
        assert.same({ "behind", "back" }, heard)
        admin.asked, asked_all = {}, all()
        asked(2)
        admin:answer_to "end a/0"
        turn()
        assert.equal("running", asked_all:status())
        admin:answer()
        assert.equal("a/0=7 a/1=7 a/2=7", got(asked_all))
      end)
    end)

    it("fail apart from each other", function()
      asking(function()
        local asked_all = all()
        asked(2)
        admin:answer_to "end a/0"
        turn()
        admin.failure = "gone"
        admin:answer()
        assert.equal("a/0=7 a/1=_TRANSPORT a/2=_TRANSPORT", got(asked_all))
      end)
    end)
  end)

  for what, expected in pairs { failure = "_TRANSPORT", bug = "BUG" } do
    it("tells everybody that a question failed: " .. what, function()
      asking(function()
        admin[what] = "gone"
        local first, beside = ask("end", part("a", 0)), ask("end", part("b", 0))
        asked(1)
        local later = ask("end", part("c", 0))
        asked(1)
        admin:answer()
        assert.same({ n = 3, nil, "gone", expected }, table.pack(first:join(5)))
        assert.equal(expected, select(3, beside:join(5)))
        asked(2)
        admin:answer()
        assert.equal(expected, select(3, later:join(5)))
      end)
    end)
  end
end)
