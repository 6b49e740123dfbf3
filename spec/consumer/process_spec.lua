-- Consumers as real processes on the mock cluster: signals, exit codes, and what is committed at the end.
require "spec.helper"
local kafka = require "rouse.kafka"
local process = require "rouse.process"
local task = require "rouse.task"

local DEADLINE = 60
local PROGRAM = (os.getenv "ROUSE_BUILD" or "build") .. "/rouse"

-- Handles three records at once; each takes as many seconds as its value says.
local SCRIPT = [[
local log, task = require "rouse.log", require "rouse.task"
return {
  consume = { parallel = 3 },
  handle = function(record)
    log.info("begun", { offset = record.offset })
    task.sleep(tonumber(record.value))
    return "done"
  end,
}
]]

-- A consumer of a topic of its own with these records; read_until waits for its output, finish for its end.
local function start(mock, topic, values, env, script)
  local properties = { ["bootstrap.servers"] = mock:bootstrap_servers() }
  local producer = assert(kafka.producer { properties = properties })
  for _, value in ipairs(values) do
    assert(producer:send { topic = topic, partition = 0, value = value })
  end
  assert(producer:flush { timeout = 30 })
  producer:close { timeout = 5 }
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(script or SCRIPT)
  file:flush()
  local environ = { PATH = os.getenv "PATH", LD_PRELOAD = os.getenv "LD_PRELOAD", LSAN_OPTIONS = os.getenv "LSAN_OPTIONS",
    KAFKA_TOPIC = topic, CONSUMER_GROUP = topic .. "-group", IDLE_TIMEOUT = "3600", ROUSE_ASSIGN = "index",
    JOB_INDEX = "0", CE_JOBRUN = topic .. "-run",
    ROUSE_KAFKA = "security.protocol=plaintext;fetch.wait.max.ms=10;bootstrap.servers=" .. mock:bootstrap_servers() }
  for name, value in pairs(env or {}) do environ[name] = value end
  local child = assert(process.spawn { command = { PROGRAM, "run", path }, env = environ, stderr = "pipe" })
  local self = { child = child, text = "" }
  local reader = task.spawn(function()
    while true do
      local chunk = child:read { stream = "stderr" }
      if not chunk then return end
      self.text = self.text .. chunk
    end
  end)
  local function await(what, cond)
    local deadline = task.monotonic() + DEADLINE
    while not cond() do
      assert(task.monotonic() < deadline, ("waited %d s for %s:\n%s"):format(DEADLINE, what, self.text))
      task.sleep(0.01)
    end
  end
  function self.read_until(text, times)
    await(text, function() return select(2, self.text:gsub(text, "")) >= (times or 1) end)
  end
  function self.finish()
    local result = child:wait { timeout = DEADLINE }
    reader:join(5)
    child:close()
    os.remove(path)
    return assert(result, self.text).code, self.text
  end
  function self.committed()
    local admin = assert(kafka.admin { properties = properties })
    local list = assert(admin:group_offsets {
      group = topic .. "-group", partitions = { { topic = topic, partition = 0 } }, timeout = 30,
    })
    admin:close { timeout = 5 }
    return list[1].offset
  end
  return self
end

-- A line for each record, as the packaged script writes it, and what its value says.
local LINES = [[
local log = require "rouse.log"
local values = {
  wait = function() require "rouse.task".sleep(3600) end,
  error = function() error "no" end,
  memory = function() return ("x"):rep(1 << 30) end,
}
return {
  consume = { retry = { tries = 1 } },
  handle = function(record)
    log.info("record", log.place(record))
    if values[record.value] then values[record.value]() end
    return "done"
  end,
}
]]

-- Offsets of the lines about records.
local function offsets(text)
  local list = {}
  for offset in text:gmatch '"message":"record","topic":"[^"]*","partition":0,"offset":(%d+)}\n' do
    list[#list + 1] = tonumber(offset)
  end
  return list
end

-- The seconds of "draining: RECORDS, N s left", which is said once a second.
local function countdown(text, records)
  local list = {}
  for seconds in text:gmatch("draining: " .. records .. " in hand on 1 partition, (%d+) s left") do
    list[#list + 1] = tonumber(seconds)
    assert.is_true(#list == 1 or list[#list] < list[#list - 1], text)
  end
  return list
end

local function count(n, last)
  local values = {}
  for i = 1, n do values[i] = "v" end
  values[n] = last or values[n]
  return values
end

describe("a consumer's process", function()
  it("has written the line of each record it handled, in order, however it ends", function()
    task.run(function()
      local mock = kafka.mock { brokers = 1, topics = {
        { name = "idle", partitions = 1 }, { name = "term", partitions = 1 }, { name = "twice", partitions = 1 },
        { name = "parked", partitions = 1 }, { name = "memory", partitions = 1 },
      } }
      local N <const> = 700
      local started = {
        idle = start(mock, "idle", count(N), { IDLE_TIMEOUT = "1" }, LINES),
        term = start(mock, "term", count(N), nil, LINES),
        twice = start(mock, "twice", count(N, "wait"), nil, LINES),
        parked = start(mock, "parked", count(N, "error"), nil, LINES),
        memory = start(mock, "memory", count(N, "memory"), nil, LINES),
      }
      started.term.read_until('"offset":' .. N - 1 .. "}")
      started.term.child:kill "TERM"
      started.twice.read_until('"offset":' .. N - 1 .. "}")
      started.twice.child:kill "TERM"
      started.twice.read_until "draining"
      started.twice.child:kill "TERM"
      for name, code in pairs { idle = 0, term = 0, twice = 143, parked = 65, memory = 65 } do
        local exit, text = started[name].finish()
        assert.equal(code, exit, name .. text:sub(-2000))
        local seen = offsets(text)
        assert.equal(N, #seen, name)
        for i = 1, N do assert.equal(i - 1, seen[i], name) end
      end
      mock:close()
    end)
  end)

  it("drains on SIGTERM, counts down, exits 75 at the deadline and at once on a second signal", function()
    task.run(function()
      local topics = {}
      for i, name in ipairs { "quick", "slow", "twice", "int", "gone" } do
        topics[i] = { name = name, partitions = 1 }
      end
      local mock = kafka.mock { brokers = 1, topics = topics }
      -- side by side, since one of them waits for the whole deadline
      local slow = start(mock, "slow", { "0", "3600", "0" })
      local quick = start(mock, "quick", { "0", "4", "4", "4", "0" })
      local twice = start(mock, "twice", { "0", "3600" })
      local int = start(mock, "int", { "0", "3600" })
      local beyond = start(mock, "gone", {}, { JOB_INDEX = "7" })

      slow.read_until("begun", 3)
      slow.child:kill "TERM"

      quick.read_until("begun", 4)
      quick.child:kill "TERM"
      local code, text = quick.finish()
      assert.equal(0, code, text)
      local left = countdown(text, "3 records")
      assert.is_true(#left >= 2 and left[1] >= 8 and left[1] <= 10, text)
      assert.equal(4, quick.committed())
      assert.is_nil(text:find('"offset":4', 1, true), text)

      for child, signals in pairs { [twice] = { "TERM", "TERM", 143 }, [int] = { "INT", "INT", 130 } } do
        child.read_until("begun", 2)
        child.child:kill(signals[1])
        child.read_until("draining: 1 record in hand")
        child.child:kill(signals[2])
        code, text = child.finish()
        assert.equal(signals[3], code, text)
        assert.is_nil(text:find("handler stopped in the middle", 1, true), text)
      end

      code, text = beyond.finish()
      assert.equal(78, code, text)
      assert.matches("JOB_INDEX is 7, but topic gone has 1 partition", text, 1, true)
      assert.is_nil(beyond.committed())

      code, text = slow.finish()
      assert.equal(75, code, text)
      left = countdown(text, "1 record")
      assert.is_true(#left >= 6 and left[#left] <= 3, text)
      assert.matches("handler stopped in the middle", text, 1, true)
      assert.equal(1, slow.committed())
      mock:close()
      local _, tasks = task.handles()
      assert.equal(1, tasks)
    end)
  end)
end)
