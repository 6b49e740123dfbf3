require "spec.helper"
local report = require "rouse.observer.report"

local function part(partition, fields)
  local made = { topic = "t", partition = partition, state = "quiet", work = false, covered = false, committed = 5,
    start = 5, end_offset = 5, lag = 0, armed = 5 }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

local function document(unit)
  local made = {
    id = "j/g", job = "j", group = "g", mode = "lag", assign = "group", target = "codeengine", topics = { "t" },
    phase = "idle", active = 0, due = 58.4, parts = { part(0) }, runs = {},
    decision = { code = "no_work", age = 3, inputs = { active = 0 } },
  }
  for name, value in pairs(unit or {}) do made[name] = value end
  return {
    rouse = "1.2.3", host = "h", pid = 7, uptime = 7500, ready = true, now = 1000,
    reload = { generation = 1, loaded_at = 1, waiting = {} }, kafka = { brokers = "b:1", reachable = true },
    targets = { { id = "codeengine", runs = 3, limit = 100, listed = 2 } },
    routes = { { topic = "t", why = "t: lag mode, group g from kafkadata", topics = { { name = "t", partitions = 1 } },
      jobs = { "j" }, units = { "j/g" } } },
    units = { made },
  }
end

local function text(...)
  return table.concat(report.lines(...), "\n")
end

local function has(lines, expected)
  assert.is_truthy(lines:find(expected, 1, true), expected .. " in:\n" .. lines)
end

describe("report", function()
  it("is readable", function()
    assert.same([[
rouse 1.2.3 on h (pid 7), up 2 h 5 min
Kafka b:1
target codeengine: 3 of 100 runs, listed 2.0 s ago

t: lag mode, group g from kafkadata
  j: 0 instances active, by group on codeengine
    no_work for 3.0 s: no record is proven to wait past the group's commits
    waits for its next look in 58 s, or a record
    PARTITION       COMMIT        START          END          LAG   STATE
    t/0                  5            5            5            0   quiet, rings at 5]], text(document()))
  end)

  it("puts many quiet partitions in one line, unless all are wanted", function()
    local parts = {}
    for i = 0, 99 do parts[#parts + 1] = part(i, i == 40 and { state = "held", attempt = 3 } or nil) end
    local lines = text(document { parts = parts })
    has(lines, "t: 99 partitions quiet: 0-39,41-99")
    has(lines, "held, attempt 3, rings at 5")
    assert.is_nil(lines:find("t/41", 1, true))
    has(text(document { parts = parts }, { all = true }), "t/41")
  end)

  it("wraps what a rule or an API had to say", function()
    local lines = report.lines(document { decision = { code = "submit_failed", age = 1,
      reason = ("word "):rep(60), inputs = { error = "UNAVAILABLE", seconds = 5 } } })
    for _, line in ipairs(lines) do
      assert.is_true(#line <= 100, line)
    end
    has(table.concat(lines, "\n"), "(error=UNAVAILABLE, seconds=5)")
  end)

  it("tells of the last wake after it", function()
    has(text(document { woken = { age = 65, reason = "3 records", inputs = { name = "j-1" } } }),
      "    last woken 65 s ago: run j-1; 3 records\n    no_work for")
    has(text(document { woken = { age = 65, inputs = { name = "j-1" } } }), "run j-1; no reason given")
  end)

  it("tells what each phase waits for", function()
    for phase, expected in pairs { listing = "the list of runs", reading = "the group's offsets",
      submitting = "the answer to the submit of j-1", asking = "whether the run j-1 exists" } do
      has(text(document { phase = phase, submitting = "j-1" }), "waits for " .. expected)
    end
    has(text(document { wait_left = 30, backoff_left = 4, submit_failures = 1, unread = "_TIMED_OUT" }),
      "the rule is asked again in 30 s, or on a record\n    no submit for another 4.0 s: 1 submit failed\n"
      .. "    offsets could not be read: _TIMED_OUT")
  end)

  it("shows claims, problems and an observer that is not ready", function()
    local doc = document { mode = "claims", parts = { part(0, { state = "owed", owed_from = 3, claimed_to = 9 }) } }
    doc.ready, doc.reason, doc.routes[1].problem = false, "Kafka is not reachable", "the topic does not exist (yet)"
    doc.kafka = { reachable = false, reason = "down" }
    local lines = text(doc)
    has(lines, "up 2 h 5 min, not ready: Kafka is not reachable")
    has(lines, "Kafka ? is not reachable: down")
    has(lines, "  ! the topic does not exist (yet)")
    has(lines, "owed from 3")
  end)

  it("tells what became of reloads", function()
    local doc = document()
    doc.reload = { generation = 3, loaded_at = 990, waiting = { "Kafka's properties or credentials" },
      error = { message = "kafkadata:3:1: bad", at = 995 } }
    has(text(doc), "generation 3, reloaded 10 s ago\n! the files were refused 5.0 s ago, nothing is changed: "
      .. "kafkadata:3:1: bad\n! Kafka's properties or credentials changed: that takes a new start\nKafka b:1")
  end)

  it("writes durations in the units that matter", function()
    for seconds, expected in pairs { [0] = "0.0 s", [9.94] = "9.9 s", [59.6] = "60 s", [121] = "2 min",
      [7200] = "2 h 0 min", [90061] = "25 h 1 min", [200000] = "2 d 7 h" } do
      assert.equal(expected, report.duration(seconds))
    end
  end)
end)
