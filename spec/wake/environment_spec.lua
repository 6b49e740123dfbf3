require "spec.helper"
local environment = require "rouse.wake.environment"
local json = require "rouse.json"
local naming = require "rouse.wake.naming"
local verdict = require "rouse.verdict"
local world = require "spec.wake.world"

local function long(number, length)
  return ("%03d"):format(number) .. ("x"):rep(length - 3)
end

-- A job run as the service stores it, with what surrounds the environment.
local function bytes(effect, own)
  local variables = {}
  for _, env in ipairs { own or {}, effect.env } do
    for name, value in pairs(env) do
      variables[#variables + 1] = { type = "literal", name = name, value = value }
    end
  end
  return #json.encode { job_name = effect.job, name = effect.name, run_env_variables = variables,
    scale_array_spec = ("9"):rep(253), id = ("i"):rep(36), href = ("h"):rep(200), project_id = ("p"):rep(36) }
end

local function new(topics, options)
  options = options or {}
  local given, commits, counts = {}, {}, {}
  for name, count in pairs(topics) do
    given[name], commits[name], counts[name] = { reset = "earliest" }, {}, count
    for partition = 0, count - 1 do commits[name][partition] = 0 end
  end
  local w = world.new { commits = commits, jobs = options.jobs, decide = options.decide, units = { { job = "pay",
    group = "g", mode = "lag", assign = options.assign, topics = given, spec = { dedup_window = 0 } } } }
  w:start(counts)
  return w, counts
end

local function ring_all(w, counts)
  for name, count in pairs(counts) do
    for partition = 0, count - 1 do w:record(name, partition, 0) end
  end
  w:settle()
end

describe("a run's environment", function()
  it("stays within a job run's 10 KiB with a thousand partitions, marked as far as there is room", function()
    local name = long(1, 249)
    local w, counts = new({ [name] = 1000 }, { assign = "index" })
    ring_all(w, counts)
    local effect = assert(w:take("submit"))
    assert.is_true(bytes(effect) <= 10240)
    assert.equal(name, effect.env.KAFKA_TOPIC)
    assert.equal(1000, #effect.indices)
    local marked = 0
    for _ in pairs(naming.decode(effect.env.ROUSE_WAKE)[name]) do marked = marked + 1 end
    assert.is_true(marked > 300)
  end)

  it("names only the topics with work where all are too many, and serves the rest with the next run", function()
    local topics = {}
    for i = 1, 100 do topics[long(i, 200)] = 1 end
    local w, counts = new(topics)
    w:record(long(77, 200), 0, 0)
    w:settle()
    local effect = assert(w:take("submit"))
    assert.equal(long(77, 200), effect.env.KAFKA_TOPIC)
    assert.equal("group", effect.env.ROUSE_ASSIGN)
    local run = w:accept(effect)
    run.status, run.succeeded_indices, run.completed_at = "completed", { 0 }, w.now
    w.commits[long(77, 200)][0] = 1
    w:pass(10)

    ring_all(w, counts)
    local served = {}
    for _ = 1, 10 do
      if not w:pending("submit") then w:pass(70) end
      effect = w:take("submit")
      if not effect then break end
      assert.is_true(bytes(effect) <= 10240)
      local count = 0
      for topic in effect.env.KAFKA_TOPIC:gmatch("[^,]+") do
        count = count + 1
        served[topic] = (served[topic] or 0) + 1
      end
      assert.equal(count, #effect.indices)
      w:accept(effect)
    end
    local count = 0
    for _, times in pairs(served) do
      count = count + 1
      assert.equal(1, times)
    end
    assert.is_true(count >= 99)
  end)

  it("that a rule makes too large is the rule's error, and the next verdict counts again", function()
    local env = { NOTE = ("\n"):rep(2000) }
    local w = new({ payments = 1 }, { decide = function() return verdict.wake { env = env } end })
    w:record("payments", 0, 0)
    w:settle()
    assert.is_nil(w:take("submit"))
    assert.equal("rule_error", w.last_note.code)
    assert.matches("^the run's environment is too large: the rule's has 1%d+ bytes, the job's 0, of 8192 in all$",
      w.last_note.fields.reason)
    env = { NOTE = "small" }
    w:pass(61)
    assert.equal("small", assert(w:take("submit")).env.NOTE)
  end)

  it("counts what the job's definition brings along", function()
    local own = { CERTIFICATE = ("c"):rep(7000) }
    local w, counts = new({ [long(1, 100)] = 400 }, { jobs = { pay = own }, assign = "index" })
    ring_all(w, counts)
    assert.is_true(bytes(assert(w:take("submit")), own) <= 10240)
  end)

  it("leaves the topics to the job's definition in claims mode, where they are too many: none may be missing", function()
    local topics = {}
    for i = 1, 100 do topics[long(i, 200)] = { reset = "earliest" } end
    local unit = { mode = "claims", topics = topics }
    local built = environment.build(unit, { own = {}, sources = {}, assign = "group", parts = {} })
    assert.is_nil(built.env.KAFKA_TOPIC)
    assert.is_nil(built.parts)
  end)
end)
