require "spec.helper"
local task = require "rouse.task"

describe("task", function()
  it("runs a function in a task and returns its results", function()
    assert.same({ 1, nil, 3, n = 3 }, table.pack(task.run(function() return 1, nil, 3 end)))
  end)

  it("raises the error of the main task with its position and traceback", function()
    local ok, message = pcall(task.run, function() error("broken") end)
    assert.is_false(ok)
    assert.matches("task_spec%.lua:%d+: broken\nstack traceback:", message)
  end)

  it("joins children for their results, and for their failures as nil, message, code", function()
    task.run(function()
      local good = task.spawn(function(a, b) task.sleep(0.001) return a + b end, 1, 2)
      local bad = task.spawn(function() task.sleep(0) error("oops", 0) end)
      assert.equal(3, good:join())
      local value, message, code = bad:join()
      assert.is_nil(value)
      assert.matches("^oops", message)
      assert.equal("ERROR", code)
      assert.equal("done", good:status())
      assert.equal("failed", bad:status())
    end)
  end)

  it("gives up a join after its time-out, the child goes on", function()
    task.run(function()
      local child = task.spawn(function() task.park() return "late" end)
      assert.same({ nil, "timed out", "TIMEDOUT" }, { child:join { timeout = 0.01 } })
      child:unpark()
      assert.equal("late", child:join())
    end)
  end)

  it("cancels: the wait raises, to-be-closed variables run, every later wait raises too", function()
    task.run(function()
      local log = {}
      local child = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() log[#log + 1] = "closed" end })
        log[#log + 1] = select(2, pcall(task.sleep, 60))
        log[#log + 1] = select(2, pcall(task.sleep, 60))
        task.sleep(60)
      end)
      task.sleep(0)
      child:cancel()
      local _, message, code = child:join()
      assert.matches("^cancelled", message)
      assert.equal("CANCELLED", code)
      assert.same({ "cancelled", "cancelled", "closed" }, log)
    end)
  end)

  it("ends a task's children with it", function()
    local seen
    task.run(function()
      local parent = task.spawn(function()
        task.spawn(function()
          local _ <close> = setmetatable({}, { __close = function() seen = true end })
          task.park()
        end)
        task.sleep(0)
        return "parent"
      end)
      assert.equal("parent", parent:join())
      assert.is_true(seen)
    end)
    assert.equal(0, (task.handles()))
    assert.equal(0, select(2, task.handles()))
  end)

  it("says where waiting is impossible", function()
    assert.error_matches(function() task.sleep(1) end, "task%.sleep: cannot wait here %(outside a task%)")
    task.run(function()
      local co = coroutine.create(function() task.sleep(1) end)
      local _, message = coroutine.resume(co)
      assert.matches("inside a coroutine of the script's own", message)
      local ok, text = pcall(table.sort, { 2, 1 }, function() task.sleep(0) return false end)
      assert.is_false(ok)
      assert.matches("cannot wait here", text)
    end)
  end)

  it("reports a deadlock instead of hanging", function()
    assert.error_matches(function() task.run(task.park) end, "nothing can wake")
  end)

  it("orders sleeps by their time", function()
    local order = {}
    task.run(function()
      local tasks = {}
      for _, ms in ipairs { 300, 100, 200 } do
        tasks[#tasks + 1] = task.spawn(function() task.sleep(ms / 1000) order[#order + 1] = ms end)
      end
      for _, t in ipairs(tasks) do t:join() end
    end)
    assert.same({ 100, 200, 300 }, order)
  end)

  it("gives up what takes too long (within)", function()
    task.run(function()
      local value, _, code = task.within(0.01, task.park)
      assert.is_nil(value)
      assert.equal("TIMEDOUT", code)
      assert.equal(7, task.within(5, function() return 7 end))
    end)
  end)

  it("passes values through a queue in order", function()
    task.run(function()
      local queue = task.queue()
      task.spawn(function() for i = 1, 3 do queue:put(i) task.sleep(0) end end)
      assert.same({ 1, 2, 3 }, { queue:get(1), queue:get(1), queue:get(1) })
      assert.same({ nil, "timed out", "TIMEDOUT" }, { queue:get(0.001) })
    end)
  end)

  describe("guard", function()
    it("returns results or the failure with file, line and code", function()
      task.run(function()
        assert.same({ true, 1, 2 }, { task.guard(function(a) return a, 2 end, 1) })
        local ok, message, code, trace = task.guard(function() error("bad value") end)
        assert.is_false(ok)
        assert.matches("^spec/task_spec%.lua:%d+: bad value$", message)
        assert.equal("ERROR", code)
        assert.matches("^stack traceback:", trace)
      end)
    end)

    it("lets the guarded function wait", function()
      task.run(function()
        assert.same({ true, "waited" }, { task.guard(function() task.sleep(0.001) return "waited" end) })
      end)
    end)

    it("stops an endless loop, also inside pcall and inside the script's own coroutines", function()
      task.run(function()
        local function spin() while true do end end
        for _, fn in ipairs {
          spin,
          function() while true do pcall(spin) end end,
          function() task.coroutine.wrap(spin)() end,
          function() while true do pcall(task.coroutine.wrap(spin)) end end,
          function() while true do task.guard(spin) end end,
        } do
          local ok, message, code = task.guard(fn)
          assert.is_false(ok)
          assert.equal("CPU", code)
          assert.matches("^spec/task_spec%.lua:%d+: ran 0%.2 s of CPU", message)
        end
        assert.same({ true, 1 }, { task.guard(function() return 1 end) })
      end)
    end)

    it("counts one burst from wait to wait", function()
      task.run(function()
        local function busy(seconds)
          local stop = os.clock() + seconds
          repeat until os.clock() > stop
        end
        assert.is_true(task.guard(function() for _ = 1, 4 do busy(0.08) task.sleep(0) end end))
      end)
    end)
  end)

  describe("cursor", function()
    local items = { "a", "b", "c", "d" }

    -- What run returned after fn(item, ctx), which may be nil.
    local function run(fn, ctx, first, last)
      local cursor = task.cursor(fn, ctx or {})
      return table.pack(cursor:run(items, first or 1, last or #items, 10)), cursor
    end

    it("calls for each item while it is done, with the time", function()
      task.run(function()
        local seen, ctx = {}, {}
        local results, cursor = run(function(item, given)
          assert(given == ctx and math.abs(given.now - task.now()) < 30)
          seen[#seen + 1] = item
          return "done"
        end, ctx, 2, 3)
        assert.same({ 4, n = 1 }, results)
        assert.same({ "b", "c" }, seen)
        assert.equal(4, cursor:at())
      end)
    end)

    it("stops at the first other outcome", function()
      task.run(function()
        assert.same({ 3, true, "retry", "busy", n = 4 }, (run(function(item)
          if item == "c" then return "retry", "busy", 3 end
          return "done"
        end)))
        assert.same({ 1, true, nil, nil, n = 4 }, (run(function() end)))
        local results = run(function(item) if item == "b" then error("no b", 0) end return "done" end)
        assert.same({ 2, false, "no b", "ERROR" }, { table.unpack(results, 1, 4) })
        assert.matches("^stack traceback:", results[5])
        results = run(function(item) if item == "b" then error "thrown" end return "done" end)
        assert.matches("^spec/task_spec%.lua:%d+: thrown$", results[3])
      end)
    end)

    it("lets a call wait, and ends the stretch after it", function()
      task.run(function()
        local cursor
        cursor = task.cursor(function(item)
          if item == "b" then task.sleep(0.001) end
          return "done"
        end, {})
        local child = task.spawn(cursor.run, cursor, items, 1, 4, 10)
        task.sleep(0)
        assert.equal(2, cursor:at())
        assert.same({ 3, n = 1 }, table.pack(child:join()))
        assert.same({ 5, n = 1 }, table.pack(cursor:run(items, 3, 4, 10)))
        cursor = task.cursor(function() task.sleep(0) error "later" end, {})
        local next, ok, message = cursor:run(items, 1, 4, 10)
        assert.same({ 1, false }, { next, ok })
        assert.matches("later$", message)
      end)
    end)

    it("looks around after the seconds given", function()
      task.run(function()
        local cursor = task.cursor(function()
          local stop = task.now() + 0.03
          repeat until task.now() > stop
          return "done"
        end, {})
        assert.same({ 2, n = 1 }, table.pack(cursor:run(items, 1, 4, 0.01)))
      end)
    end)

    it("gives each call the CPU of a burst, and no more", function()
      task.run(function()
        local cursor = task.cursor(function(item)
          local stop = os.clock() + 0.12
          repeat until os.clock() > stop
          if item == "c" then while true do pcall(function() while true do end end) end end
          return "done"
        end, {})
        local next, ok, message, code = cursor:run(items, 1, 4, 10)
        assert.same({ 3, false, "CPU" }, { next, ok, code })
        assert.matches("^spec/task_spec%.lua:%d+: ran 0%.2 s of CPU", message)
        assert.same({ true, 1 }, { task.guard(function() return 1 end) })
      end)
    end)

    it("passes a cancellation on", function()
      task.run(function()
        local cursor = task.cursor(function(item) if item == "b" then task.sleep(5) end return "done" end, {})
        local results
        local child = task.spawn(function() results = table.pack(cursor:run(items, 1, 4, 10)) end)
        task.sleep(0)
        child:cancel()
        child:join()
        assert.same({ 2, false, "cancelled", "CANCELLED" }, { table.unpack(results, 1, 4) })
      end)
    end)

    it("raises on misuse", function()
      local cursor = task.cursor(function() return "done" end, {})
      assert.error_matches(function() cursor:run(items, 1, 1, 1) end, "outside a task", 1, true)
      assert.error_matches(function() task.cursor({}, {}) end, "function expected", 1, true)
    end)
  end)
end)
