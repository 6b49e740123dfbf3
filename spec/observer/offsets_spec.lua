require "spec.helper"
local offsets = require "rouse.observer.offsets"
local task = require "rouse.task"

-- A query handle that answers when it is told to: its questions as "at t/0 t/1", in the order they came.
local function fake()
  local admin = { asked = {}, open = {}, errors = {} }
  function admin:offsets(question)
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
    if self.failure then
      return nil, self.failure, "_TRANSPORT"
    end
    return list
  end
  function admin:answer()
    for _, gate in ipairs(self.open) do
      gate:set()
    end
    self.open = {}
  end
  return admin
end

local function part(topic, partition)
  return { topic = topic, partition = partition }
end

describe("offsets", function()
  local admin, asker

  before_each(function()
    admin = fake()
    asker = offsets.new(admin, 10)
  end)

  local function ask(at, ...)
    return task.spawn(asker.ask, asker, at, { ... })
  end

  local function turn()
    for _ = 1, 3 do task.sleep(0) end
  end

  it("asks at once, and gathers what is asked while a question is out", function()
    task.run(function()
      local first = ask("end", part("a", 0))
      turn()
      assert.same({ "end a/0" }, admin.asked)
      local second, third = ask("end", part("b", 0), part("b", 1)), ask("end", part("c", 2), part("b", 1))
      turn()
      assert.equal(1, #admin.asked)
      admin:answer()
      assert.same({ { topic = "a", partition = 0, offset = 7 } }, (first:join(5)))
      turn()
      assert.same({ "end a/0", "end b/0 b/1 c/2" }, admin.asked)
      admin:answer()
      assert.same({ part("b", 0).topic, part("b", 1).partition }, { second:join(5)[1].topic, second:join(5)[2].partition })
      local list = third:join(5)
      assert.same({ "c", 2, "b", 1 }, { list[1].topic, list[1].partition, list[2].topic, list[2].partition })
    end)
  end)

  it("asks for low and end offsets side by side", function()
    task.run(function()
      local ends, lows = ask("end", part("a", 0)), ask("beginning", part("a", 0))
      turn()
      assert.equal(2, #admin.asked)
      admin:answer()
      assert(ends:join(5) and lows:join(5))
    end)
  end)

  it("waits no longer than a moment for a question that is out", function()
    task.run(function()
      local first = ask("end", part("a", 0))
      turn()
      local second = ask("end", part("b", 0))
      local deadline = task.monotonic() + 10
      while #admin.asked < 2 and task.monotonic() < deadline do
        task.sleep(0.01)
      end
      assert.same({ "end a/0", "end b/0" }, admin.asked)
      admin:answer()
      assert(first:join(5) and second:join(5))
    end)
  end)

  it("asks for what failed apart from the rest, until it answers", function()
    task.run(function()
      admin.errors["a/0"] = "_TIMED_OUT"
      local function both()
        local asking = ask("end", part("a", 0), part("a", 1))
        turn()
        admin:answer()
        return asking:join(5)
      end
      local list = both()
      table.sort(list, function(a, b) return a.partition < b.partition end)
      assert.same({ "_TIMED_OUT", 7 }, { list[1].error, list[2].offset })
      admin.errors, admin.asked = {}, {}
      list = both()
      assert.same({ 7, 7 }, { list[1].offset, list[2].offset })
      table.sort(admin.asked)
      assert.same({ "end a/0", "end a/1" }, admin.asked)
      admin.asked = {}
      both()
      assert.same({ "end a/0 a/1" }, admin.asked)
    end)
  end)

  it("tells everybody that a question failed", function()
    task.run(function()
      admin.failure = "gone"
      local first, second = ask("end", part("a", 0)), ask("end", part("b", 0))
      turn()
      admin:answer()
      turn()
      admin:answer()
      assert.same({ n = 3, nil, "gone", "_TRANSPORT" }, table.pack(first:join(5)))
      assert.equal("_TRANSPORT", select(3, second:join(5)))
    end)
  end)
end)
