-- Consumers as real processes on the mock cluster: signals, exit codes, and what is committed at the end.
require "spec.helper"
local kafka = require "rouse.kafka"
local process = require "rouse.process"
local task = require "rouse.task"

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
local function start(mock, topic, values, env)
  local properties = { ["bootstrap.servers"] = mock:bootstrap_servers() }
  local producer = assert(kafka.producer { properties = properties })
  for _, value in ipairs(values) do
    assert(producer:send { topic = topic, partition = 0, value = value })
  end
  assert(producer:flush { timeout = 10 })
  producer:close { timeout = 5 }
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(SCRIPT)
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
    local deadline = task.monotonic() + 20
    while not cond() do
      assert(task.monotonic() < deadline, ("waited 20 s for %s:\n%s"):format(what, self.text))
      task.sleep(0.01)
    end
  end
  function self.read_until(text, times)
    await(text, function() return select(2, self.text:gsub(text, "")) >= (times or 1) end)
  end
  function self.finish()
    local result = child:wait { timeout = 20 }
    reader:join(5)
    child:close()
    os.remove(path)
    return assert(result, self.text).code, self.text
  end
  function self.committed()
    local admin = assert(kafka.admin { properties = properties })
    local list = assert(admin:group_offsets {
      group = topic .. "-group", partitions = { { topic = topic, partition = 0 } }, timeout = 5,
    })
    admin:close { timeout = 5 }
    return list[1].offset
  end
  return self
end

describe("a consumer's process", function()
  it("drains on SIGTERM, counts down, exits 75 at the deadline and at once on a second signal", function()
    task.run(function()
      local topics = {}
      for i, name in ipairs { "quick", "slow", "twice", "int", "gone" } do
        topics[i] = { name = name, partitions = 1 }
      end
      local mock = kafka.mock { brokers = 1, topics = topics }
      -- side by side, since one of them waits for the whole deadline
      local slow = start(mock, "slow", { "0", "3600", "0" })
      local quick = start(mock, "quick", { "0", "1.5", "1.5", "1.5", "0" })
      local twice = start(mock, "twice", { "0", "3600" })
      local int = start(mock, "int", { "0", "3600" })
      local beyond = start(mock, "gone", {}, { JOB_INDEX = "7" })

      slow.read_until("begun", 3)
      slow.child:kill "TERM"

      quick.read_until("begun", 4)
      quick.child:kill "TERM"
      local code, text = quick.finish()
      assert.equal(0, code, text)
      assert.matches("draining: 3 records in hand on 1 partition, 10 s left", text, 1, true)
      assert.matches("draining: 3 records in hand on 1 partition, 9 s left", text, 1, true)
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
      assert.matches("1 s left", text, 1, true)
      assert.matches("handler stopped in the middle", text, 1, true)
      assert.equal(1, slow.committed())
      mock:close()
      local _, tasks = task.handles()
      assert.equal(1, tasks)
    end)
  end)
end)
