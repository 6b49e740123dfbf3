require "spec.helper"
local offsets = require "rouse.observer.offsets"
local task = require "rouse.task"

-- A query handle that answers when it is told to: its questions as "at t/0 t/1", in the order they came.
local function fake()
  local admin = { asked = {}, open = {}, errors = {} }
  function admin:offsets(question)
    assert.equal(10, question.timeout)
    local text, list = { question.at }, {}
    for i, part in ipairs(question.partitions) do
      local name = part.topic .. "/" .. part.partition
      text[#text + 1] = name
      local code = self.errors[name]
      list[i] = { topic = part.topic, partition = part.partition, error = code, offset = not code and 7 or nil }
    end
    local gate = task.event()
    table.insert(self.asked, table.concat(text, " "))
    table.insert(self.open, gate)
    gate:wait()
    if self.bug then error(self.bug, 0) end
    if self.failure then
      return nil, self.failure, "_TRANSPORT"
    end
    return list
  end
  -- Answers what is asked now, or the oldest question only.
  function admin:answer(oldest)
    for _ = 1, oldest and 1 or #self.open do
      table.remove(self.open, 1):set()
    end
  end
  return admin
end

local function part(topic, partition)
  return { topic = topic, partition = partition }
end

describe("offsets", function()
  local admin, asker
  local hold = offsets.HOLD

  before_each(function()
    admin = fake()
    asker = offsets.new(admin, 10)
    offsets.HOLD = 3600
  end)

  after_each(function() offsets.HOLD = hold end)

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
    task.run(function()
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

  it("asks for low and end offsets side by side", function()
    task.run(function()
      local ends, lows = ask("end", part("a", 0)), ask("beginning", part("a", 0))
      asked(2)
      admin:answer()
      assert(ends:join(5) and lows:join(5))
    end)
  end)

  it("waits no longer than a moment for a question that is out, and for the latest of them", function()
    assert.is_true(hold > 0 and hold < 1)
    offsets.HOLD = 0.05
    task.run(function()
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
    task.run(function()
      admin.errors["a/0"] = "_TIMED_OUT"
      local function both(questions)
        admin.asked = {}
        local asking = ask("end", part("a", 0), part("a", 1))
        asked(questions)
        admin:answer()
        local list = asking:join(5)
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

  for what, expected in pairs { failure = "_TRANSPORT", bug = "BUG" } do
    it("tells everybody that a question failed: " .. what, function()
      task.run(function()
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
