require "spec.helper"
local reload = require "rouse.wake.reload"
local verdict = require "rouse.verdict"
local world = require "spec.wake.world"

local unit = world.unit

local function shipping(fields)
  local result = unit { job = "shipping-consumer", group = "shipping-group", topics = { shipping = { reset = "earliest" } } }
  for name, value in pairs(fields or {}) do result[name] = value end
  return result
end

local function open(options)
  options = options or {}
  options.units = options.units or { unit(), shipping() }
  options.commits = { payments = { [0] = 10, [1] = 20 }, shipping = { [0] = 5 } }
  local w = world.new(options)
  w:start { payments = 2, shipping = 1 }
  return w
end

local function take_over(w, units, more)
  local event = { kind = "reload", units = units }
  for name, value in pairs(more or {}) do event[name] = value end
  w:send(event)
  return event.outcome
end

describe("reload of the engine", function()
  it("keeps what is known of a unit that is still there", function()
    local w = open { decide = function() return verdict.wait { seconds = 100, reason = "night" } end }
    w:record("payments", 0, 10)
    w:settle()
    local before, asked = w.engine.by_id["payments-consumer/payments-group"], 0
    w.engine.decide = function() asked = asked + 1 return verdict.wait { seconds = 100 } end
    local outcome = take_over(w, { unit(), shipping() })
    w:settle()
    assert.same({ added = {}, removed = {},
      kept = { "payments-consumer/payments-group", "shipping-consumer/shipping-group" } }, outcome)
    assert.equal(before, w.engine.by_id["payments-consumer/payments-group"])
    assert.equal(10, before.parts[1].proof)
    assert.equal(0, asked) -- the wait holds
    assert.same({ ["payments/0"] = 100, ["payments/1"] = 20, ["shipping/0"] = 5 }, w.armed)
  end)

  it("evaluates everything anew", function()
    local w = open()
    take_over(w, { unit(), shipping() })
    assert.is_not_nil(w:pending("list"))
    w:settle()
    assert.is_nil(w:take("submit"))
  end)

  it("asks a new rule where the old one said wait or ignore", function()
    local w = open { decide = function(job)
      return job.name == "payments-consumer" and verdict.wait { seconds = 1000 } or verdict.ignore {}
    end }
    w:record("payments", 0, 10)
    w:record("shipping", 0, 5)
    w:settle()
    take_over(w, { unit(), shipping() }, { decide = function() return verdict.wake {} end, rule_changed = true })
    w:settle()
    assert.equal("payments-consumer", w:take("submit").job)
    assert.equal("shipping-consumer", w:take("submit").job)
  end)

  it("asks the rule again for a job whose settings changed, not for one that only moved in its file", function()
    local asked = {}
    local w = open { decide = function(job)
      asked[#asked + 1] = job.name
      return verdict.wait { seconds = 1000 }
    end }
    w:record("payments", 0, 10)
    w:record("shipping", 0, 5)
    w:settle()
    asked = {}
    take_over(w, { unit { spec = { dedup_window = 9, idle_timeout = 60 } },
      shipping { spec = { dedup_window = 0, idle_timeout = 60, line = 7, column = 3 } } })
    w:settle()
    assert.same({ "payments-consumer" }, asked)
  end)

  it("disarms a unit that is gone and leaves its run alone", function()
    local w = open()
    w:record("payments", 0, 10)
    w:settle()
    w:accept(w:take("submit"))
    w:settle()
    local outcome = take_over(w, { shipping() })
    w:settle()
    assert.same({ "payments-consumer/payments-group" }, outcome.removed)
    assert.same({ ["shipping/0"] = 5 }, w.armed)
    assert.is_nil(w:take("remove"))
    w:record("payments", 1, 20)
    assert.is_nil(w:take("submit"))
  end)

  it("starts a new unit, also one that comes back", function()
    local w = open()
    take_over(w, { shipping() })
    w:settle()
    take_over(w, { unit(), shipping() })
    w:send { kind = "partitions", topic = "payments", partitions = 2 }
    w:settle()
    assert.same({ ["payments/0"] = 10, ["payments/1"] = 20, ["shipping/0"] = 5 }, w.armed)
    w:record("payments", 1, 20)
    w:settle()
    assert.equal("payments-consumer", w:take("submit").job)
  end)

  it("drops and adds topics of a job", function()
    local both = { payments = { reset = "earliest" }, shipping = { reset = "earliest" } }
    local w = open { units = { unit { topics = both } } }
    take_over(w, { unit() })
    w:settle()
    assert.same({ ["payments/0"] = 10, ["payments/1"] = 20 }, w.armed)
    take_over(w, { unit { topics = both } })
    w:send { kind = "partitions", topic = "shipping", partitions = 1 }
    w:settle()
    assert.equal(5, w.armed["shipping/0"])
  end)

  it("keeps a door open that another unit stands at", function()
    local w = open { units = { unit(), unit { job = "audit", group = "audit-group" } } }
    take_over(w, { unit() })
    w:settle()
    assert.same({ ["payments/0"] = 10, ["payments/1"] = 20 }, w.armed)
  end)

  -- What was asked before the unit went is answered to nobody, whatever comes first: the answer or the unit's return.
  for _, back in ipairs { "before", "after", "never" } do
    it("survives answers for a unit that is gone; it is back " .. back .. " they come", function()
      for _, stage in ipairs { "list", "read", "submit", "get" } do
        local w = open()
        w:record("payments", 0, 10)
        if stage ~= "list" then w:answer_list() end
        local answer
        if stage == "submit" or stage == "get" then
          w:answer_read()
          local effect = w:take("submit")
          answer = { kind = "submitted", unit = effect.unit, name = effect.name, error = "AMBIGUOUS", message = "lost" }
          if stage == "get" then
            w:send(answer)
            effect = w:take("get")
            answer = { kind = "got", unit = effect.unit, name = effect.name, error = "NOT_FOUND", message = "no" }
          end
        end
        take_over(w, { shipping() })
        if back == "before" then take_over(w, { unit(), shipping() }) end
        if stage == "list" then
          w:settle()
        elseif stage == "read" then
          local effect = w:take("read")
          w:send { kind = "offsets", unit = effect.unit, parts = {} }
        else
          w:send(answer)
        end
        if back == "after" then take_over(w, { unit(), shipping() }) end
        if back ~= "never" then
          w:send { kind = "partitions", topic = "payments", partitions = 2 }
          w:settle()
          local get = w:take("get")
          if get then
            w:send { kind = "got", unit = get.unit, name = get.name, error = "NOT_FOUND", message = "no" }
          end
        end
        w:settle()
        w:pass(400)
        local u = w.engine.by_id["payments-consumer/payments-group"]
        assert.equal(back ~= "never", u ~= nil, stage)
        assert.is_true(u == nil or u.phase == "idle", stage)
        if u then
          w:record("payments", 1, 20)
          w:settle()
          assert.is_not_nil(w:take("submit"), stage)
        end
      end
    end)
  end

  it("finishes a submit on its target before another takes over", function()
    local w = open()
    w:record("payments", 0, 10)
    w:settle()
    local effect = w:take("submit")
    take_over(w, { unit { target = "process" }, shipping() })
    local u = w.engine.by_id["payments-consumer/payments-group"]
    assert.equal("codeengine", u.target)
    w:accept(effect)
    assert.equal("process", u.target)
    w:settle()
    assert.equal("idle", u.phase)
  end)

  it("forgets what is owed for a route that is gone: the group's commit may pass it", function()
    local w = open { units = { unit { mode = "claims" }, shipping() } }
    w:settle()
    w:send { kind = "claimed", topic = "payments", partition = 0, offset = 3, last = 7,
      wakes = { { job = "payments-consumer" } } }
    assert.equal(3, w.done["payments/0"])
    take_over(w, { shipping() })
    assert.equal(8, w.done["payments/0"])
  end)

  it("knows settings that are the same", function()
    assert.is_true(reload.same({ a = { b = 1 }, line = 1 }, { a = { b = 1 }, line = 2 }))
    assert.is_false(reload.same({ a = { b = 1 } }, { a = { b = 2 } }))
    assert.is_false(reload.same({ a = 1 }, { a = 1, b = 2 }))
    assert.is_false(reload.same({}, nil))
  end)
end)
