require "spec.helper"
local verdict = require "rouse.verdict"

-- Runs Lua source as a script would; returns the error's message.
local function failure(source)
  local chunk = assert(load("local verdict = ...\n" .. source, "@rule.lua"))
  local ok, message = pcall(chunk, verdict)
  assert.is_false(ok)
  return message
end

describe("verdict", function()
  it("makes plain tables", function()
    assert.same({ kind = "wake" }, verdict.wake())
    assert.same({ kind = "wake", indices = { 0, 3 }, env = { A = "1", B = "b" }, reason = "r" },
      verdict.wake { indices = { 3, 0, 3 }, env = { A = 1, B = "b" }, reason = "r" })
    assert.same({ kind = "wake", instances = 2 }, verdict.wake { instances = 2 })
    assert.same({ kind = "wait", seconds = 0.5 }, verdict.wait { seconds = 0.5 })
    assert.same({ kind = "ignore", reason = "closed" }, verdict.ignore { reason = "closed" })
    assert.is_nil(getmetatable(verdict.wake()))
  end)

  for source, expected in pairs {
    ["verdict.wake{indeces={1}}"] = "verdict.wake: unknown key 'indeces', did you mean 'indices'?",
    ["verdict.wake{indices={1}, instances=1}"] = "indices and instances are both given",
    ["verdict.wake{indices={}}"] = "wrong indices, expected at least one index",
    ["verdict.wake{indices={-1}}"] = "an array of partition numbers, not -1 in it",
    ["verdict.wake{indices={a=1}}"] = "an array of partition numbers, not 1 in it",
    ["verdict.wake{indices=3}"] = "indices is 3, expected an array of partitions",
    ["verdict.wake{instances=0}"] = "instances is 0, expected a whole number from 1 to 1000",
    ["verdict.wake{env={CE_JOB='x'}}"] = "wrong env, expected no CE_JOB",
    ["verdict.wake{env={JOB_INDEX='1'}}"] = "wrong env, expected no JOB_INDEX",
    ["verdict.wake{env={ROUSE_ASSIGN='x'}}"] = "wrong env, expected no ROUSE_ASSIGN",
    ["verdict.wake{env={['a b']='x'}}"] = "names of letters, digits and _, not 'a b'",
    ["verdict.wake{env={A={}}}"] = "expected A to be a string, not a table",
    ["verdict.wake{dedup='x'}"] = "dedup and window belong to on_record",
    ["verdict.wake{job='x', instances=1}"] = "job belongs to on_record",
    ["verdict.wait{}"] = "verdict.wait: seconds is missing, expected a number of 0 or more",
    ["verdict.wait{seconds=-1}"] = "seconds is -1",
    ["verdict.wait{seconds='1'}"] = "seconds is '1'",
    ["verdict.ignore{seconds=1}"] = "verdict.ignore: unknown key 'seconds'",
    ["verdict.ignore{reason=7}"] = "reason is 7, expected a string",
    ["verdict.waek{}"] = "verdict has no 'waek', did you mean 'wake'?",
    ["verdict.wake = nil"] = "verdict cannot be changed",
  } do
    it("refuses " .. source .. " at the rule's line", function()
      local message = failure("\n" .. source)
      assert.equal("rule.lua:3: ", message:match("^rule%.lua:%d+: "))
      assert.is_truthy(message:find(expected, 1, true), message)
    end)
  end

  it("knows the line of a tail call, whose frame is gone", function()
    assert.matches("^rule%.lua:4: verdict%.wake: unknown key 'x'",
      failure "local function decide()\n  local a = 1\n  return verdict.wake{x=a} end\ndecide()")
    assert.matches("^rule%.lua:3: verdict%.wait", failure "\nreturn verdict.wait{}")
  end)
end)

describe("verdict.check", function()
  it("takes verdicts, also those made by hand", function()
    for _, value in ipairs { verdict.wake { instances = 1 }, verdict.wait { seconds = 1 },
      verdict.ignore(), { kind = "wake", instances = 1 } } do
      assert.same(value, verdict.check(value))
    end
  end)

  it("says what is wrong with anything else", function()
    for expected, value in pairs {
      ["decide returned true"] = true,
      ["decide returned a table that is no verdict"] = { instances = 1 },
      ["decide returned 'wake'"] = "wake",
      ["instances is 0"] = { kind = "wake", instances = 0 },
      ["on_record's form"] = verdict.wake { job = "a" },
    } do
      local checked, message = verdict.check(value)
      assert.is_nil(checked)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    assert.matches("decide returned nil", (select(2, verdict.check(nil))))
  end)
end)

describe("verdict.wakes", function()
  local jobs = { orders = true, bills = true }

  it("takes nothing, one or several", function()
    assert.same({}, verdict.wakes(nil, jobs))
    assert.same({}, verdict.wakes({}, jobs))
    assert.same({ { kind = "wake", job = "orders" } }, verdict.wakes({ job = "orders" }, jobs))
    assert.same({ { kind = "wake", job = "orders", dedup = "k", window = 9 },
      { kind = "wake", job = "bills", env = { A = "1" } } },
      verdict.wakes({ verdict.wake { job = "orders", dedup = "k", window = 9 },
        { job = "bills", env = { A = 1 } } }, jobs))
  end)

  for expected, value in pairs {
    ["no route has the job 'order', did you mean 'orders'?"] = { job = "order" },
    ["wake 1 names no job"] = { { reason = "x" } },
    ["unknown key 'jobs', did you mean 'job'?"] = { jobs = "orders" },
    ["on_record returned 'orders'"] = "orders",
  } do
    it("says: " .. expected, function()
      local wakes, message = verdict.wakes(value, jobs)
      assert.is_nil(wakes)
      assert.is_truthy(message:find(expected, 1, true), message)
    end)
  end
end)
