require "spec.helper"
local process = require "rouse.process"
local task = require "rouse.task"

local DEADLINE = 60

local function sh(script, options)
  options = options or {}
  options.command = { "/bin/sh", "-c", script }
  return assert(process.spawn(options))
end

-- All of a stream up to its end.
local function slurp(child, stream)
  local parts = {}
  while true do
    local chunk, message, code = child:read { stream = stream, timeout = DEADLINE }
    if not chunk then
      assert(code == "EOF", message)
      return table.concat(parts)
    end
    parts[#parts + 1] = chunk
  end
end

local function output(script, options)
  options = options or {}
  options.stdout = "pipe"
  local child <close> = sh(script, options)
  local text = slurp(child)
  return text, assert(child:wait { timeout = DEADLINE })
end

-- Waits until a process is gone, also as a zombie.
local function gone(pid)
  local deadline = task.monotonic() + DEADLINE
  repeat
    local file = io.open(("/proc/%d/stat"):format(pid))
    if not file then
      return true
    end
    file:close()
    task.sleep(0.002)
  until task.monotonic() > deadline
  return false
end

-- A test in a task, after which no handle of its children is left on the loop.
local function it_runs(name, fn)
  it(name, function()
    local before = task.handles()
    task.run(function()
      fn()
      collectgarbage()
      local deadline = task.monotonic() + DEADLINE
      while task.handles() > before and task.monotonic() < deadline do
        task.sleep(0.001)
      end
    end)
    assert.is_true(task.handles() <= before) -- less: what an earlier spec left has closed since
  end)
end

describe("process", function()
  it_runs("reports exit codes, as often as asked", function()
    local child <close> = sh("exit 7")
    assert.same({ code = 7 }, child:wait { timeout = DEADLINE })
    assert.same({ code = 7 }, child:wait())
    assert.same({ nil, "cannot signal the process: it has ended", "ESRCH" }, { child:kill "TERM" })
  end)

  it_runs("reports the signal that ended a child, with a code that is not success", function()
    for _, name in ipairs { "TERM", "KILL", "SIGINT" } do
      local child <close> = sh("exec sleep 60")
      assert.is_true(child:kill(name))
      local status = assert(child:wait { timeout = DEADLINE })
      assert.equal(name:gsub("^SIG", ""), status.signal)
      assert.is_true(status.code > 128)
    end
  end)

  it_runs("wakes every task that waits, and gives up after a time-out", function()
    local child <close> = sh("read line; exit 3", { stdin = "pipe" })
    assert.same({ nil, "timed out", "TIMEDOUT" }, { child:wait { timeout = 0.01 } })
    local waiting = {}
    for i = 1, 3 do
      waiting[i] = task.spawn(function() return child:wait { timeout = DEADLINE } end)
    end
    assert.is_true(child:write "go\n")
    for i = 1, 3 do
      assert.same({ code = 3 }, waiting[i]:join())
    end
  end)

  it_runs("gives a child its environment and directory, or its parent's", function()
    assert.equal("b c /\n", output("echo $A $C $(pwd)", { env = { A = "b", C = "c" }, cwd = "/" }))
    assert.equal("A=b=\n0\n", output("env | grep A=; echo $I", { env = { A = "b=", I = 0 } }))
    assert.equal(os.getenv "PATH" .. "\n", output("echo $PATH"))
  end)

  it_runs("says why a child cannot start", function()
    local child, message, code = process.spawn { command = { "no-such-program" } }
    assert.same({ nil, "cannot start 'no-such-program': no such file or directory", "ENOENT" },
      { child, message, code })
    assert.same({ nil, "cannot start 'true': no directory '/nowhere'", "ENOENT" },
      { process.spawn { command = { "true" }, cwd = "/nowhere" } })
    assert.same({ nil, "cannot start '/': permission denied", "EACCES" },
      { process.spawn { command = { "/" }, stdout = "pipe" } })
  end)

  it_runs("reads both streams apart, and their ends", function()
    local child <close> = sh("echo out; echo err >&2", { stdout = "pipe", stderr = "pipe" })
    assert.equal("err\n", slurp(child, "stderr"))
    assert.equal("out\n", slurp(child))
    assert.same({ nil, "end of file", "EOF" }, { child:read() })
  end)

  it_runs("makes a child wait that writes more than is read", function()
    local child <close> = sh("head -c 3000000 /dev/zero; echo done >&2",
      { stdout = "pipe", stderr = "pipe" })
    assert.equal("TIMEDOUT", select(3, child:read { stream = "stderr", timeout = 0.05 }))
    local size = 0
    repeat
      local chunk = child:read { timeout = DEADLINE }
      size = size + #(chunk or "")
      assert.is_true(#(chunk or "") <= 65536)
    until not chunk
    assert.equal(3000000, size)
    assert.equal("done\n", slurp(child, "stderr"))
  end)

  it_runs("writes to stdin, more than a pipe holds, and ends it", function()
    local child <close> = sh("cat", { stdin = "pipe", stdout = "pipe" })
    local text = ("0123456789abcde\n"):rep(20000)
    local writer = task.spawn(function()
      assert(child:write(text, { timeout = DEADLINE }))
      child:close_stdin()
      return child:write "late"
    end)
    assert.equal(text, slurp(child))
    assert.same({ nil, "the process's stdin is closed", "EPIPE" }, { writer:join() })
    assert.same({ code = 0 }, child:wait { timeout = DEADLINE })
  end)

  it_runs("survives a child that does not read", function()
    local child <close> = sh("exec <&-; echo closed; exec sleep 60",
      { stdin = "pipe", stdout = "pipe" })
    assert.equal("closed\n", child:read { timeout = DEADLINE })
    local written, _, code = child:write(("x"):rep(200000), { timeout = DEADLINE })
    assert.is_nil(written)
    assert.equal("EPIPE", code)
  end)

  it_runs("gives children true pipes and nothing else of ours", function()
    local forgotten <close> = assert(io.popen("cat", "w")) -- without the close-on-exec flag
    assert.equal("file", io.type(forgotten))
    assert.equal("0\n1\n2\n", (output("ls /proc/$$/fd; :")))
    assert.equal("x\n", (output("echo x >/dev/stdout")))
  end)

  it_runs("kills and reaps on close, also when left by error or collected", function()
    local child = sh("exec sleep 60")
    local pid = child:pid()
    child:close()
    child:close()
    assert.is_true(gone(pid))
    assert.error_matches(function() child:pid() end, "rouse%.process is closed")

    local pids = {}
    pcall(function()
      local other <close> = sh("trap '' TERM; exec sleep 60")
      pids[1] = other:pid()
      error("left")
    end)
    do
      local forgotten = sh("exec sleep 60")
      pids[2] = forgotten:pid()
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(gone(pids[1]) and gone(pids[2]))
  end)

  it_runs("ends the waits of other tasks when it is closed", function()
    local child = sh("exec sleep 60", { stdout = "pipe", stdin = "pipe" })
    local waits = {
      task.spawn(function() return child:wait() end),
      task.spawn(function() return child:read() end),
      task.spawn(function() return child:write(("x"):rep(200000)) end),
    }
    task.sleep(0.01)
    assert.error_matches(function() child:read() end, "another task is reading stdout")
    child:close()
    for i = 1, 3 do
      assert.same({ nil, "the process was closed", "CLOSED" }, { waits[i]:join() })
    end
  end)

  it_runs("lets waits be cancelled", function()
    local child <close> = sh("exec sleep 60", { stdout = "pipe", stdin = "pipe" })
    for _, wait in ipairs { child.wait, child.read,
      function(c) return c:write(("x"):rep(200000)) end } do
      local waiting = task.spawn(wait, child)
      task.sleep(0.002)
      waiting:cancel()
      assert.equal("CANCELLED", select(3, waiting:join()))
    end
    assert.is_true(child:kill "KILL")
    assert.equal("KILL", child:wait({ timeout = DEADLINE }).signal)
  end)

  it("leaves no child behind when the program ends", function()
    local name = os.tmpname()
    local file <close> = assert(io.open(name, "w"))
    file:write [[
      require "spec.helper"
      local process = require "rouse.process"
      child = process.spawn { command = { "sleep", "60" } }
      print(child:pid())
    ]]
    file:close()
    task.run(function()
      local parent <close> = assert(process.spawn { command = { "lua5.4", name }, stdout = "pipe" })
      local pid = math.tointeger(tonumber(slurp(parent)))
      assert.same({ code = 0 }, parent:wait { timeout = DEADLINE })
      assert.is_true(gone(assert(pid)))
    end)
    os.remove(name)
  end)

  it("raises on misuse", function()
    local function refuse(pattern, options)
      assert.error_matches(function() process.spawn(options) end, pattern)
    end
    refuse("table expected", nil)
    refuse("unknown option 'comand', did you mean 'command'", { comand = {} })
    refuse("option 'command': array of strings expected, got string", { command = "ls" })
    refuse("option 'command' is empty", { command = {} })
    refuse("command: string expected, got boolean", { command = { true } })
    refuse("command: contains a NUL byte", { command = { "a\0b" } })
    refuse("names are strings without '='", { command = { "ls" }, env = { ["A=B"] = "c" } })
    refuse("env%.A: string expected, got table", { command = { "ls" }, env = { A = {} } })
    refuse("option 'stdout': one of inherit, null, pipe expected, got 'file'",
      { command = { "ls" }, stdout = "file" })
    local child <close> = sh("exec sleep 60")
    assert.error_matches(function() child:kill "NOPE" end, "no signal is called 'NOPE'")
    assert.error_matches(function() child:read() end, "stdout is no pipe")
    assert.error_matches(function() child:write "x" end, "stdin is no pipe")
    assert.error_matches(function() child:read { stream = "stdin" } end, "stderr expected")
    assert.error_matches(function() child:wait() end, "process%.wait: cannot wait here")
  end)
end)
