require "spec.helper"
local naming = require "rouse.wake.naming"
local verdict = require "rouse.verdict"
local world = require "spec.wake.world"

local function unit(fields)
  local result = { job = "payments-consumer", group = "payments-group", mode = "lag", assign = "index",
    topics = { payments = { reset = "earliest" } }, spec = { dedup_window = 0, idle_timeout = 60 } }
  for name, value in pairs(fields or {}) do result[name] = value end
  return result
end

local function commits(...)
  local list = {}
  for i, offset in ipairs { ... } do list[i - 1] = offset end
  return { payments = list }
end

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

  describe("submit", function()
    local function rung(options)
      options = options or {}
      options.units, options.commits = options.units or { unit() }, options.commits or commits(0)
      local w = world.new(options)
      w:start { payments = 1 }
      w:record("payments", 0, 0)
      w:settle()
      return w, w:take("submit")
    end

    it("asks for the name after a conflict; a run that exists joins the list", function()
      local w, effect = rung()
      w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "CONFLICT", message = "exists" }
      local get = w:take("get")
      assert.equal(effect.name, get.name)
      local theirs = { name = get.name, job = "payments-consumer", status = "pending", indices = { 0 },
        succeeded_indices = {}, failed_indices = {}, env = effect.env }
      w.runs = { theirs }
      w:send { kind = "got", unit = get.unit, name = get.name, run = theirs }
      w:settle()
      assert.is_nil(w:take("submit"))
      assert.is_nil(w.armed["payments/0"])
    end)

    it("tries the same number again after an ambiguous answer when the run does not exist", function()
      local w, effect = rung()
      w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "AMBIGUOUS", message = "time-out" }
      w:send { kind = "got", unit = effect.unit, name = w:take("get").name, error = "NOT_FOUND" }
      assert.is_nil(w:take("submit"))
      w:pass(2)
      assert.equal(effect.name, w:take("submit").name)
    end)

    it("suppresses nothing when it fails: tried again with growing delay", function()
      local w, effect = rung()
      local at = {}
      for i = 1, 3 do
        w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "UNAVAILABLE", message = "503" }
        w:pass(30)
        effect = w:take("submit")
        assert.is_not_nil(effect)
        at[i] = w.clock
      end
      assert.is_true(at[3] - at[2] > at[2] - at[1])
    end)

    it("honours Retry-After", function()
      local w, effect = rung()
      w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "THROTTLED", retry_after = 40 }
      w:pass(39)
      assert.is_nil(w:take("submit"))
      w:pass(2)
      assert.is_not_nil(w:take("submit"))
    end)

    it("numbers one above the highest listed", function()
      local old = { name = naming.prefix("payments-consumer") .. "41", job = "payments-consumer", status = "completed",
        indices = { 0 }, succeeded_indices = { 0 }, failed_indices = {}, env = {} }
      local _, effect = rung { runs = { old } }
      assert.equal(naming.prefix("payments-consumer") .. "42", effect.name)
    end)

    it("chooses the name from the list alone, not from what it remembers", function()
      local w, effect = rung()
      local run = w:accept(effect)
      w.commits.payments[0] = 1
      run.status, run.succeeded_indices = "completed", { 0 }
      w:pass(6)
      w.runs = {} -- finished runs vanish
      w:record("payments", 0, 1)
      w:settle()
      assert.equal(naming.prefix("payments-consumer") .. "1", w:take("submit").name)
    end)

    it("rests on no list older than its limit", function()
      local w = world.new { units = { unit() }, commits = commits(0) }
      w:start { payments = 1 }
      w:record("payments", 0, 0)
      w:answer_list()
      w.clock, w.now = w.clock + 100, w.now + 100 -- the reading took that long
      w:answer_read()
      assert.is_nil(w:take("submit"))
      assert.equal("list", w.effects[1].kind)
    end)

    it("never runs index when max_instances caps it below the partitions with work", function()
      local w = world.new { units = { unit { spec = { max_instances = 1 } } }, commits = commits(0, 0) }
      w:start { payments = 2 }
      w:record("payments", 0, 0)
      w:record("payments", 1, 0)
      w:settle()
      local effect = w:take("submit")
      assert.same({ 0 }, effect.indices)
      assert.equal("group", effect.env.ROUSE_ASSIGN)
    end)

    it("holds a partition that failed at the end it was evaluated at, so that a later record rings", function()
      local w, effect = rung { ends = 1 }
      w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "INVALID", message = "no" }
      assert.equal(1, w.armed["payments/0"])
    end)
  end)

  describe("unknown is not zero", function()
    it("retries a failed listing and submits nothing on it", function()
      local w = world.new { units = { unit() }, commits = commits(0) }
      w:start { payments = 1 }
      w.list_error = "UNAVAILABLE"
      w:record("payments", 0, 0)
      w:settle()
      assert.is_nil(w:take("submit"))
      w.list_error = nil
      w:pass(5)
      assert.is_not_nil(w:take("submit"))
    end)

    it("lists again after a failed first listing, although no work is known", function()
      local w = world.new { units = { unit() }, commits = {} }
      w.list_error = "UNAVAILABLE"
      w:start { payments = 1 }
      w.list_error = nil
      w:pass(5)
      assert.equal(0, w.armed["payments/0"])
    end)

    it("does not ring again and again while a partition cannot be read, and does once it can", function()
      local w = world.new { units = { unit() }, commits = commits(0) }
      w:start { payments = 1 }
      w.read_error = "UNSTABLE_OFFSET_COMMIT"
      for _ = 1, 20 do -- the record is there, and rings wherever the doorbell is armed before it
        w:record("payments", 0, 0)
        w:settle()
      end
      local listings = 0
      for _, effect in ipairs(w.log) do
        listings = listings + (effect.kind == "list" and 1 or 0)
      end
      assert.is_true(listings <= 3)
      w.read_error = nil
      w:pass(6)
      assert.equal(0, w.armed["payments/0"])
      w:record("payments", 0, 0)
      w:settle()
      assert.is_not_nil(w:take("submit"))
    end)

    it("asks for no list of runs while nothing can be read, and for one once it can", function()
      for _, whole in ipairs { false, true } do
        local w = world.new { units = { unit() }, commits = commits(0) }
        w:start { payments = 1 }
        local function fail(seconds)
          local stop = w.clock + seconds
          while w.clock < stop do
            w:pass(1)
          end
        end
        local function listings()
          local count = 0
          for _, effect in ipairs(w.log) do
            count = count + (effect.kind == "list" and 1 or 0)
          end
          return count
        end
        w[whole and "reading_error" or "read_error"] = "LEADER_NOT_AVAILABLE"
        fail(70)
        local before = listings()
        fail(600)
        assert.equal(before, listings())
        w.read_error, w.reading_error = nil, nil
        fail(35)
        assert.equal(before + 1, listings())
      end
    end)

    it("does not take what was proven before a reading failed for proven", function()
      for _, whole in ipairs { false, true } do
        local w = world.new { units = { unit() }, commits = commits(0) }
        w:start { payments = 1 }
        w:record("payments", 0, 0)
        w:answer_list()
        if whole then
          w:send { kind = "offsets", unit = w:take("read").unit, error = "_TIMED_OUT", message = "timed out" }
        else
          w.read_error = "NOT_LEADER_FOR_PARTITION"
          w:settle()
          w.read_error = nil
        end
        w:pass(6) -- the topic is made anew meanwhile, and holds a transaction that was aborted
        assert.is_nil(w:take("submit"))
        assert.equal(0, w.armed["payments/0"])
      end
    end)

    it("keeps the start when a partition cannot be read", function()
      local w = world.new { units = { unit() }, commits = commits(9) }
      w:start { payments = 1 }
      w.read_error = "_TIMED_OUT"
      w:pass(61)
      assert.equal(9, w.armed["payments/0"])
    end)

    for code, most in pairs { _WAIT_COORD = 5, TIMEDOUT = 5, GROUP_AUTHORIZATION_FAILED = 30 } do
      it("reads again in " .. most .. " s at most where the commits cannot be read: " .. code, function()
        local w = world.new { units = { unit() }, commits = commits(9) }
        w:start { payments = 1 }
        w:send { kind = "reevaluate" }
        w:answer_list()
        for _ = 1, 9 do
          w:send { kind = "offsets", unit = w:take("read").unit, error = code, message = "no" }
          w.now, w.clock = w.now + w.call_at - w.clock, w.call_at
          w:send { kind = "timer" }
        end
        w:send { kind = "offsets", unit = w:take("read").unit, error = code, message = "no" }
        assert.equal(0.75 * most, w.call_at - w.clock)
      end)
    end

    it("looks at once, and at nothing else, when what could not be read can be", function()
      local w = world.new { units = { unit(), unit { job = "audit", group = "audit" } }, commits = commits(9) }
      w:start { payments = 1 }
      w:send { kind = "reevaluate", unread = true }
      assert.same({}, w.effects)
      w:send { kind = "reevaluate" }
      w:answer_list()
      w.read_error = "_TIMED_OUT"
      local first = w:pending("read").unit
      w:answer_read()
      w.read_error = nil
      w:answer_read()
      assert.same({}, w.effects)
      w:send { kind = "reevaluate", unread = true }
      w:answer_list()
      assert.equal(first, w:take("read").unit)
      assert.same({}, w.effects)
    end)
  end)

  describe("rule", function()
    local function decided(decide, fields)
      local seen = {}
      local w = world.new { units = { unit(fields) }, commits = commits(0, 3), ends = 10,
        decide = function(job, ctx)
          seen[#seen + 1] = job
          return decide(job, ctx)
        end }
      w:start { payments = 2 }
      w:record("payments", 0, 2)
      w:settle()
      return w, seen
    end

    it("sees the job, its partitions and the time", function()
      local time
      local _, seen = decided(function(_, ctx) time = ctx.now return verdict.wake {} end)
      local job = seen[1]
      assert.equal(1000, time)
      assert.equal("lag", job.mode)
      assert.equal(0, job.active)
      assert.equal(1, job.attempt)
      assert.same({ topic = "payments", partition = 0, committed = 0, low = 0, end_offset = 10, lag = 10, work = true,
        covered = false }, job.partitions[1])
      assert.is_false(job.partitions[2].work)
    end)

    it("waits as long as the rule says, then asks again", function()
      local w, seen = decided(function(_, ctx)
        return ctx.now < 1030 and verdict.wait { seconds = 1030 - ctx.now, reason = "dedup" } or verdict.wake {}
      end)
      assert.is_nil(w:take("submit"))
      w:pass(31)
      assert.is_not_nil(w:take("submit"))
      assert.equal(2, #seen)
    end)

    it("counts the last wake from the run's creation, however late the answer came", function()
      local w, seen = decided(function() return verdict.wake {} end)
      local effect = w:take("submit")
      w.clock, w.now = w.clock + 20, w.now + 20
      local run = w:accept(effect, { created_at = w.now - 20 })
      w.commits.payments[0] = 3
      run.status, run.succeeded_indices = "completed", { 0 }
      w:pass(10)
      w:record("payments", 0, 3)
      w:settle()
      assert.equal(30, w.now - seen[2].last_wake)
    end)

    it("sees the last wake as long ago as it is when the clock on the wall jumps", function()
      for _, step in ipairs { -3600, 3600 } do
        local w, seen = decided(function() return verdict.wake {} end)
        local run = w:accept(w:take("submit"))
        w.commits.payments[0] = 3
        run.status, run.succeeded_indices = "completed", { 0 }
        w:pass(10)
        w.now = w.now + step
        w:record("payments", 0, 3)
        w:settle()
        assert.equal(10, w.now - seen[2].last_wake)
      end
    end)

    it("ignores until a record past the end", function()
      local w, seen = decided(function() return verdict.ignore { reason = "maintenance" } end)
      w:pass(300)
      assert.equal(1, #seen)
      w:record("payments", 0, 11)
      w:settle()
      assert.equal(2, #seen)
    end)

    it("that fails or answers nonsense is its own unit's problem and is asked again", function()
      local w, seen = decided(function() return nil, "rules.lua:3: boom" end)
      assert.equal("rule_error", w.last_note.code)
      assert.equal("rules.lua:3: boom", w.last_note.fields.reason)
      w:pass(61)
      assert.equal(2, #seen)
    end)

    it("may choose the indices", function()
      local w = decided(function() return verdict.wake { indices = { 0, 1 } } end)
      assert.same({ 0 }, w:take("submit").indices) -- 1 has no work: never more than needed
    end)
  end)

  describe("attempts", function()
    it("waits after a run without progress, also when the observer is new", function()
      local env = { ROUSE_WAKE = naming.encode { { topic = "payments", partition = 0, attempt = 2, start = 0 } },
        CONSUMER_GROUP = "payments-group", KAFKA_TOPIC = "payments" }
      local failed = { name = naming.prefix("payments-consumer") .. "2", job = "payments-consumer", status = "failed",
        completed_at = 999, indices = { 0 }, succeeded_indices = {}, failed_indices = { 0 }, env = env }
      local w = world.new { units = { unit() }, commits = commits(0), runs = { failed } }
      w:start { payments = 1 }
      w:record("payments", 0, 0)
      w:settle()
      assert.is_nil(w:take("submit"))
      assert.equal("backoff", w.last_note.code)
      w:pass(10)
      assert.equal(3, naming.decode(w:take("submit").env.ROUSE_WAKE).payments[0].attempt)
    end)

    it("waits as long when the clock on the wall is fast", function()
      local env = { ROUSE_WAKE = naming.encode { { topic = "payments", partition = 0, attempt = 5, start = 0 } },
        CONSUMER_GROUP = "payments-group", KAFKA_TOPIC = "payments", ROUSE_ASSIGN = "index" }
      local run = { name = naming.prefix("payments-consumer") .. "5", job = "payments-consumer", status = "running",
        created_at = 900, indices = { 0 }, succeeded_indices = {}, failed_indices = {}, env = env }
      local w = world.new { units = { unit() }, commits = commits(0), runs = { run } }
      w:start { payments = 1 }
      w.now = w.now + 3600
      run.status, run.failed_indices, run.completed_at = "failed", { 0 }, w.now - 3600
      w:pass(6)
      w:record("payments", 0, 0)
      w:settle()
      w:pass(30)
      assert.is_nil(w:take("submit"))
      w:pass(60)
      assert.is_not_nil(w:take("submit"))
    end)

    it("does not count a run that is still there", function()
      local w = world.new { units = { unit { assign = "group" } }, commits = commits(0, 0) }
      w:start { payments = 2 }
      w:record("payments", 1, 0)
      w:settle()
      w:accept(w:take("submit"))
      w:record("payments", 0, 0) -- one instance covers one of two partitions
      w:settle()
      assert.equal(1, naming.decode(w:take("submit").env.ROUSE_WAKE).payments[1].attempt)
    end)

    it("forgets at once when the group moved", function()
      local env = { ROUSE_WAKE = naming.encode { { topic = "payments", partition = 0, attempt = 9, start = 0 } } }
      local failed = { name = naming.prefix("payments-consumer") .. "2", job = "payments-consumer", status = "failed",
        completed_at = 999, indices = { 0 }, succeeded_indices = {}, failed_indices = { 0 }, env = env }
      local w = world.new { units = { unit() }, commits = commits(1), runs = { failed } }
      w:start { payments = 1 }
      w:record("payments", 0, 1)
      w:settle()
      assert.equal(1, naming.decode(w:take("submit").env.ROUSE_WAKE).payments[0].attempt)
    end)
  end)

  describe("claims mode", function()
    local function claimed()
      local w = world.new { units = { unit { group = false, mode = "claims" } } }
      w.engine.units[1].group = nil
      w:start { payments = 4 }
      return w
    end

    local function claim(w, offset, fields)
      local asked = { job = "payments-consumer" }
      for name, value in pairs(fields or {}) do asked[name] = value end
      w:send { kind = "claimed", topic = "payments", partition = 0, offset = offset, wakes = { asked } }
      w:settle()
    end

    it("submits instances for the topic's partitions minus those active, and commits past the record after that", function()
      local w = claimed()
      claim(w, 7)
      assert.equal(7, w.done["payments/0"])
      local effect = w:take("submit")
      assert.same({ 0, 1, 2, 3 }, effect.indices)
      assert.equal(7, w.done["payments/0"])
      w:accept(effect)
      assert.equal(8, w.done["payments/0"])
    end)

    it("owes a record again when the submit failed", function()
      local w = claimed()
      claim(w, 7)
      w:send { kind = "submitted", unit = "payments-consumer/claims", name = w:take("submit").name,
        error = "UNAVAILABLE", message = "503" }
      assert.equal(7, w.done["payments/0"])
      w:pass(5)
      assert.is_not_nil(w:take("submit"))
    end)

    it("counts a covered record as done only after the run was seen active late enough and completed", function()
      local w = claimed()
      claim(w, 7)
      local run = w:accept(w:take("submit"), { status = "running", running = 4 })
      w:pass(5)
      claim(w, 8)
      assert.is_nil(w:take("submit"))
      w:pass(60) -- listed active more than 30 s after the claim
      assert.equal(8, w.done["payments/0"])
      run.status, run.running, run.succeeded_indices = "completed", 0, { 0, 1, 2, 3 }
      w:pass(6)
      assert.equal(9, w.done["payments/0"])
      assert.is_nil(w:take("submit"))
    end)

    it("wakes again when the covering run ended too early, failed or vanished", function()
      for _, ending in ipairs { "completed", "failed", "vanished" } do
        local w = claimed()
        claim(w, 7)
        local run = w:accept(w:take("submit"), { status = "running", running = 4 })
        w:pass(5)
        claim(w, 8)
        if ending == "vanished" then
          w.runs = {}
        else
          run.status, run.running, run.succeeded_indices = ending, 0, { 0, 1, 2, 3 }
        end
        w:pass(6)
        assert.is_not_nil(w:take("submit"), ending)
      end
    end)

    it("suppresses a keyed window and looks again at its end", function()
      local w = claimed()
      claim(w, 1, { dedup = "k", window = 100 })
      local run = w:accept(w:take("submit"))
      run.status, run.succeeded_indices = "completed", { 0, 1, 2, 3 }
      w:pass(10)
      claim(w, 2, { dedup = "k", window = 100 })
      w:pass(80)
      assert.is_nil(w:take("submit"))
      assert.equal(2, w.done["payments/0"]) -- suppressed is not done
      w:pass(15)
      assert.is_not_nil(w:take("submit"))
    end)
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
