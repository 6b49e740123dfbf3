require "spec.helper"
local verdict = require "rouse.verdict"
local world = require "spec.wake.world"

local commits, unit = world.commits, world.unit

describe("wake: rule", function()
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
