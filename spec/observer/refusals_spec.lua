require "spec.helper"
local log = require "rouse.log"
local refusals = require "rouse.observer.refusals"

-- A broker that refuses the doorbell a topic: said once, asked again at each look, over when it does not refuse any more.
describe("refusals of the doorbell", function()
  local said, real, again, observer

  before_each(function()
    said, real, again = {}, {}, {}
    for _, level in ipairs { "info", "error" } do
      real[level] = log[level]
      log[level] = function(message) said[#said + 1] = level .. ": " .. message end
    end
    observer = { refused = {}, doorbell = { again = function(_, topic) again[#again + 1] = topic end } }
  end)

  after_each(function()
    for level, fn in pairs(real) do log[level] = fn end
  end)

  local function refuse(code, topic)
    return refusals.take(observer, { kind = "error", code = code or "TOPIC_AUTHORIZATION_FAILED", message = "no",
      topic = topic or "payments" })
  end

  local TOLD <const> = "error: payments: the broker refuses the doorbell: nobody is woken for this topic"
  local OVER <const> = "info: payments: the doorbell may read the topic again"

  it("are told once for each reason, and nothing else is taken for one", function()
    assert.is_true(refuse())
    assert.is_true(refuse())
    assert.same({ TOLD }, said)
    assert.is_true(refuse "GROUP_AUTHORIZATION_FAILED")
    assert.same({ TOLD, TOLD }, said)
    assert.is_false(refuse "_ALL_BROKERS_DOWN")
    assert.is_false(refusals.take(observer, { kind = "error", code = "CLUSTER_AUTHORIZATION_FAILED" }))
    assert.equal(2, #said)
  end)

  it("are asked again at every look while they last", function()
    refuse()
    for look = 1, 3 do
      refusals.look(observer, 60 * look)
      assert.equal(look, #again)
      refuse() -- the arming is refused, too
    end
    assert.same({ "payments", "payments", "payments" }, again)
    assert.same({ TOLD }, said)
  end)

  it("are over with the first look long enough after an arming that was not refused", function()
    refuse()
    refusals.look(observer, 100)
    for seconds = 1, refusals.SILENCE - 1 do
      refusals.look(observer, 100 + seconds)
    end
    assert.same({ "payments" }, again)
    assert.same({ TOLD }, said)
    refusals.look(observer, 100 + refusals.SILENCE)
    assert.same({ "payments" }, again)
    assert.same({ TOLD, OVER }, said)
    assert.same({}, observer.refused)
    refuse()
    assert.same({ TOLD, OVER, TOLD }, said)
  end)

  it("are over with a record, not with a refused position", function()
    refuse()
    refusals.rung(observer, { kind = "rung", topic = "payments", error = "_AUTO_OFFSET_RESET" })
    assert.same({ TOLD }, said)
    refusals.rung(observer, { kind = "rung", topic = "shipping" })
    assert.same({ TOLD }, said)
    refusals.rung(observer, { kind = "rung", topic = "payments" })
    assert.same({ TOLD, OVER }, said)
  end)
end)
