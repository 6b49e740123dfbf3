require "spec.helper"
local campaign = require "rouse.sim.campaign"
local mutations = require "spec.sim.mutations"
local schedule = require "rouse.sim.schedule"

-- The oracle bites: each deliberate fault of the engine breaks an invariant within some hundred schedules.
describe("the oracle of the simulation", function()
  local names = {}
  for name in pairs(mutations) do
    names[#names + 1] = name
  end
  table.sort(names)

  for _, name in ipairs(names) do
    it("finds that " .. name, function()
      local _ <close> = setmetatable({}, { __close = mutations[name].break_it() })
      local found
      for seed = 1, 600 do
        local violation = campaign.play(schedule.new(seed)).violation
        if violation and violation.invariant == mutations[name].by then
          found = violation
          break
        end
      end
      assert.is_not_nil(found)
    end)
  end
end)
