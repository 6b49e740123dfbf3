require "spec.helper"
local sim = require "rouse.sim"

-- Schedules in which systems of this kind lose wakes or start runs for nothing, each as its own case.

local function route(fields, partitions)
  local job = { name = "pay", group = "g", idle_timeout = 10 }
  local topic = { partitions = partitions or 2, jobs = { job } }
  for name, value in pairs(fields or {}) do
    if name == "reset" then topic.reset = value else job[name] = value end
  end
  return { payments = topic }
end

local function new(fields, more)
  local given = { routes = route(fields) }
  for name, value in pairs(more or {}) do given[name] = value end
  return sim.new(given)
end

-- The observer is away while `act` happens.
local function away(s, act)
  s:step { kind = "crash", observer = 1 }
  act()
  s:step { kind = "boot", observer = 1 }
end

local function runs_for_nothing(s)
  return s.world.oracle.stats.empty
end

describe("no wake is lost when", function()
  it("there is a backlog at the start", function()
    local s = new()
    away(s, function() s:produce("payments", 0, 5) end)
    s:advance(30)
    assert.equal(5, s:committed("g", "payments", 0))
  end)

  for _, how in ipairs { "refused", "dropped", "lost", "throttled", "unauthorized", "invalid", "late" } do
    it("a submit is answered badly: " .. how, function()
      local s = new()
      s:advance(5)
      s:step { kind = "fault", op = "submit", how = how, delay = 20, retry_after = 20 }
      s:produce("payments", 1)
      s:advance(150)
      assert.equal(1, s:committed("g", "payments", 1))
      -- A request that the service carries out after its client gave up may come beside its repetition.
      assert.is_true(#s:runs() == 1 or how == "late")
    end)
  end

  it("the first change arrives before the group's offsets could be read", function()
    local s = new()
    away(s, function()
      s:step { kind = "fault", op = "read", how = "timeout" }
      s:step { kind = "fault", op = "read", how = "timeout" }
    end)
    s:produce("payments", 0)
    s:advance(60)
    assert.equal(1, s:committed("g", "payments", 0))
  end)

  for _, delta in ipairs { 0, 0.001, 0.05, 0.2, 1, 2, 5 } do
    it(("a record arrives %g s after its consumer has looked for the last time"):format(delta), function()
      local s = new()
      s:produce("payments", 0)
      s:advance(8)
      s:step { kind = "race", topic = "payments", partition = 0, delta = delta }
      s:advance(60)
      assert.equal(2, s:committed("g", "payments", 0))
    end)
  end

  it("the group's commit is too old and goes: what is there is consumed again", function()
    local s = new()
    s:produce("payments", 0, 3)
    s:advance(120)
    s:step { kind = "expire", group = "g", topic = "payments", partition = 0 }
    assert.is_nil(s:committed("g", "payments", 0))
    s:advance(120)
    assert.equal(3, s:committed("g", "payments", 0))
    assert.equal(2, #s:runs())
  end)

  it("the group's commit goes and the route's reset is the end: what comes after is consumed", function()
    local s = new { reset = "latest" }
    s:advance(5)
    s:produce("payments", 0, 3)
    s:advance(120)
    s:step { kind = "expire", group = "g", topic = "payments", partition = 0 }
    s:advance(120)
    assert.equal(3, s:committed("g", "payments", 0)) -- the observer gave it a start
    assert.equal(1, #s:runs())
    s:produce("payments", 0)
    s:advance(60)
    assert.equal(4, s:committed("g", "payments", 0))
  end)

  local DAY <const> = 86400

  local function forgetful(renew, fields)
    return sim.new { retention = 7 * DAY, script = { observe = { renew_offsets = renew, routes = route(fields) } } }
  end

  it("the broker forgets offsets of quiet groups: they are renewed before that", function()
    local s = forgetful(true)
    s:produce("payments", 0, 3)
    s:advance(20 * DAY)
    assert.equal(3, s:committed("g", "payments", 0))
    assert.equal(1, #s:submits())
    s = forgetful(false)
    s:produce("payments", 0, 3)
    s:advance(6 * DAY)
    assert.equal(1, #s:submits())
    s:advance(2 * DAY)
    assert.equal(2, #s:submits()) -- all is consumed again
  end)

  for _, how in ipairs { "refused", "lost", "slow" } do
    it("a renewal of offsets goes wrong: " .. how .. ", with a record at any moment of it", function()
      for moment = 0, 30 do
        local s = forgetful(60)
        s:produce("payments", 0, 3)
        s:advance(50)
        s:step { kind = "fault", op = "renew", how = how, delay = moment % 3 == 0 and 40 or 8 }
        s:advance(9 + moment / 20)
        s:produce("payments", 0)
        s:advance(120)
        assert.equal(4, s:committed("g", "payments", 0))
        assert.equal(2, #s:submits())
      end
    end)
  end

  it("the same job serves two groups, one of them lagging", function()
    local s = sim.new { topics = { payments = 1, shipping = 1 }, routes = {
      payments = { jobs = { { name = "pay", group = "g1", idle_timeout = 10 } } },
      shipping = { jobs = { { name = "pay", group = "g2", idle_timeout = 10 } } } } }
    s:produce("payments", 0)
    s:produce("shipping", 0)
    s:advance(60)
    assert.equal(1, s:committed("g1", "payments", 0))
    assert.equal(1, s:committed("g2", "shipping", 0))
  end)

  it("a group is drained, idles, and new records come", function()
    local s = new()
    s:produce("payments", 0, 10)
    s:advance(600)
    s:produce("payments", 0, 1005)
    s:advance(120)
    assert.equal(1015, s:committed("g", "payments", 0))
  end)

  it("one partition's commit lies beyond its end, and another one has work", function()
    local s = new()
    s:produce("payments", 0, 1000)
    s:advance(120)
    s:step { kind = "recreate", topic = "payments", keep = true }
    s:produce("payments", 0, 3)
    s:produce("payments", 1, 500)
    s:advance(120)
    assert.equal(3, s:committed("g", "payments", 0))
    assert.equal(500, s:committed("g", "payments", 1))
  end)

  it("a group without a commit and reset = latest gets its first records", function()
    local s = new { reset = "latest" }
    s:advance(5)
    s:produce("payments", 0, 7000)
    s:produce("payments", 1, 7000)
    s:advance(600)
    assert.equal(7000, s:committed("g", "payments", 0))
    assert.equal(7000, s:committed("g", "payments", 1))
  end)

  it("the target is full: what came meanwhile is served by one run as soon as there is room", function()
    local s = new(nil, { quota = 14 })
    for i = 1, 10 do -- somebody else's, finished soon and never removed
      s:step { kind = "run", job = "pay", name = "by-hand-" .. i, indices = { 0 }, env = { CONSUMER_GROUP = "other" } }
    end
    s:advance(30)
    for partition = 0, 1 do
      s:produce("payments", partition, 3)
      s:advance(100)
    end
    assert.same({}, s:submits())
    local decided = s.world.observers[1].engine.units[1].decision
    assert.equal("quota", decided.code)
    assert.equal(10, decided.fields.runs)
    assert.equal(14, decided.fields.limit)
    for i = 1, 5 do s.world.project:remove("by-hand-" .. i) end
    s:advance(60)
    assert.equal(1, #s:submits())
    assert.same({ 3, 3 }, { s:committed("g", "payments", 0), s:committed("g", "payments", 1) })
  end)

  it("a route is taken out and comes back, with records that came while it was gone", function()
    local s = new()
    s:advance(5)
    s:step { kind = "reload", what = "remove", job = "pay" }
    s:advance(10)
    s:produce("payments", 0, 3)
    s:advance(100)
    assert.same({}, s:submits())
    s:step { kind = "reload", what = "back", job = "pay" }
    s:advance(60)
    assert.equal(3, s:committed("g", "payments", 0))
  end)

  it("a long dedup window is made short by a reload", function()
    local s = new { dedup_window = 1000 }
    s:produce("payments", 0)
    s:advance(60)
    s:produce("payments", 1)
    s:advance(60)
    assert.is_nil(s:committed("g", "payments", 1))
    s:step { kind = "reload", what = "window", job = "pay", seconds = 20 }
    s:advance(60)
    assert.equal(1, s:committed("g", "payments", 1))
  end)

  it("files are written anew, or wrongly, at any point of a wake: one run, as ever", function()
    for moment = 0, 20 do
      for _, what in ipairs { "same", "rule", "bad" } do
        local s = new(nil, { seed = moment })
        s:advance(5)
        s:produce("payments", 0)
        s:step { kind = "reload", what = what, job = "pay" }
        s:advance(moment / 20)
        s:step { kind = "reload", what = what, job = "pay" }
        s:advance(60)
        assert.equal(1, s:committed("g", "payments", 0))
        assert.equal(1, #s:submits())
      end
    end
  end)

  it("the observer is killed at any point of a wake", function()
    for moment = 0, 40 do
      local s = new(nil, { seed = moment })
      s:advance(5)
      s:produce("payments", 0)
      s:advance(moment / 20)
      away(s, function() s:advance(3) end)
      s:advance(60)
      assert.equal(1, s:committed("g", "payments", 0))
      assert.is_true(#s:runs() <= 2)
    end
  end)
end)

describe("no run is started for nothing when", function()
  local function quiet(s)
    s:advance(600)
    assert.same({}, s:submits())
  end

  it("everything was expired by retention", function()
    local s = new()
    s:produce("payments", 0, 100)
    s:advance(120)
    local before = #s:submits()
    away(s, function()
      s:produce("payments", 0, 20000)
      s:step { kind = "trim", topic = "payments", partition = 0, back = 0 }
    end)
    s:advance(600)
    assert.equal(before, #s:submits())
  end)

  it("a job has caught up while another one of the topic has work", function()
    local s = sim.new { topics = { payments = 2 }, routes = { payments = { jobs = {
      { name = "pay", group = "g", idle_timeout = 10 }, { name = "audit", group = "a", idle_timeout = 10 } } } } }
    s:produce("payments", 0, 3)
    s:advance(60)
    local before = #s:submits()
    s:step { kind = "rewind", group = "a", topic = "payments", partition = 0, back = 2 }
    s:advance(120)
    assert.equal(before + 1, #s:submits())
    assert.equal("audit", s:submits()[before + 1].job)
    for _, submit in ipairs(s:submits()) do
      assert.is_true(submit.instances > 0)
    end
  end)

  it("a group has no commit and the topic is empty", function()
    quiet(new())
    quiet(new { reset = "latest" })
    local s = new()
    away(s, function() -- a log whose records are gone
      s:produce("payments", 0, 50)
      s:step { kind = "trim", topic = "payments", partition = 0, back = 0 }
    end)
    quiet(s)
  end)

  it("a transaction is open or aborted: no submit until one is committed", function()
    local s = new()
    for _ = 1, 3 do
      s:step { kind = "open", topic = "payments", partition = 0, count = 5 }
      s:advance(100)
      s:step { kind = "finish", topic = "payments", partition = 0, outcome = "aborted" }
      s:advance(100)
    end
    assert.same({}, s:submits())
    s:step { kind = "open", topic = "payments", partition = 0 }
    s:step { kind = "finish", topic = "payments", partition = 0, outcome = "committed" }
    s:advance(100)
    assert.equal(1, #s:submits())
    away(s, function() end) -- the marker after the last record is no work, also at a start
    s:advance(600)
    assert.equal(1, #s:submits())
  end)

  it("a tail is compacted away", function()
    local s = new()
    away(s, function()
      s:produce("payments", 0, 9)
      s:step { kind = "compact", topic = "payments", partition = 0, back = 0 }
    end)
    quiet(s)
  end)

  it("two observers see the same record", function()
    for seed = 1, 30 do
      local s = new(nil, { observers = 2, seed = seed })
      s:advance(5)
      s:produce("payments", 0)
      s:advance(100)
      assert.equal(1, #s:runs())
      assert.equal(0, runs_for_nothing(s))
    end
  end)

  it("two groups of one job lag: each gets one instance", function()
    local s = sim.new { topics = { payments = 1, shipping = 1 }, routes = {
      payments = { jobs = { { name = "pay", group = "g1" } } }, shipping = { jobs = { { name = "pay", group = "g2" } } } } }
    s:advance(5)
    s:produce("payments", 0)
    s:produce("shipping", 0)
    s:advance(300)
    assert.equal(2, #s:runs())
    assert.equal(0, runs_for_nothing(s))
  end)

  it("a topic is recreated", function()
    local s = new()
    s:produce("payments", 0, 10)
    s:advance(120)
    local before = #s:submits()
    for _, keep in ipairs { true, false } do
      s:step { kind = "recreate", topic = "payments", keep = keep }
      s:advance(300)
    end
    assert.equal(before, #s:submits())
  end)

  it("the only topic of a job is deleted: nobody looks at anything until it is there again", function()
    local s = new()
    s:produce("payments", 0, 3)
    s:advance(120)
    local before = #s:submits()
    s:step { kind = "delete", topic = "payments" }
    s:advance(130) -- two looks at the topics
    local steps = s.world.count
    s:advance(600)
    assert.is_true(s.world.count - steps < 50)
    assert.equal(before, #s:submits())
    s:step { kind = "create", topic = "payments", partitions = 2 }
    s:produce("payments", 1)
    s:advance(130)
    assert.equal(1, s:committed("g", "payments", 1))
  end)
end)
