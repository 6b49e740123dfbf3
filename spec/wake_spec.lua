require "spec.helper"
local naming = require "rouse.wake.naming"
local world = require "spec.wake.world"

local commits, unit = world.commits, world.unit

describe("wake", function()
  it("arms every partition at its committed offset and submits nothing without a proof", function()
    local w = world.new { units = { unit() }, commits = commits(10, 20, 30, 40) }
    w:start { payments = 4 }
    assert.same({ ["payments/0"] = 10, ["payments/1"] = 20, ["payments/2"] = 30, ["payments/3"] = 40 }, w.armed)
    assert.is_nil(w:take("submit"))
  end)

  it("lists, then reads, then submits one index per partition with work", function()
    local w = world.new { units = { unit() }, commits = commits(10, 20, 30, 40) }
    w:start { payments = 4 }
    w:record("payments", 1, 20)
    assert.equal("list", w.effects[1].kind)
    w:record("payments", 3, 41)
    w:answer_list()
    assert.equal("read", w.effects[1].kind)
    w:answer_read()
    local effect = w:take("submit")
    assert.same({ 1, 3 }, effect.indices)
    assert.equal(naming.prefix("payments-consumer") .. "1", effect.name)
    assert.equal("payments-group", effect.env.CONSUMER_GROUP)
    assert.equal("payments", effect.env.KAFKA_TOPIC)
    assert.equal("index", effect.env.ROUSE_ASSIGN)
    assert.equal("earliest", effect.env.ROUSE_RESET)
    assert.same({ attempt = 1, mark = naming.mark("payments", 1, 20) }, naming.decode(effect.env.ROUSE_WAKE).payments[1])
  end)

  it("looks again for a ring that came after the listing was sent", function()
    local w = world.new { units = { unit() }, commits = commits(0, 0) }
    w:start { payments = 2 }
    w:record("payments", 0, 0)
    w:answer_list()
    w:record("payments", 1, 0)
    w:answer_read()
    local run = w:accept(w:take("submit"))
    assert.same({ 0, 1 }, run.indices) -- both were proven when it decided
    w:settle()
    assert.is_nil(w:take("submit"))
  end)

  it("waits a moment for a burst's other partitions, whose records are there but have not rung yet", function()
    local w = world.new { units = { unit() }, commits = commits(10, 20), ends = 20, gather = 0.25 }
    w:start { payments = 2 }
    w.ends = 25
    w:record("payments", 0, 10)
    w:settle()
    assert.is_nil(w:take("submit"))
    assert.equal("gather", w.last_note.code)
    w:record("payments", 1, 20)
    w:settle()
    assert.same({ 0, 1 }, w:take("submit").indices)
  end)

  it("does not wait longer for what never rings: markers, aborted transactions", function()
    local w = world.new { units = { unit() }, commits = commits(10, 20), ends = 25, gather = 0.25 }
    w:start { payments = 2 }
    w:record("payments", 0, 10)
    w:settle()
    assert.is_nil(w:take("submit"))
    w:pass(0.3)
    assert.same({ 0 }, w:take("submit").indices)
  end)

  it("does not arm what a run covers, and arms it at the commit when the run has ended: the exit race", function()
    local w = world.new { units = { unit() }, commits = commits(0, 0) }
    w:start { payments = 2 }
    w:record("payments", 0, 5)
    w:settle()
    local run = w:accept(w:take("submit"))
    assert.same({ ["payments/1"] = 0 }, w.armed)
    w:record("payments", 0, 6) -- while the run is active: nothing armed, nothing rings
    w.commits.payments[0] = 6 -- it took 5 and exits before it sees 6
    run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
    w:pass(5)
    assert.equal(6, w.armed["payments/0"])
    w:record("payments", 0, 6)
    w:settle()
    assert.same({ 0 }, w:take("submit").indices)
  end)

  it("wakes for a backlog at its start: the doorbell is its own probe", function()
    local w = world.new { units = { unit() }, commits = {}, low = 7 }
    w:start { payments = 1 }
    assert.equal(7, w.armed["payments/0"])
    w:record("payments", 0, 7)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("commits the end first for reset = latest, and starts there", function()
    local w = world.new { units = { unit { topics = { payments = { reset = "latest" } } } }, commits = {}, ends = 55 }
    w:start { payments = 1 }
    assert.is_nil(w.armed["payments/0"])
    local effect = w:take("commit")
    assert.equal(55, effect.offset)
    w.commits = commits(55)
    w:send { kind = "committed", unit = effect.unit, topic = "payments", partition = 0, offset = 55 }
    w:settle()
    assert.equal(55, w.armed["payments/0"])
  end)

  it("does not take its own first commit for somebody else's", function()
    local w = world.new { units = { unit { topics = { payments = { reset = "latest" } } } }, commits = {}, ends = 55 }
    w:start { payments = 1 }
    w.commits = commits(55)
    w:send { kind = "committed", unit = w:take("commit").unit, topic = "payments", partition = 0, offset = 55 }
    w:settle()
    w:record("payments", 0, 55)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("asks the broker about a commit beyond the end that another group's start would hide", function()
    local w = world.new { units = { unit(), unit { job = "audit", group = "audit" } }, ends = 1,
      groups = { audit = commits(0), ["payments-group"] = commits(56) } }
    w:start { payments = 1 }
    assert.equal(56, w.armed["payments/0"])
    w:pass(3) -- no answer: it lies in an open transaction
    assert.equal(0, w.armed["payments/0"])
    w:pass(300)
    assert.equal(0, w.armed["payments/0"])
    w.ends = 57
    w:send { kind = "reevaluate" }
    w:settle()
    w.ends = 1 -- a new topic
    w:send { kind = "reevaluate" }
    w:settle()
    assert.equal(56, w.armed["payments/0"])
    w:send { kind = "rung", topic = "payments", partition = 0, offset = 56, error = "_AUTO_OFFSET_RESET" }
    w.armed["payments/0"] = nil
    w:settle()
    assert.equal(0, w.engine.units[1].parts[1].start)
    assert.equal(0, w.armed["payments/0"])
  end)

  it("gives a group its start once: records that arrive meanwhile are owed", function()
    local w = world.new { units = { unit { topics = { payments = { reset = "latest" } } } }, commits = {}, ends = 55 }
    w:start { payments = 1 }
    assert.equal(55, w:take("commit").offset)
    w.ends = 56
    w:send { kind = "reevaluate" }
    w:settle()
    assert.is_nil(w:take("commit"))
  end)

  it("takes a refused commit as it is again when the new log has reached it", function()
    local w = world.new { units = { unit() }, commits = commits(3), ends = 1 }
    w:start { payments = 1 }
    w.armed["payments/0"] = nil
    w:send { kind = "rung", topic = "payments", partition = 0, offset = 3, error = "_AUTO_OFFSET_RESET" }
    w:settle()
    assert.equal(0, w.armed["payments/0"])
    w.ends = 3
    w:record("payments", 0, 1)
    w:settle()
    assert.is_nil(w:take("submit")) -- its consumer would start at 3
    assert.equal(3, w.armed["payments/0"])
  end)

  it("asks for a new proof where a run left its work behind", function()
    local w = world.new { units = { unit() }, commits = commits(0) }
    w:start { payments = 1 }
    w:record("payments", 0, 4)
    w:settle()
    local run = w:accept(w:take("submit"))
    run.status, run.succeeded_indices = "completed", { 0 } -- it found nothing: the record is compacted away
    w:pass(700)
    assert.is_nil(w:take("submit"))
    assert.equal(0, w.armed["payments/0"])
  end)

  it("moves no commit to the end while a run is active: it would skip what that run has not handled", function()
    local latest = unit { topics = { payments = { reset = "latest" } } }
    local run = { name = "by-hand", job = "payments-consumer", status = "running", running = 1, indices = { 0 },
      succeeded_indices = {}, failed_indices = {}, env = { CONSUMER_GROUP = "payments-group", ROUSE_ASSIGN = "index" } }
    local w = world.new { units = { latest }, commits = {}, ends = 55, runs = { run } }
    w:start { payments = 1 }
    w:pass(6)
    assert.is_nil(w:take("commit"))
    w.runs = {}
    w:pass(6)
    assert.equal(55, w:take("commit").offset)
  end)

  it("takes an error ring as the reset policy's case: a commit beyond the end of a recreated topic", function()
    local w = world.new { units = { unit() }, commits = commits(1000), low = 0, ends = 3 }
    w:start { payments = 1 }
    w:send { kind = "rung", topic = "payments", partition = 0, offset = 1000, error = "_AUTO_OFFSET_RESET" }
    w.armed["payments/0"] = nil
    w:settle()
    w:record("payments", 0, 0)
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("lets a proof die with an error ring, wherever the doorbell stood", function()
    local w = world.new { units = { unit() }, commits = commits(2), ends = 9 }
    w:start { payments = 1 }
    w:record("payments", 0, 5)
    w:settle()
    local effect = w:take("submit")
    w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "INVALID", message = "no" }
    w.armed["payments/0"], w.ends = nil, 3 -- a new topic of that name
    w:send { kind = "rung", topic = "payments", partition = 0, offset = 9, error = "_AUTO_OFFSET_RESET" }
    w:settle()
    w:pass(100)
    assert.is_nil(w:take("submit"))
    assert.equal(2, w.armed["payments/0"])
  end)

  it("lets a proof die with the end that went below it: a topic recreated under a commit in range", function()
    local w = world.new { units = { unit() }, commits = commits(0) }
    w:start { payments = 1 }
    w:record("payments", 0, 4)
    w:settle()
    local run = w:accept(w:take("submit"))
    w:pass(3)
    w.ends = 0
    run.status, run.succeeded_indices = "completed", { 0 }
    w:pass(60)
    assert.is_nil(w:take("submit"))
    assert.equal(0, w.armed["payments/0"])
  end)

  it("reads the low offset again when a commit is gone, and as long as there is none", function()
    local w = world.new { units = { unit() }, commits = commits(70), low = 50 }
    w:start { payments = 1 }
    w.commits, w.low, w.ends = {}, 3, 60 -- deleted and created again
    w:pass(61)
    assert.equal(3, w.armed["payments/0"])
    w.low = 7
    w:pass(61)
    assert.equal(7, w.armed["payments/0"])
    w.low, w.ends = 0, 7 -- created again, with as many records as it had: nothing rings
    w:pass(61)
    assert.equal(0, w.armed["payments/0"])
  end)

  it("reads commits alone where there is none and the topic begins at 0: of what is gone the doorbell is told", function()
    local w = world.new { units = { unit() }, ends = 0 }
    w:start { payments = 1 }
    w.clock = 60
    w:send { kind = "timer" }
    assert.is_true(w:pending("read").commits)
    w:settle()
    assert.equal(0, w.armed["payments/0"])
    w.low, w.ends = 7, 7
    w:send { kind = "rung", topic = "payments", partition = 0, offset = 0, error = "_AUTO_OFFSET_RESET" }
    w:settle()
    assert.equal(7, w.armed["payments/0"])
    w.clock = 121
    w:send { kind = "timer" }
    assert.is_false(w:pending("read").commits)
  end)

  it("counts group instances and submits only the difference", function()
    local other = { name = "by-hand", job = "payments-consumer", status = "running", running = 1, indices = { 0 },
      succeeded_indices = {}, failed_indices = {}, env = {} }
    local w = world.new { units = { unit { assign = "group" } }, commits = commits(0, 0, 0), runs = { other },
      jobs = { ["payments-consumer"] = { CONSUMER_GROUP = "payments-group" } } }
    w:start { payments = 3 }
    for p = 0, 2 do
      w:send { kind = "rung", topic = "payments", partition = p, offset = 4 }
    end
    w:settle()
    local effect = w:take("submit")
    assert.same({ 0, 1 }, effect.indices)
    assert.equal("group", effect.env.ROUSE_ASSIGN)
  end)

  it("reads coverage from the list: an index that succeeded covers no more", function()
    local w = world.new { units = { unit() }, commits = commits(0, 0) }
    w:start { payments = 2 }
    w:record("payments", 0, 0)
    w:record("payments", 1, 0)
    w:settle()
    local run = w:accept(w:take("submit"))
    w:settle()
    w.commits.payments[0] = 1
    run.status, run.succeeded_indices = "running", { 0 }
    w:pass(5)
    assert.same({ ["payments/0"] = 1 }, w.armed)
  end)

  it("arms a topic of two groups at the smaller start of those nobody covers", function()
    local w = world.new { units = { unit(), unit { job = "audit", group = "audit" } }, commits = commits(50) }
    w:start { payments = 1 }
    assert.equal(50, w.armed["payments/0"])
    w.engine.by_id["audit/audit"].parts[1].want = 20
    w.engine.touched[require("rouse.wake.doors").of(w.engine, "payments", 0)] = true
    w:send { kind = "timer" }
    assert.equal(20, w.armed["payments/0"])
  end)

  it("removes finished runs of its own after a while, never the newest and never what it did not name", function()
    local function finished(name)
      return { name = name, job = "payments-consumer", status = "completed", completed_at = 1, indices = { 0 },
        succeeded_indices = { 0 }, failed_indices = {}, env = {} }
    end
    local prefix = naming.prefix("payments-consumer")
    local w = world.new { units = { unit() }, commits = commits(0),
      runs = { finished(prefix .. "1"), finished(prefix .. "2"), finished("by-hand") } }
    w:start { payments = 1 }
    w.now = w.now + 100000 -- a jump of the clock on the wall shortens nothing
    w:record("payments", 0, 0)
    w:settle()
    w:accept(w:take("submit"), { status = "running" })
    w:pass(230)
    assert.is_nil(w:take("remove"))
    w:pass(20)
    local removed = {}
    for _, effect in ipairs(w.log) do
      if effect.kind == "remove" then removed[#removed + 1] = effect.name end
    end
    assert.same({ prefix .. "1", prefix .. "2" }, removed)
  end)
end)
