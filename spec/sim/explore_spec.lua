require "spec.helper"
local explore = require "rouse.sim.explore"
local doors = require "rouse.wake.doors"

describe("every interleaving of a small world", function()
  it("breaks no invariant: a record, one instance that may end at any point", function()
    local result = explore.run({ partitions = 1, records = 1, observers = 1, assign = "index", crashes = 0, faults = 0,
      exits = 1 })
    assert.is_nil(result.violation, table.concat(result.trace or {}, "\n"))
    assert.is_true(result.complete)
    assert.is_true(result.states > 1000)
  end)

  it("breaks no invariant as far as it gets in some seconds: a crash, a fault, two observers", function()
    for _, more in ipairs { { observers = 2 }, { crashes = 1 }, { faults = 1 } } do
      local result = explore.run({ partitions = 1, records = 1, observers = more.observers or 1, assign = "index",
        crashes = more.crashes or 0, faults = more.faults or 0, exits = 1 }, { seconds = 4 })
      assert.is_nil(result.violation, table.concat(result.trace or {}, "\n"))
      assert.is_true(result.states > 500)
    end
  end)

  it("finds a fault that needs a certain order, and shows it", function()
    local settle = doors.settle
    local _ <close> = setmetatable({}, { __close = function() doors.settle = settle end })
    doors.settle = function(engine, unit) -- armed past what has been proven, not at the start
      settle(engine, unit)
      for _, part in ipairs(unit.parts) do
        part.want = part.want and math.max(part.want, part.end_offset or 0)
      end
    end
    local result = explore.run({ partitions = 1, records = 2, observers = 1, assign = "index", crashes = 0, faults = 0,
      exits = 0 }, { seconds = 20 })
    assert.equal("W1", result.violation.invariant)
    assert.matches("a record on 0", table.concat(result.trace, "\n"))
  end)
end)
