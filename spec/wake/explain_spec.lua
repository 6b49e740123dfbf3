require "spec.helper"
local explain = require "rouse.wake.explain"
local json = require "rouse.json"
local report = require "rouse.observer.report"
local verdict = require "rouse.verdict"
local world = require "spec.wake.world"

local unit = world.unit

local function open(options)
  options = options or {}
  options.units = options.units or { unit() }
  options.commits = options.commits or { payments = { [0] = 10, [1] = 20 } }
  local w = world.new(options)
  w:start { payments = 2 }
  return w
end

local function told(w, job)
  return explain.engine(w.engine, { now = w.now, clock = w.clock, job = job })
end

local function states(w)
  local list = {}
  for i, part in ipairs(told(w).units[1].parts) do list[i] = part.state end
  return list
end

describe("explain", function()
  it("says where the doorbell stands while nothing waits", function()
    local w = open()
    local u = told(w).units[1]
    assert.equal("no_work", u.decision.code)
    assert.equal("idle", u.phase)
    assert.equal(60, u.due)
    assert.same({ topic = "payments", partition = 0, state = "quiet", work = false, covered = false, committed = 10,
      start = 10, low = 0, end_offset = 100, lag = 90, armed = 10 }, u.parts[1])
    assert.same({ { id = "codeengine", runs = 0, failures = 0, listing = false, listed = 0 } }, told(w).targets)
  end)

  it("follows a wake through its phases", function()
    local w = open()
    w:record("payments", 1, 20)
    assert.equal("listing", told(w).units[1].phase)
    assert.same({ "quiet", "work" }, states(w))
    w:answer_list()
    assert.equal("reading", told(w).units[1].phase)
    w:answer_read()
    local u = told(w).units[1]
    assert.equal("submitting", u.phase)
    assert.same({ "quiet", "submitting" }, states(w))
    local effect = w:take("submit")
    assert.equal(effect.name, u.submitting)
    w:accept(effect)
    w.now, w.clock = w.now + 7, w.clock + 7
    u = told(w).units[1]
    assert.equal("woken", u.decision.code)
    assert.equal("records are waiting", u.decision.reason)
    assert.equal(7, u.decision.age)
    assert.same({ name = effect.name, instances = 1, assign = "index", indices = { 1 } }, u.decision.inputs)
    w:send { kind = "reevaluate" }
    w:settle()
    u = told(w).units[1]
    assert.equal("covered", u.decision.code)
    assert.equal(effect.name, u.woken.inputs.name)
    assert.same({ "quiet", "covered" }, states(w))
    assert.equal(20, u.parts[2].proof)
    assert.same({ { name = effect.name, job = "payments-consumer", status = "pending", active = 1, indices = { 1 },
      assign = "index", created_at = 1000, age = 7 } }, u.runs)
  end)

  it("tells a rule's wait, its reason and how long it lasts", function()
    local w = open { decide = function() return verdict.wait { seconds = 30, reason = "night" } end }
    w:record("payments", 0, 10)
    w:settle()
    w.now, w.clock = w.now + 10, w.clock + 10
    local u = told(w).units[1]
    assert.same({ code = "wait", reason = "night", at = 1000, age = 10, inputs = { seconds = 30 } }, u.decision)
    assert.equal(20, u.wait_left)
    assert.equal("held", u.parts[1].state)
    assert.equal(100, u.parts[1].held)
    assert.equal(100, u.parts[1].armed)
  end)

  it("tells what a rule ignores, and that it failed", function()
    local answer = verdict.ignore { reason = "noise" }
    local w = open { decide = function() return answer end }
    w:record("payments", 0, 10)
    w:settle()
    assert.same({ "ignored", "quiet" }, states(w))
    answer = nil
    w:record("payments", 1, 20)
    w:settle()
    local u = told(w).units[1]
    assert.equal("rule_error", u.decision.code)
    assert.is_truthy(u.decision.reason:find "expected a verdict")
    assert.same({ "ignored", "held" }, states(w))
  end)

  it("keeps what is known when a read fails, and says which error", function()
    local w = open()
    w.read_error = "_TIMED_OUT"
    w:record("payments", 0, 10)
    w:settle()
    local part = told(w).units[1].parts[1]
    assert.equal("unread", part.state)
    assert.equal("_TIMED_OUT", part.error)
    assert.equal(10, part.committed)
  end)

  it("tells no commit and an unknown start apart", function()
    local w = open { units = { unit { topics = { payments = { reset = "latest" } } } }, commits = {} }
    local part = told(w).units[1].parts[1]
    assert.is_true(part.no_commit)
    assert.is_nil(part.committed)
    assert.equal("unknown", part.state)
  end)

  it("tells why the target is not asked, and how often it failed", function()
    local w = open()
    w:record("payments", 0, 10)
    w:settle()
    local effect = w:take("submit")
    w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "UNAVAILABLE", message = "http 503" }
    local u = told(w).units[1]
    assert.equal("submit_failed", u.decision.code)
    assert.equal("UNAVAILABLE", u.decision.inputs.error)
    assert.equal(1, u.submit_failures)
    assert.is_true(u.backoff_left > 0)
  end)

  it("tells what a back-off rests on, and when each partition is tried again", function()
    local w = open()
    w:record("payments", 0, 10)
    w:settle()
    local run = w:accept(w:take("submit"))
    w:pass(9)
    run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
    w:pass(1.5)
    w:record("payments", 0, 10)
    w:settle()
    local u = told(w).units[1]
    assert.equal("backoff", u.decision.code)
    assert.equal(1, u.decision.inputs.attempts)
    assert.equal(2, u.parts[1].attempt)
    assert.is_true(u.parts[1].retry_left > 0 and u.parts[1].retry_left <= 5)
    assert.is_nil(u.parts[2].retry_left)
    local text = table.concat(report.lines { units = { u }, targets = {}, kafka = { reachable = true }, now = 0, uptime = 1,
      ready = true, reload = { generation = 1, waiting = {} }, rouse = "1", host = "h", pid = 1,
      routes = { { topic = "payments", topics = { { name = "payments" } }, units = { u.id } } } }, "\n")
    assert.matches("held, attempt 2 in %d%.%d s, rings at 100", text)
    assert.matches("backoff for 0%.0 s: the last run ended without progress\n      %(attempts=1, seconds=%d%.%d+%)\n", text)
  end)

  it("tells the error of a submit as long as it is not tried again", function()
    local w = open()
    w:record("payments", 0, 10)
    w:settle()
    local effect = w:take("submit")
    w:send { kind = "submitted", unit = effect.unit, name = effect.name, error = "NOT_FOUND", message = "no such job" }
    w:send { kind = "reevaluate" }
    w:settle()
    local decided = told(w).units[1].decision
    assert.same({ "submit_backoff", "no such job", { error = "NOT_FOUND", failures = 1 } },
      { decided.code, decided.reason, decided.inputs })
  end)

  it("tells what claims mode owes", function()
    local w = open { units = { unit { mode = "claims", group = nil } } }
    w.engine.units[1].group = nil
    w:settle()
    w:send { kind = "claimed", topic = "payments", partition = 1, offset = 7, last = 9,
      wakes = { { job = "payments-consumer" } } }
    local u = told(w).units[1]
    assert.equal("owed", u.parts[2].state)
    assert.equal(7, u.parts[2].owed_from)
    assert.equal(10, u.parts[2].claimed_to)
    assert.equal("quiet", u.parts[1].state)
  end)

  it("sorts, keeps to one job where it is asked to, and is JSON", function()
    local w = world.new { units = { unit(), unit { job = "a-consumer", group = "a", topics = { b = {}, a = {} } } } }
    w:start { payments = 11, b = 2, a = 1 }
    local all = told(w)
    assert.equal("a-consumer/a", all.units[1].id)
    assert.same({ "a", "b" }, all.units[1].topics)
    assert.equal(10, all.units[2].parts[11].partition)
    assert.equal(1, #told(w, "payments-consumer").units)
    assert.same({}, told(w, "nobody").units)
    local text = json.encode(all, { sorted = true })
    assert.is_truthy(text:find('"runs":[]', 1, true))
    assert.same(json.decode(text).units[2].parts[3], all.units[2].parts[3])
  end)

  it("has no place for environments and odd values", function()
    local w = open { decide = function() return verdict.wake { env = { TOKEN = "s3cret-value" } } end }
    w:record("payments", 0, 10)
    w:settle()
    w:accept(w:take("submit"))
    w.engine.units[1].decision.fields.odd, w.engine.units[1].decision.fields.none = {}, 0 / 0
    local text = json.encode(told(w))
    assert.is_nil(text:find "s3cret")
    assert.is_nil(told(w).units[1].decision.inputs.odd)
  end)

  it("explains every code that docs/operating.md has", function()
    local file <close> = assert(io.open "docs/operating.md")
    local count = 0
    for code in file:read("a"):match("\n| code | level |.-\n\n"):gmatch "\n| `([%l_]+)`" do
      count = count + 1
      if code ~= "stuck" and code ~= "quota_removed" and code ~= "not_renewed" then -- beside a decision, not in its place
        assert.is_string(explain.CODES[code], code)
      end
    end
    assert.is_true(count > 12)
  end)

  it("names every state, and so does docs/operating.md", function()
    local file <close> = assert(io.open "docs/operating.md")
    local documented = file:read("a"):match "\n| state |.-\n\n"
    for state in pairs(explain.STATES) do
      assert.is_truthy(documented:find("`" .. state .. "`", 1, true), state)
    end
  end)
end)
