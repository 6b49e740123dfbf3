require "spec.helper"
local world = require "spec.wake.world"

local unit = world.unit

describe("wake: claims mode", function()
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
