require "spec.helper"
local campaign = require "rouse.sim.campaign"
local schedule = require "rouse.sim.schedule"

describe("schedules in virtual time", function()
  it("break no invariant: the first seeds of make sim", function()
    local told = {}
    local result = campaign.run(1, 300, { report = function(text) told[#told + 1] = text end })
    assert.equal(0, result.violations, table.concat(told, "\n"))
    assert.equal(300, result.seeds)
    assert.is_true(result.submits > 300)
  end)

  it("are the same for the same seed", function()
    for seed = 1, 20 do
      local first, second = campaign.play(schedule.new(seed), true), campaign.play(schedule.new(seed), true)
      assert.same(first.trace, second.trace)
      assert.equal(first.count, second.count)
    end
  end)

  it("are made small when they fail, and say how to repeat them", function()
    local doors = require "rouse.wake.doors"
    local settle = doors.settle
    local _ <close> = setmetatable({}, { __close = function() doors.settle = settle end })
    doors.settle = function() end -- nothing is ever armed
    local text
    campaign.run(1, 50, { report = function(report) text = text or report end })
    assert.matches("breaks W1", text)
    assert.matches("schedule: %d of %d+ steps are left", text)
    assert.matches("repeat: make sim SEED=%d+ SEEDS=1", text)
  end)
end)
