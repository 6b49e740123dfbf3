require "spec.helper"
local targets = require "rouse.observer.targets"
local task = require "rouse.task"

local CODEENGINE = { codeengine = { base_url = "http://127.0.0.1:9", project = "p" },
  iam = { endpoint = "http://127.0.0.1:9", api_key = "k" } }

local function process(command)
  return { kind = "process", jobs = { j = { command = { command }, env = { A = command } } } }
end

local function routes(...)
  local list = {}
  for i, target in ipairs { ... } do
    list[i] = { topic = "t" .. i, jobs = { { name = "j", target = target or nil } } }
  end
  return list
end

local function plan(before, observe, list, settings)
  return before:plan(observe, settings or {}, list)
end

describe("targets", function()
  local function in_task(name, fn)
    it(name, function()
      task.run(function()
        local empty = targets.new({ close = function() end }, {})
        fn(empty)
        empty:close()
      end)
    end)
  end

  in_task("are one where they are written alike", function(empty)
    local list = routes(process "true", process "true", process "false")
    local first = assert(plan(empty, {}, list))
    assert.equal("process", first:id_of(list[1].jobs[1]))
    assert.equal("process", first:id_of(list[2].jobs[1]))
    assert.equal("process#2", first:id_of(list[3].jobs[1]))
  end)

  in_task("keep their ids and stay open over a reload", function(empty)
    local first = assert(plan(empty, {}, routes(process "true", process "false")))
    local open = first:get "process#2"
    local list = routes(process "false", process "new", process "true")
    local second = assert(plan(first, {}, list))
    assert.equal("process#2", second:id_of(list[1].jobs[1]))
    assert.equal(open, second:get "process#2")
    assert.equal("process#3", second:id_of(list[2].jobs[1]))
    assert.equal("process", second:id_of(list[3].jobs[1]))
  end)

  in_task("take changed jobs, from the adoption on", function(empty)
    local first = assert(plan(empty, { target = process "old" }, routes(false)))
    local list = routes(false)
    local second = assert(plan(first, { target = process "new" }, list))
    local id = second:id_of(list[1].jobs[1])
    assert.equal("process", id)
    assert.same({ A = "old" }, first:get(id):job("j").env)
    assert.same({ A = "new" }, second:get(id):job("j").env)
    second:adopt()
    assert.same({ A = "new" }, first:get(id):job("j").env)
    assert.equal(first:get(id), second:get(id))
  end)

  in_task("are Code Engine where nothing else is said, and there its settings are needed", function(empty)
    local list = routes(false, { kind = "codeengine" })
    local first = assert(plan(empty, {}, list, CODEENGINE))
    assert.equal("codeengine", first:id_of(list[1].jobs[1]))
    assert.equal("codeengine", first:id_of(list[2].jobs[1]))
    local none, message = plan(first, { target = process "x" }, list)
    assert.is_nil(none)
    assert.is_truthy(message:find "job j is Code Engine's")
  end)
end)
