require "spec.helper"
local modes = require "rouse.observer.modes"

local function route(topic, ...)
  local jobs = {}
  for i, job in ipairs { ... } do
    jobs[i] = type(job) == "table" and job or { name = job }
  end
  return { topic = topic, reset = "earliest", jobs = jobs }
end

local function units(routes, definitions, settings)
  settings = settings or {}
  settings.target_of = function() return "codeengine" end
  return modes.units(routes, definitions or {}, settings)
end

describe("modes", function()
  it("takes the group from the job's definition and says so", function()
    local list, lines = units({ route("payments", "payments-consumer") },
      { ["payments-consumer"] = { env = { CONSUMER_GROUP = "payments-group", ROUSE_ASSIGN = "index" } } })
    assert.same({ "payments: lag mode, group payments-group from job payments-consumer" }, lines)
    assert.equal("lag", list[1].mode)
    assert.equal("index", list[1].assign)
  end)

  it("prefers the group of kafkadata", function()
    local list, lines = units({ route("payments", { name = "payments-consumer", group = "mine" }) },
      { ["payments-consumer"] = { env = { CONSUMER_GROUP = "payments-group" } } })
    assert.equal("mine", list[1].group)
    assert.same({ "payments: lag mode, group mine from kafkadata" }, lines)
  end)

  it("claims records where no group is known", function()
    local list, lines = units({ route("payments", "payments-consumer") })
    assert.equal("claims", list[1].mode)
    assert.is_nil(list[1].group)
    assert.same({ "payments: claims mode, no group is known for job payments-consumer" }, lines)
  end)

  it("claims everything with OBSERVER_CONSUMER_GROUP or a script with on_record", function()
    local routes = { route("payments", { name = "a", group = "g" }) }
    assert.equal("claims", units(routes, {}, { claims_group = "watchers" })[1].mode)
    local list, lines = units(routes, {}, { on_record = true })
    assert.equal("claims", list[1].mode)
    assert.same({ "payments: claims mode, the script has on_record" }, lines)
  end)

  it("makes one unit of a job on several topics, which then never uses index", function()
    local list = units({ route("a", { name = "j", group = "g", assign = "index" }),
      route("b", { name = "j", group = "g", assign = "index" }) })
    assert.equal(1, #list)
    assert.same({ a = { reset = "earliest" }, b = { reset = "earliest" } }, list[1].topics)
    assert.equal("group", list[1].assign)
  end)

  it("never uses index where a group has several jobs", function()
    local list = units({ route("a", { name = "j", group = "g", assign = "index" },
      { name = "k", group = "g", assign = "index" }) })
    assert.equal("group", list[1].assign)
    assert.equal("group", list[2].assign)
  end)
end)
