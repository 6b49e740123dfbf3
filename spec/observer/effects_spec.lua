require "spec.helper"
local effects = require "rouse.observer.effects"
local task = require "rouse.task"
local wake = require "rouse.wake"

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

  describe("renew", function()
    local written

    local function renew(offsets, altered, fields)
      local event
      written = nil
      task.run(function()
        local observer = { emit = function(_, told) event = told end, engine = wake.new { units = { { job = "j", group = "g",
          mode = "lag", topics = { t = { reset = "earliest" } } } } }, admin = {
          group_offsets = function() return table.unpack(offsets, 1, 3) end,
          alter_group_offsets = function(_, options)
            written = options.partitions
            return table.unpack(altered or {}, 1, 3)
          end } }
        local effect = { kind = "renew", unit = "j/g", group = "g", patience = 2,
          partitions = { { topic = "t", partition = 0, offset = 1 } } }
        for name, value in pairs(fields or {}) do effect[name] = value end
        effects.perform(observer, { effect })
        for _ = 1, 100 do
          if event then break end
          task.sleep(0)
        end
      end)
      assert.equal("renewed", event.kind)
      return event.error
    end

    local COMMITS <const> = { { { topic = "t", partition = 0, offset = 1, metadata = "theirs" } } }

    it("writes the commits as they are", function()
      assert.is_nil(renew(COMMITS, { { { topic = "t", partition = 0 } } }))
      assert.same(COMMITS[1], written)
    end)

    it("writes nothing that has moved meanwhile, nor what took long to read", function()
      assert.is_nil(renew { { { topic = "t", partition = 0, offset = 2 } } })
      assert.is_nil(written)
      assert.equal("SLOW", renew(COMMITS, nil, { patience = -1 }))
      assert.is_nil(written)
    end)

    it("tells the engine whether it worked, so that a failure is tried again", function()
      assert.is_nil(renew { { { topic = "t", partition = 0 } } }) -- nothing is committed, nothing can expire
      assert.equal("_TIMED_OUT", renew { nil, "timed out", "_TIMED_OUT" })
      assert.equal("NOT_LEADER", renew { { { topic = "t", partition = 0, error = "NOT_LEADER" } } })
      assert.equal("_TIMED_OUT", renew(COMMITS, { nil, "timed out", "_TIMED_OUT" }))
      assert.equal("NOT_COORDINATOR", renew(COMMITS, { { { topic = "t", partition = 0, error = "NOT_COORDINATOR" } } }))
    end)

    it("is no failure where the group has members", function()
      assert.is_nil(renew(COMMITS, { { { topic = "t", partition = 0, error = "UNKNOWN_MEMBER_ID" } } }))
      assert.is_nil(renew(COMMITS, { nil, "members", "NON_EMPTY_GROUP" }))
    end)
  end)
end)
