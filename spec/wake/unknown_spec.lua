require "spec.helper"
local world = require "spec.wake.world"

local commits, unit = world.commits, world.unit

describe("wake: unknown is not zero", function()
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
