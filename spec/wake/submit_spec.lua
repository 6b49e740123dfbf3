require "spec.helper"
local naming = require "rouse.wake.naming"
local world = require "spec.wake.world"

local commits, unit = world.commits, world.unit

describe("wake: submit", function()
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
