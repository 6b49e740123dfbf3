require "spec.helper"
local process = require "rouse.target.process"
local settled = require "spec.settled"
local task = require "rouse.task"

local directory

-- Runs a function as a task with a directory of its own for the children's files.
local function run(fn)
  return function()
    local before = settled()
    directory = os.tmpname()
    os.remove(directory)
    assert(os.execute("mkdir " .. directory))
    local ok, message = pcall(task.run, fn)
    os.execute("rm -r " .. directory)
    assert(ok, message)
    assert.is_true(settled() <= before)
  end
end

local function until_true(condition)
  local deadline = task.monotonic() + 60
  local value = condition()
  while not value do
    assert(task.monotonic() < deadline, "the condition never held")
    task.sleep(0.005)
    value = condition()
  end
  return value
end

local function read(name)
  local file = io.open(directory .. "/" .. name)
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function open(jobs, options)
  options = options or {}
  options.jobs = jobs
  options.environ = { PATH = os.getenv("PATH"), DIR = directory, A = "environ", B = "environ" }
  options.stderr = "null"
  options.retry_delay = options.retry_delay or 0.01
  return process.new(options)
end

local function sh(script)
  return { "sh", "-c", script }
end

local function ended(target, name)
  return until_true(function()
    local found = assert(target:get(name))
    return (found.status == "completed" or found.status == "failed") and found
  end)
end

local SHOW = [[echo "$JOB_INDEX $JOB_ARRAY_SIZE $CE_JOB $CE_JOBRUN $JOB_MODE $A $B $C" > $DIR/$JOB_INDEX]]

describe("the process target", function()
  it("starts a child per index with what Code Engine injects", run(function()
    local target = open { show = { command = sh(SHOW), env = { B = "job", C = "job" } } }
    local before = task.now()
    local submitted = assert(target:submit { job = "show", name = "show-1", indices = { 0, 3 },
      env = { C = "run", JOB_INDEX = "77" } })
    assert.same({ "show-1", "show", "pending", 2, { 0, 3 } }, { submitted.name, submitted.job,
      submitted.status, submitted.requested, submitted.indices })
    assert.same({ C = "run", JOB_INDEX = "77" }, submitted.env)
    local found = ended(target, "show-1")
    assert.equal("completed", found.status)
    assert.same({ 2, { 0, 3 } }, { found.succeeded, found.succeeded_indices })
    assert.is_true(found.created_at >= before and found.completed_at >= found.created_at)
    assert.equal("0 2 show show-1 task environ job run\n", read("0"))
    assert.equal("3 2 show show-1 task environ job run\n", read("3"))
    target:close()
  end))

  it("shows what runs, fails and waits to be retried", run(function()
    local target = open({
      mixed = { command = sh [[case $JOB_INDEX in 0) exit 0;; 1) exit 3;; *) exec sleep 60;; esac]] },
    }, { grace = 2 })
    assert(target:submit { job = "mixed", name = "m", indices = { 0, 1, 2 } })
    local found = until_true(function()
      local one = target:get("m")
      return one.succeeded == 1 and one.failed == 1 and one.running == 1 and one
    end)
    assert.same({ "running", { 0 }, { 1 } },
      { found.status, found.succeeded_indices, found.failed_indices })
    assert.is_true(target:remove("m"))
    assert.equal("NOT_FOUND", select(3, target:get("m")))
    assert.is_true(target:remove("m"))
    target:close()
  end))

  it("retries an index of a task up to its limit", run(function()
    local target = open { again = { command = sh [[echo $JOB_INDEX_RETRY_COUNT >> $DIR/tries
      exit 1]], retry_limit = 2 } }
    assert(target:submit { job = "again", name = "a", indices = { 0 } })
    assert.equal("failed", ended(target, "a").status)
    assert.equal("0\n1\n2\n", read("tries"))
    target:close()
  end))

  it("restarts a daemon until it exits 0", run(function()
    local target = open { daemon = { command = sh [[echo x >> $DIR/tries
      test $(wc -l < $DIR/tries) -ge 4]], mode = "daemon" } }
    assert(target:submit { job = "daemon", name = "d", indices = { 0 } })
    assert.equal("completed", ended(target, "d").status)
    assert.equal("x\nx\nx\nx\n", read("tries"))
    target:close()
  end))

  it("fails an index whose program does not exist, without retries", run(function()
    local target = open { none = { command = { "/no/such/program" }, retry_limit = 5 } }
    assert(target:submit { job = "none", name = "n", indices = { 0 } })
    assert.equal("failed", ended(target, "n").status)
    target:close()
  end))

  it("refuses what Code Engine refuses", run(function()
    local target = open { a = { command = { "true" } }, b = {} }
    assert.equal("NOT_FOUND", select(3, target:submit { job = "nobody", indices = { 0 } }))
    assert.equal("INVALID", select(3, target:submit { job = "a", indices = {} }))
    assert.equal("INVALID", select(3, target:submit { job = "b", indices = { 0 } }))
    assert(target:submit { job = "a", name = "a-1", indices = { 0 } })
    assert.equal("CONFLICT", select(3, target:submit { job = "a", name = "a-1", indices = { 0 } }))
    assert.matches("^a%-jobrun%-%w%w%w%w%w$", target:submit { job = "a", indices = { 0 } }.name)
    assert.equal(2, #target:list())
    target:close()
  end))

  it("knows its jobs", run(function()
    local target = open { a = { command = { "true" }, env = { G = "g" }, mode = "daemon" } }
    assert.same({ name = "a", env = { G = "g" }, mode = "daemon" }, target:job("a"))
    assert.equal("NOT_FOUND", select(3, target:job("b")))
    target:close()
  end))

  it("lets a child end by SIGTERM, and kills the one that will not", run(function()
    local patient = open({
      polite = { command = sh [[trap 'echo bye > $DIR/polite; exit 0' TERM; echo $$ > $DIR/up
        while :; do sleep 0.01; done]] },
    }, { grace = 3600 })
    local short = open({
      rude = { command = sh [[trap '' TERM; echo $$ > $DIR/rude; while :; do sleep 0.01; done]] },
    }, { grace = 0.3 })
    assert(patient:submit { job = "polite", name = "p", indices = { 0 } })
    assert(short:submit { job = "rude", name = "r", indices = { 0 } })
    until_true(function() return (read("up") or "") ~= "" and (read("rude") or "") ~= "" end)
    patient:close()
    short:close()
    assert.equal("bye\n", read("polite"))
    for _, name in ipairs { "up", "rude" } do
      assert.is_nil((os.execute("kill -0 " .. read(name):match("%d+") .. " 2>/dev/null")))
    end
  end))

  it("leaves nothing of what a child started", run(function()
    local target = open { tree = { command = sh [[
      if test $JOB_INDEX = 0; then sleep 300 & echo $! > $DIR/$JOB_INDEX; wait
      else sleep 300 & echo $! > $DIR/$JOB_INDEX; fi]] } }
    assert(target:submit { job = "tree", name = "t", indices = { 0, 1 } })
    local pids = {}
    for index = 0, 1 do
      pids[index] = until_true(function() return (read(tostring(index)) or ""):match("%d+") end)
    end
    local function gone(pid)
      return function() return not os.execute("kill -0 " .. pid .. " 2>/dev/null") end
    end
    until_true(gone(pids[1]))
    assert.is_false(gone(pids[0])())
    target:close()
    until_true(gone(pids[0]))
  end))

  it("kills its children when the task that opened it ends", run(function()
    local pid
    task.spawn(function()
      local target = open { long = { command = sh [[echo $$ > $DIR/pid; exec sleep 60]] } }
      assert(target:submit { job = "long", name = "l", indices = { 0 } })
      pid = until_true(function() return (read("pid") or ""):match("%d+") end)
    end):join()
    until_true(function() return not os.execute("kill -0 " .. pid .. " 2>/dev/null") end)
  end))
end)
