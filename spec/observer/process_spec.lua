-- Observers and consumers as real processes, asked with rouse explain and told with signals.
require "spec.helper"
local free_port = require "spec.free_port"
local json = require "rouse.json"
local process = require "rouse.process"
local task = require "rouse.task"

local PROGRAM = (os.getenv "ROUSE_BUILD" or "build") .. "/rouse"
local DEADLINE = 60

local function wait_until(what, fn)
  local deadline = task.monotonic() + DEADLINE
  while true do
    local value = fn()
    if value then return value end
    assert(task.monotonic() < deadline, "waited in vain for " .. what)
    task.sleep(0.05)
  end
end

local function environ(more)
  local env = { PATH = os.getenv "PATH", LSAN_OPTIONS = os.getenv "LSAN_OPTIONS", ROUSE_ETC = "/nonexistent" }
  for name, value in pairs(more or {}) do env[name] = value end
  return env
end

local function slurp(child, stream, into)
  while true do
    local chunk = child:read { stream = stream, timeout = DEADLINE }
    if not chunk then return end
    into[stream] = into[stream] .. chunk
  end
end

-- Starts a program; output.stdout and output.stderr grow while it runs.
local function start(command, env)
  local child = assert(process.spawn { command = command, env = environ(env), stdout = "pipe", stderr = "pipe" })
  local output = { stdout = "", stderr = "" }
  local readers = { task.spawn(slurp, child, "stdout", output), task.spawn(slurp, child, "stderr", output) }
  return child, output, readers
end

local function finish(child, readers)
  local ended = assert(child:wait { timeout = DEADLINE })
  for _, reader in ipairs(readers) do reader:join() end
  child:close()
  return ended.code
end

local function run(...)
  local child, output, readers = start { PROGRAM, ... }
  return finish(child, readers), output
end

-- Runs a shell's words beside the mocks, where an observer answers at `port`; play(ask, output): ask is rouse explain.
local function with_mocks(words, env, play)
  task.run(function()
    local port = free_port()
    env.ROUSE_ADMIN = tostring(port)
    local child, output, readers = start({ PROGRAM, "mock", "--quiet", "--", "sh", "-c", words }, env)
    local function ask(...)
      return run("explain", "--address", "127.0.0.1:" .. port, ...)
    end
    local function status()
      local code, answer = ask "--json"
      return code == 0 and assert(json.decode(answer.stdout))
    end
    wait_until("an observer that is ready", function()
      local now = status()
      return now and now.ready
    end)
    play(ask, status, output)
    child:kill "TERM"
    assert.equal(143, finish(child, readers))
  end)
end

describe("an observer's process", function()
  it("is asked with rouse explain, and reloads at SIGHUP", function()
    with_mocks(("exec '%s' observer"):format(PROGRAM), {}, function(ask, status, output)
      -- Ready is before the first decision: the offsets of the groups come later.
      wait_until("a decision on each route", function()
        local _, answer = ask()
        return select(2, answer.stdout:gsub("no_work for", "")) == 2
      end)
      local code, answer = ask()
      assert.equal(0, code)
      assert.equal("", answer.stderr)
      for _, expected in ipairs { "payments: lag mode", "  payments-consumer: 0 instances active, by index on codeengine",
        "payments/3 ", "shipping/2 ", "quiet, rings at 0" } do
        assert.is_truthy(answer.stdout:find(expected, 1, true), answer.stdout)
      end
      assert(os.execute("kill -HUP " .. wait_until("its process id", function()
        local now = status()
        return now and now.pid
      end)))
      wait_until("the second generation", function()
        local now = status()
        return now and now.reload.generation == 2
      end)
      wait_until("its line", function() return output.stderr:find('"reloaded"', 1, true) end)
      assert.is_truthy(select(2, ask()).stdout:find "generation 2, reloaded %d[%d.]* s ago")
    end)
  end)

  it("takes over what a config map brings, also an edited script that appears", function()
    local dir = os.tmpname()
    os.remove(dir)
    local function sh(words) assert(os.execute(("cd '%s' && %s"):format(dir, words))) end
    assert(os.execute(("mkdir -p '%s'"):format(dir)))
    sh "mkdir v1 && ln -s v1 ..data && ln -s ..data/kafkadata kafkadata && ln -s ..data/observer.lua observer.lua"
    sh "echo 'payments: {jobs: [payments-consumer]}' >v1/kafkadata"
    local env = { ROUSE_ETC = dir }
    with_mocks(("ROUSE_KAFKADATA='%s/kafkadata' exec '%s' observer"):format(dir, PROGRAM), env, function(_, status, output)
      wait_until("one unit", function()
        local now = status()
        return now and #now.units == 1
      end)
      wait_until("its line", function() return output.stderr:find("running the packaged scripts/observer.lua", 1, true) end)
      sh "mkdir v2 && cp v1/kafkadata v2 && echo 'shipping: {jobs: [shipping-consumer]}' >>v2/kafkadata"
      sh "echo 'return { observe = {} }' >v2/observer.lua && ln -s v2 ..new && mv -T ..new ..data"
      local now = wait_until("the second generation", function()
        local now = status()
        return now and now.reload.generation == 2 and now
      end)
      assert.equal(2, #now.units)
      assert.same({ dir .. "/observer.lua", dir .. "/kafkadata" }, now.reload.files)
      -- An edited script that goes away is no reason to run something else.
      sh "mkdir v3 && cp v2/kafkadata v3 && ln -s v3 ..new && mv -T ..new ..data"
      assert(os.execute("kill -HUP " .. now.pid))
      now = wait_until("the refusal", function()
        now = status()
        return now and now.reload.error and now
      end)
      assert.is_truthy(now.reload.error.message:find(dir .. "/observer.lua: cannot be read", 1, true))
      assert.equal(2, now.reload.generation)
    end)
    assert(os.execute(("rm -r '%s'"):format(dir)))
  end)
end)

describe("a consumer's process", function()
  it("goes on at SIGHUP", function()
    task.run(function()
      local child, output, readers = start({ PROGRAM, "mock", "--quiet", "--", "sh", "-c",
        ("echo $$; exec '%s' consumer"):format(PROGRAM) }, { ROUSE_ASSIGN = "index", JOB_INDEX = "0" })
      wait_until("the consumer", function()
        return output.stderr:find('"consuming"', 1, true) and output.stdout:find "^%d+\n"
      end)
      assert(os.execute("kill -HUP " .. output.stdout:match "^%d+"))
      wait_until("its word", function() return output.stderr:find("SIGHUP has no effect on a consumer", 1, true) end)
      child:kill "TERM"
      assert.equal(0, finish(child, readers))
    end)
  end)
end)
