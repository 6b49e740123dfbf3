require "spec.helper"
local effects = require "rouse.observer.effects"
local task = require "rouse.task"

describe("effects", function()
  it("answers every effect, also one whose performing breaks: a unit must not wait for ever", function()
    local events = {}
    task.run(function()
      local observer = { targets = { get = function() error("broken target") end }, emit = function(_, event)
        events[event.kind] = event
      end }
      for _, kind in ipairs { "list", "submit", "get" } do
        effects.perform(observer, { { kind = kind, target = "t", unit = "u", name = "n" } })
      end
      for _ = 1, 100 do
        if events.runs and events.submitted and events.got then break end
        task.sleep(0)
      end
    end)
    assert.equal("BUG", events.runs.error)
    assert.is_nil(events.runs.runs)
    assert.equal("AMBIGUOUS", events.submitted.error) -- what it did is unknown
    assert.equal("BUG", events.got.error)
  end)
end)
