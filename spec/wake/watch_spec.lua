require "spec.helper"
local naming = require "rouse.wake.naming"
local world = require "spec.wake.world"

local function new(fields)
  local options = { commits = { payments = { [0] = 0 } }, units = { {
    job = "payments-consumer", group = "payments-group", mode = "lag", assign = "index",
    topics = { payments = { reset = "earliest" } }, spec = { dedup_window = 0, idle_timeout = 60 } } } }
  for name, value in pairs(fields or {}) do options[name] = value end
  local w = world.new(options)
  if options.engine then options.engine(w.engine) end
  w:start { payments = 1 }
  return w
end

describe("watch", function()
  it("waits for a commit that somebody else moves to stand still before it submits", function()
    local w = new()
    w:pass(61)
    w.commits.payments[0] = 5 -- nobody of ours runs
    w:pass(61)
    w:record("payments", 0, 6)
    w:settle()
    assert.is_nil(w:take("submit"))
    assert.equal("served", w.last_note.code)
    w:pass(5)
    w.commits.payments[0] = 6 -- still alive: the wait begins again
    w:pass(9)
    assert.is_nil(w:take("submit"))
    w:pass(11)
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take the work of a run for somebody else's whose name was used before, where finished runs vanish", function()
    local w = new()
    for offset = 0, 1 do
      w:record("payments", 0, offset)
      w:settle()
      w:accept(assert(w:take("submit")))
      w:pass(6)
      w.commits.payments[0], w.runs = offset + 1, {}
      w:pass(70)
    end
    w:record("payments", 0, 2)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take the work of a run for somebody else's that came while the listing was on its way", function()
    local w = new()
    w:pass(61)
    w:record("payments", 0, 0)
    w.now, w.clock = w.now + 11, w.clock + 11 -- another observer was faster: its run has come and gone
    w.commits.payments[0] = 1
    w:send { kind = "runs", target = assert(w:take("list")).target, runs = {}, sent = w.clock - 11 }
    w:settle()
    w:record("payments", 0, 1)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take the work of its own run for somebody else's when a reading fails", function()
    local w = new()
    w:record("payments", 0, 0)
    w:settle()
    local run = w:accept(assert(w:take("submit")))
    w.read_error = "_TIMED_OUT"
    w:pass(11)
    w.commits.payments[0] = 1
    run.status, run.succeeded_indices = "completed", { 0 }
    w:pass(11)
    w.read_error = nil
    w:pass(70)
    w:record("payments", 0, 1)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take a commit that was set back or is gone for somebody's work", function()
    for _, commit in ipairs { 2, false } do
      local w = new()
      w.commits.payments[0] = 5
      w:pass(61)
      w.commits.payments[0] = 4
      w:pass(61)
      local part = w.engine.units[1].parts[1]
      part.moved = nil -- the first move was forward
      w.commits.payments[0] = commit or nil
      w:pass(61)
      assert.is_nil(part.served)
    end
  end)

  it("looks for another observer's run before it takes a commit that moved for somebody else's work", function()
    local w = new()
    w:pass(30)
    w.commits.payments[0] = 1
    w.runs[1] = { name = naming.prefix("payments-consumer") .. "1", job = "payments-consumer", status = "completed",
      created_at = w.now - 5, completed_at = w.now, indices = { 0 }, succeeded_indices = { 0 }, failed_indices = {},
      env = {} }
    w:pass(40)
    assert.equal(1, w.engine.units[1].parts[1].committed) -- the commits alone were read
    w:record("payments", 0, 1)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take the work of a run for somebody else's that came and went while the listing was read", function()
    local w = new()
    w:pass(61)
    w:record("payments", 0, 0)
    w:answer_list()
    w.commits.payments[0] = 1 -- another observer was faster
    w.runs[1] = { name = naming.prefix("payments-consumer") .. "1", job = "payments-consumer", status = "completed",
      created_at = w.now, completed_at = w.now, indices = { 0 }, succeeded_indices = { 0 }, failed_indices = {}, env = {} }
    w:settle()
    w:record("payments", 0, 1)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("asks for no list because somebody else serves a group", function()
    local w = new()
    local function listings()
      local count = 0
      for _, effect in ipairs(w.log) do count = count + (effect.kind == "list" and 1 or 0) end
      return count
    end
    w:pass(61)
    local before = listings()
    for commit = 1, 5 do
      w.commits.payments[0] = commit
      w:pass(61)
    end
    assert.equal(before, listings())
    w:record("payments", 0, 5)
    w:settle()
    assert.is_nil(w:take("submit"))
    assert.is_true(w.engine.units[1].parts[1].served)
  end)

  it("does not take the work of its own run for somebody else's", function()
    local w = new()
    w:record("payments", 0, 0)
    w:settle()
    local run = w:accept(w:take("submit"))
    w.commits.payments[0] = 1
    w:pass(6)
    run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
    w.commits.payments[0] = 2
    w:pass(70)
    w:record("payments", 0, 2)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take its own commit for somebody else's work where a reading sent before it is answered after it", function()
    local w = new { units = { { job = "payments-consumer", group = "payments-group", mode = "lag", assign = "index",
      topics = { payments = { reset = "latest" } }, spec = {} } }, commits = { payments = { [0] = 167 } }, ends = 200 }
    w:send { kind = "rung", topic = "payments", partition = 0, error = "_AUTO_OFFSET_RESET", offset = 167 }
    w.ends = 0 -- made anew
    w:settle()
    local commit = assert(w:take("commit"))
    w:send { kind = "reevaluate" }
    w:answer_list() -- the reading is on its way
    w:send { kind = "committed", unit = commit.unit, topic = "payments", partition = 0, offset = 0 }
    w:answer_read() -- and tells of 167
    assert.equal(0, w.engine.units[1].parts[1].committed)
    w.commits.payments[0] = 0
    w:settle()
    w:pass(61)
    w:record("payments", 0, 0)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("does not take its own commit for somebody else's work where the answer to it is lost", function()
    local w = new { units = { { job = "payments-consumer", group = "payments-group", mode = "lag", assign = "index",
      topics = { payments = { reset = "latest" } }, spec = {} } }, commits = { payments = {} }, ends = 55 }
    local commit = assert(w:take("commit"))
    w:send { kind = "committed", unit = commit.unit, topic = "payments", partition = 0, error = "_TIMED_OUT" }
    w.engine.units[1].dirty, w.engine.units[1].due = false, w.clock -- commits alone are read
    w:send { kind = "timer" }
    w:answer_read()
    w.commits.payments[0] = 55 -- carried out late
    w:pass(70)
    w:record("payments", 0, 55)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("reports a run that is active without a commit while there is work, once", function()
    local w = new()
    w:record("payments", 0, 0)
    w:settle()
    w:accept(w:take("submit"), { status = "running", running = 1 })
    w:pass(2000)
    local told = {}
    for _, effect in ipairs(w.log) do
      if effect.kind == "note" and effect.code == "stuck" then told[#told + 1] = effect.fields.partition end
    end
    assert.same({ 0 }, told)
  end)

  it("counts attempts anew where a start comes back after progress, in a topic made anew", function()
    local w = new()
    local function round(offset, commit)
      w:record("payments", 0, offset)
      w:settle()
      if not w:pending("submit") then w:pass(30) end
      local effect = assert(w:take("submit"))
      local run = w:accept(effect)
      run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
      w.commits.payments[0] = commit
      w:pass(6)
      return effect.env.ROUSE_WAKE:match("payments/0=(%d+):")
    end
    assert.equal("1", round(0, 0))
    assert.equal("2", round(0, 1)) -- the second one makes it
    w.runs = {} -- finished runs vanish here
    w:pass(61)
    w.commits.payments[0] = 0
    w:pass(61)
    assert.equal("1", round(0, 0))
  end)

  it("remembers no runs that are gone for ever", function()
    local w = new()
    for offset = 0, 40 do
      w:record("payments", 0, offset)
      w:settle()
      if not w:pending("submit") then w:pass(70) end
      local run = w:accept(assert(w:take("submit")), {})
      w:pass(6)
      run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
      w.commits.payments[0] = offset + 1
      w:pass(120)
      for effect in function() return w:take("remove") end do
        for i = #w.runs, 1, -1 do
          if w.runs[i].name == effect.name then table.remove(w.runs, i) end
        end
      end
    end
    assert.is_true(#w.runs < 6)
    local count = 0
    for _, memory in ipairs { w.engine.ended, w.engine.removed, w.engine.created, w.engine.rested } do
      for _ in pairs(memory) do count = count + 1 end
    end
    assert.is_true(count < 20, count .. " runs are remembered")
  end)

  it("lets a quarantined partition go at once when its group moves", function()
    local w = new()
    w:record("payments", 0, 50)
    w:settle()
    for _ = 1, 6 do
      local run = w:accept(assert(w:take("submit")))
      run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
      for _ = 1, 100 do
        if not w:pending("submit") and w.last_note.code ~= "quarantine" then
          w:record("payments", 0, 50) -- whoever runs leaves it there
          w:settle()
          w:pass(5)
        end
      end
    end
    assert.equal("quarantine", w.last_note.code)
    w:pass(120)
    assert.is_nil(w:take("submit"))
    w.commits.payments[0] = 3 -- an operator skips the record that kills the consumer
    w:pass(61) -- commits are read
    w:pass(11) -- it might have been somebody else at work: the commit has to stand still
    local effect = assert(w:take("submit"))
    assert.matches("payments/0=1:", effect.env.ROUSE_WAKE)
  end)

  describe("quota", function()
    local function full(runs)
      return new { runs = runs, engine = function(engine) engine.quota = { codeengine = 8 } end }
    end

    local function finished(name, job)
      return { name = name, job = job, status = "completed", completed_at = 1, indices = { 0 },
        succeeded_indices = { 0 }, failed_indices = {}, env = {} }
    end

    it("says so, waits, and submits when there is room", function()
      local w = full { finished("a", "x"), finished("b", "x"), finished("c", "x") }
      w:record("payments", 0, 0)
      w:settle()
      assert.is_nil(w:take("submit"))
      assert.equal("quota", w.last_note.code)
      assert.equal(3, w.last_note.fields.runs)
      table.remove(w.runs)
      w:pass(11)
      assert.is_not_nil(w:take("submit"))
    end)

    it("removes the newest finished run of a quiet job of ours when nothing else can go, never foreign ones", function()
      local audit = naming.prefix("audit") .. "7"
      local w = world.new { commits = { payments = { [0] = 0 }, audit = { [0] = 0 } }, runs = {
        finished("a", "x"), finished("b", "audit"), finished(audit, "audit") }, units = {
        { job = "payments-consumer", group = "p", mode = "lag", topics = { payments = { reset = "earliest" } } },
        { job = "audit", group = "a", mode = "lag", topics = { audit = { reset = "earliest" } } } } }
      w.engine.quota = { codeengine = 8 }
      w:start { payments = 1, audit = 1 }
      w:pass(241)
      assert.is_nil(w:take("remove"))
      w:record("payments", 0, 0)
      w:settle()
      assert.equal(audit, w:take("remove").name)
      assert.is_nil(w:take("remove"))
    end)
  end)
end)
