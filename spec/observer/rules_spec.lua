require "spec.helper"
local rules = require "rouse.observer.rules"
local task = require "rouse.task"
local wake_world = require "spec.wake.world"

local function inside(fn)
  local result
  task.run(function() result = table.pack(fn()) end)
  return table.unpack(result, 1, result.n)
end

-- What a rule may do wrong, each with what is said about it.
local NONSENSE = {
  { function() error("boom") end, "boom" },
  { function() error({}) end, "table" },
  { function() error() end, "nil" },
  { function() return nil end, "decide returned nil, expected verdict.wake, wait or ignore" },
  { function() return "wake" end, "decide returned 'wake', expected" },
  { function() return {} end, "a table that is no verdict" },
  { function() return { kind = "wake", instances = 0 } end, "instances is 0" },
  { function() return { kind = "wake", instances = 1.5 } end, "instances is 1.5" },
  { function() return { kind = "wake", indices = { -1 } } end, "not %-1 in it" },
  { function() return { kind = "wake", indices = { "a" } } end, "not 'a' in it" },
  { function() return { kind = "wake", env = { JOB_INDEX = "1" } } end, "no JOB_INDEX" },
  { function() return { kind = "wake", env = { A = {} } } end, "A to be a string" },
  { function() return { kind = "wait" } end, "seconds is missing" },
  { function() return { kind = "wait", seconds = 0 / 0 } end, "seconds is %-?nan" },
  { function() return { kind = "wait", seconds = math.huge } end, "seconds is inf" },
  { function() return setmetatable({}, { __index = function() error("trap") end }) end, "trap" },
  { function() return { kind = "wake", env = setmetatable({}, { __pairs = function() error("trap") end }) } end, "trap" },
  { function() while true do end end, "CPU" },
}

describe("a rule that goes wrong", function()
  for i, case in ipairs(NONSENSE) do
    it("is a message, never an error of the observer: " .. i .. " " .. case[2], function()
      local verdict, message = inside(function() return rules.decide { decide = case[1] }({}, { now = 1 }) end)
      assert.is_nil(verdict)
      assert.matches(case[2], message)
    end)
  end

  it("marks its job and leaves the others alone", function()
    inside(function()
      local decide = rules.decide { decide = function(job)
        if job.name == "bad" then return setmetatable({}, { __index = function() error("trap") end }) end
        return require("rouse.verdict").wake {}
      end }
      local function unit(name)
        return { job = name, group = name, mode = "lag", topics = { payments = { reset = "earliest" } }, spec = {} }
      end
      local w = wake_world.new { units = { unit "bad", unit "good" }, commits = { payments = { [0] = 0 } }, decide = decide }
      w:start { payments = 1 }
      w:record("payments", 0, 0)
      w:settle()
      assert.equal("good", w:take("submit").job)
      assert.equal("rule_error", w.engine.by_id["bad/bad"].decision.code)
    end)
  end)

  it("cannot change what the engine knows by changing what it was shown", function()
    local decide = function(job)
      for _, run in ipairs(job.runs) do run.indices[1] = 99 end
      for _, part in ipairs(job.partitions) do part.work, part.covered = false, true end
      return require("rouse.verdict").wake {}
    end
    local w = wake_world.new { commits = { payments = { [0] = 0, [1] = 0 } }, decide = decide, units = { { job = "pay",
      group = "g", mode = "lag", assign = "index", topics = { payments = { reset = "earliest" } }, spec = {} } } }
    w:start { payments = 2 }
    w:record("payments", 0, 0)
    w:settle()
    w:accept(w:take("submit"))
    w:record("payments", 1, 0)
    w:settle()
    assert.same({ 1 }, w:take("submit").indices)
    assert.same({ 0 }, w.engine.targets.codeengine.runs[1].indices)
  end)
end)
