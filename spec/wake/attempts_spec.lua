require "spec.helper"
local naming = require "rouse.wake.naming"
local world = require "spec.wake.world"

local commits, unit = world.commits, world.unit

describe("wake: attempts", function()
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
