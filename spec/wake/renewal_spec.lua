require "spec.helper"
local renewal = require "rouse.wake.renewal"
local world = require "spec.wake.world"

local unit = world.unit

-- Renewed for the first time after 100 s, then every 1000 s.
local function new(fields)
  local options = { commits = { payments = { [0] = 0 } }, units = { unit() }, partitions = 1 }
  for name, value in pairs(fields or {}) do options[name] = value end
  local w = world.new(options)
  w.engine.renew = { first = 100, every = 1000 }
  w:start { payments = options.partitions }
  return w
end

local function answer(w, effect, fields)
  local event = { kind = "renewed", unit = effect.unit }
  for name, value in pairs(fields or {}) do event[name] = value end
  w:send(event)
  w:settle()
end

local function lists(w)
  local count = 0
  for _, effect in ipairs(w.log) do count = count + (effect.kind == "list" and 1 or 0) end
  return count
end

local function written(w, effect, list, took)
  local offsets = {}
  local commits, code = renewal.commits(w.engine, effect, list, took or 0)
  for i, item in ipairs(commits) do offsets[i] = item.partition .. "@" .. item.offset end
  return table.concat(offsets, " "), code
end

describe("renewal", function()
  it("commits the offsets of a quiet group again, and not while a run is active", function()
    local w = new()
    w:pass(90)
    assert.is_nil(w:take("renew"))
    w:pass(100)
    local effect = w:take("renew")
    assert.same({ { topic = "payments", partition = 0, offset = 0 } }, effect.partitions)
    w:pass(900)
    assert.is_nil(w:take("renew")) -- one at a time
    answer(w, effect)
    w:pass(900)
    assert.is_nil(w:take("renew"))
    w:record("payments", 0, 0)
    w:settle()
    w:accept(w:take("submit"), { status = "running", running = 1 })
    w:pass(2000)
    assert.is_nil(w:take("renew"))
  end)

  it("lists the runs first: one that came without a ring counts", function()
    local w = new()
    w:pass(90)
    local before = lists(w)
    w.runs[1] = { name = "by-hand", job = "payments-consumer", status = "running", indices = { 0 }, running = 1,
      succeeded_indices = {}, failed_indices = {}, env = { CONSUMER_GROUP = "payments-group", ROUSE_ASSIGN = "index" } }
    w:pass(20)
    assert.is_true(lists(w) > before)
    assert.is_nil(w:take("renew"))
  end)

  it("asks for no list where nothing can be renewed", function()
    local w = new { commits = {} }
    w:pass(90)
    local before = lists(w)
    w:pass(1000)
    assert.equal(before, lists(w))
  end)

  it("waits where a submit of the group was lost: the run may come late", function()
    local audit = unit { job = "audit" }
    local w = new { units = { unit(), audit }, commits = { payments = { [0] = 0 } } }
    w:record("payments", 0, 0)
    w:settle()
    local lost = w:take("submit")
    w:accept(w:take("submit"))
    w:send { kind = "submitted", unit = lost.unit, name = lost.name, error = "AMBIGUOUS", message = "timed out" }
    w:send { kind = "got", unit = lost.unit, name = lost.name, error = "NOT_FOUND", message = "no such run" }
    w.commits.payments[0] = 1 -- by the run of the other job, which has ended
    w.runs[1].status, w.runs[1].succeeded_indices, w.runs[1].completed_at = "completed", { 0 }, w.now
    local before = lists(w)
    w:pass(110)
    assert.is_nil(w:take("renew"))
    assert.is_nil(w:take("submit"))
    assert.is_true(lists(w) - before <= 6)
    w:pass(15)
    assert.is_not_nil(w:take("renew"))
  end)

  it("comes as soon as the group's run has ended, without another ring", function()
    local w = new()
    w:record("payments", 0, 0)
    w:settle()
    local run = w:accept(w:take("submit"))
    w.commits.payments[0] = 1
    run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
    w:pass(300)
    assert.is_not_nil(w:take("renew"))
  end)

  it("takes partitions that no run serves while others are always served", function()
    local w = new { partitions = 2, commits = { payments = { [0] = 0, [1] = 7 } } }
    w:record("payments", 0, 0)
    w:settle()
    w:accept(w:take("submit"), { status = "running", running = 1 })
    w:pass(200)
    assert.same({ { topic = "payments", partition = 1, offset = 7 } }, w:take("renew").partitions)
  end)

  it("keeps submits of its group, whatever the job, until it is answered", function()
    local audit = unit { job = "audit", assign = "group" }
    local w = new { units = { unit { assign = "group" }, audit } }
    w:pass(100)
    local effects = { w:take("renew"), w:take("renew") }
    assert.equal(2, #effects)
    w:record("payments", 0, 0)
    w:settle()
    assert.is_nil(w:pending("submit"))
    assert.equal("renewing", w.last_note.code)
    answer(w, effects[1])
    assert.is_nil(w:pending("submit"))
    answer(w, effects[2], { error = "_TIMED_OUT", message = "timed out" })
    assert.is_not_nil(w:take("submit"))
  end)

  it("waits for a submit of its group that is under way", function()
    local audit = unit { job = "audit" }
    local w = new { units = { unit(), audit }, decide = function(job)
      return job.name == "audit" and { kind = "wake" } or { kind = "wait", seconds = 1000 }
    end }
    w:record("payments", 0, 0)
    w:settle()
    local submit = w:take("submit")
    w:pass(200)
    assert.is_nil(w:take("renew"))
    w:send { kind = "submitted", unit = submit.unit, name = submit.name, error = "INVALID", message = "400" }
    w:settle()
    w:pass(10)
    assert.is_not_nil(w:take("renew"))
  end)

  it("has offsets read again that were being read when its write was given up: it may still land", function()
    local w = new()
    w:pass(100)
    local effect = w:take("renew")
    w:record("payments", 0, 0)
    w:answer_list()
    w:send { kind = "renewed", unit = effect.unit, error = "_TIMED_OUT", message = "timed out" }
    w:answer_read()
    assert.is_nil(w:pending("submit"))
    w:settle()
    w:record("payments", 0, 0) -- still there: what was proven before has to be proven anew
    w:settle()
    assert.is_not_nil(w:take("submit"))
  end)

  it("keeps the observer's own first commit at the end waiting, too", function()
    local w = new { units = { unit { topics = { payments = { reset = "latest" } } } }, commits = { payments = { [0] = 9 } },
      ends = 9 }
    w:pass(100)
    local effect = w:take("renew")
    w.ends = 0 -- the topic is made anew
    w:send { kind = "rung", topic = "payments", partition = 0, error = "_AUTO_OFFSET_RESET", offset = 9 }
    w:settle()
    assert.is_nil(w:pending("commit"))
    answer(w, effect)
    assert.equal(0, w:take("commit").offset)
  end)

  it("leaves out what the broker refuses to fetch at: it is of a topic that is gone", function()
    local w = new { ends = 0, commits = { payments = { [0] = 9 } } }
    w:send { kind = "rung", topic = "payments", partition = 0, error = "_AUTO_OFFSET_RESET", offset = 9 }
    w:settle()
    w:pass(200)
    assert.is_nil(w:take("renew"))
  end)

  it("writes what is still as it was, where nobody has come meanwhile", function()
    local w = new { partitions = 2, commits = { payments = { [0] = 3, [1] = 7 } } }
    w:pass(100)
    local effect = w:take("renew")
    local function list(zero, one)
      return { { topic = "payments", partition = 0, offset = zero }, { topic = "payments", partition = 1, offset = one } }
    end
    assert.equal("0@3 1@7", written(w, effect, list(3, 7)))
    assert.equal("1@7", written(w, effect, list(4, 7)))
    assert.equal("1@7", written(w, effect, list(nil, 7)))
    local _, code = written(w, effect, { { topic = "payments", partition = 0, error = "NOT_LEADER" } })
    assert.equal("NOT_LEADER", code)
    _, code = written(w, effect, list(3, 7), effect.patience + 0.1)
    assert.equal("SLOW", code)
    local run = { name = "by-hand", job = "payments-consumer", status = "running", indices = { 1 }, succeeded_indices = {},
      failed_indices = {}, env = { CONSUMER_GROUP = "payments-group", ROUSE_ASSIGN = "index" } }
    w.engine.targets.codeengine.runs[1] = run
    assert.equal("0@3", written(w, effect, list(3, 7)))
    run.env.ROUSE_ASSIGN = "group"
    assert.equal("", written(w, effect, list(3, 7)))
    w:send { kind = "reload", units = {} }
    assert.equal("", written(w, effect, list(3, 7)))
  end)

  it("is tried again soon when it failed, ever more slowly and with more patience, until it succeeds", function()
    local w = new()
    w.engine.renew.every = 86400
    w:pass(200)
    local gaps, patience, before = {}, 0, nil
    for i = 1, 4 do
      local effect = assert(w:take("renew"), i)
      gaps[i], before = before and w.clock - before, w.clock
      assert.is_true(effect.patience > patience)
      patience = effect.patience
      answer(w, effect, { error = "_TIMED_OUT", message = "timed out" })
      assert.equal("not_renewed", w.last_note.code)
      for _ = 1, 20 do
        if not w:pending("renew") then w:pass(60) end
      end
    end
    assert.is_true(gaps[2] <= 60 and gaps[4] > gaps[2] and gaps[4] < 1200)
    answer(w, assert(w:take("renew")))
    w:pass(80000)
    assert.is_nil(w:take("renew"))
    w:pass(7000)
    assert.is_not_nil(w:take("renew"))
  end)

  it("comes when it is due, not only with the next reading of commits", function()
    local w = new()
    w.engine.renew = { first = 20, every = 25 }
    w.engine.units[1].renew_at = nil
    w:send { kind = "reevaluate" }
    w:settle()
    for _, at in ipairs { 20, 45 } do
      w:pass(at - 1 - w.clock)
      assert.is_nil(w:take("renew"))
      w:pass(1.5)
      answer(w, assert(w:take("renew")))
    end
  end)

  it("is left to the members of a group that instances share", function()
    local w = new { units = { unit { assign = "group" } } }
    w:record("payments", 0, 0)
    w:settle()
    w:accept(w:take("submit"), { status = "running", running = 1 })
    w:pass(2000)
    assert.is_nil(w:take("renew"))
  end)

  it("is the script's choice", function()
    assert.is_nil(renewal.choice(false))
    assert.same({ first = 20, every = 20 }, renewal.choice(20))
    assert.equal(86400, renewal.choice(true).every)
  end)
end)
