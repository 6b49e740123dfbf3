-- The program as people and platforms run it: real processes, their exit codes and both streams.
require "spec.helper"
local codeengine = require "rouse.mock.codeengine"
local json = require "rouse.json"
local kafka = require "rouse.mock.kafka"
local process = require "rouse.process"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local DEADLINE = 60
local PROGRAM = (os.getenv "ROUSE_BUILD" or "build") .. "/rouse"
local COMMANDS = { "observer", "consumer", "run", "check", "explain", "dlq", "mock", "demo" }

-- Nothing of the environment the specs run in, but what finds programs and suppresses leaks of others.
local function environ(more)
  local env = { PATH = os.getenv "PATH", LSAN_OPTIONS = os.getenv "LSAN_OPTIONS", ROUSE_ETC = "/nonexistent" }
  for name, value in pairs(more or {}) do
    env[name] = value or nil
  end
  return env
end

local function slurp(child, stream, into)
  while true do
    local chunk, message, code = child:read { stream = stream, timeout = DEADLINE }
    if not chunk then
      assert(code == "EOF", message)
      return true
    end
    into[stream] = into[stream] .. chunk
  end
end

-- Starts the program; result.stdout and result.stderr grow while it runs.
local function start(args, env)
  local child = assert(process.spawn { command = { PROGRAM, table.unpack(args) }, env = environ(env),
    stdout = "pipe", stderr = "pipe" })
  local result = { stdout = "", stderr = "" }
  local readers = { task.spawn(slurp, child, "stdout", result), task.spawn(slurp, child, "stderr", result) }
  return child, result, function()
    local status = assert(child:wait { timeout = DEADLINE })
    for _, reader in ipairs(readers) do
      assert(reader:join())
    end
    child:close()
    result.code = status.code
    return result
  end
end

-- Runs the program to its end.
local function run(args, env)
  local child <close>, _, finish = start(args, env)
  return finish(child)
end

local function in_task(name, fn)
  it(name, function() task.run(fn) end)
end

local function shown(text)
  return #text > 3000 and text:sub(1, 1500) .. "\n[...]\n" .. text:sub(-1500) or text
end

local function has(text, expected)
  assert(text:find(expected, 1, true), ("expected %q in:\n%s"):format(expected, shown(text)))
end

local function lacks(text, unexpected)
  local at = text:find(unexpected, 1, true)
  assert(not at, at and ("unexpected %q in:\n%s"):format(unexpected, shown(text)))
end

-- The log lines on stderr, each of which has to be a JSON object.
local function lines(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do
    local entry = assert(json.decode(line))
    assert.is_string(entry.level)
    assert.is_string(entry.message)
    list[#list + 1] = entry
  end
  return list
end

local function find(list, part)
  for _, entry in ipairs(list) do
    if entry.message:find(part, 1, true) then
      return entry
    end
  end
end

local function wait_for(result, text)
  local deadline = task.monotonic() + DEADLINE
  while not result.stderr:find(text, 1, true) do
    assert(task.monotonic() < deadline, "no " .. text .. " in: " .. shown(result.stderr))
    task.sleep(0.01)
  end
end

-- A directory of this spec's own with these files; gone when the scope ends.
local function directory(files)
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute(("mkdir -p '%s/rouse'"):format(path)))
  for name, text in pairs(files) do
    local file <close> = assert(io.open(path .. "/" .. name, "w"))
    file:write(text)
  end
  return setmetatable({ path = path }, { __close = function() os.execute(("rm -r '%s'"):format(path)) end })
end

-- Runs one script; its file is `script.lua`.
local function run_script(text, args, env)
  local dir <close> = directory { ["script.lua"] = text }
  return run({ "run", dir.path .. "/script.lua", table.unpack(args or {}) }, env)
end

describe("rouse", function()
  in_task("prints its version", function()
    local result = run { "--version" }
    assert.equal(0, result.code)
    assert.is_truthy(result.stdout:find "^rouse %d+%.%d+%.%d+%S* %(Lua 5%.4, librdkafka %d")
    assert.equal("", result.stderr)
  end)

  in_task("helps at every level, on stdout", function()
    local result = run { "--help" }
    assert.equal(0, result.code)
    assert.equal("", result.stderr)
    for _, name in ipairs(COMMANDS) do
      has(result.stdout, "\n   " .. name)
      local own = run { name, "--help" }
      assert.equal(0, own.code)
      has(own.stdout, "Usage: rouse " .. name)
      assert.equal("", own.stderr)
    end
  end)

  in_task("ends with 2 without a command and tells the usage", function()
    local result = run {}
    assert.equal(2, result.code)
    assert.equal("", result.stdout)
    has(result.stderr, "Usage: rouse")
    has(result.stderr, "observer")
  end)

  in_task("ends with 2 on what it does not know, and names the nearest", function()
    for _, case in ipairs {
      { { "obsever" }, "Did you mean 'observer'?" },
      { { "quux" }, "unknown command 'quux'" },
      { { "--verson" }, "Did you mean '--version'?" },
      { { "check", "--conect" }, "Did you mean '--connect'?" },
      { { "observer", "extra" }, "too many arguments" },
      { { "run" }, "missing argument 'script'" },
      { { "mock", "--topic", "payments" }, "--topic payments: expected NAME:PARTITIONS" },
      { { "mock", "--http-port", "many" }, "--http-port" },
      { { "demo", "--seconds", "soon" }, "--seconds" },
      { { "dlq" }, "a command is required" },
      { { "dlq", "lst" }, "Did you mean 'list'?" },
      { { "dlq", "show", "dead", "17" }, "'17' is not PARTITION/OFFSET" },
    } do
      local result = run(case[1])
      assert.equal(2, result.code, table.concat(case[1], " "))
      assert.equal("", result.stdout)
      has(result.stderr, case[2])
    end
  end)

  in_task("refuses a log level it does not know", function()
    local result = run({ "check" }, { ROUSE_LOG_LEVEL = "loud" })
    assert.equal(78, result.code)
    has(lines(result.stderr)[1].message, "ROUSE_LOG_LEVEL")
  end)

  in_task("writes text where it is told to", function()
    local result = run({ "run", "/nonexistent.lua" }, { ROUSE_LOG_FORMAT = "text" })
    assert.is_truthy(result.stderr:find "^ERROR /nonexistent%.lua")
  end)

  in_task("reads a module of the library from ROUSE_LUA", function()
    local dir <close> = directory { ["rouse/backoff.lua"] = "return { delay = function() return 42 end }" }
    local script = 'local backoff = require "rouse.backoff"\nreturn function() print(backoff.delay(1)) end'
    assert.equal("42\n", run_script(script, {}, { ROUSE_LUA = dir.path }).stdout)
    assert.not_equal("42\n", run_script(script).stdout)
  end)
end)

describe("rouse run", function()
  in_task("ends with 78 when the script is not there", function()
    local result = run { "run", "/nonexistent/rule.lua" }
    assert.equal(78, result.code)
    has(lines(result.stderr)[1].message, "/nonexistent/rule.lua: cannot be read")
  end)

  in_task("ends with 78 and file:line when the script does not load", function()
    for _, case in ipairs {
      { "return {\n  observe = {},\n  decide = function(\n}\n", "script.lua:4: " },
      { "return {\n  observe = {},\n  decid = function() end,\n}\n", "script.lua:3: " },
      { "return {\n  observe = {},\n  decid = function() end,\n}\n", "'decid', did you mean 'decide'?" },
      { "local verdict = require 'rouse.verdict'\nverdict.wak {}\nreturn {}", "script.lua:2: " },
      { "\nerror 'not today'", "script.lua:2: not today" },
      { "return 7", "script.lua: the script returns 7" },
      { "\nos.execute 'true'\nreturn {}", "script.lua:2: os.execute is not available" },
    } do
      local result = run_script(case[1])
      assert.equal(78, result.code, case[1])
      assert.equal("", result.stdout)
      has(lines(result.stderr)[1].message, case[2])
    end
  end)

  in_task("ends with what a free-form agent returns", function()
    local result = run_script("return function() print 'done' end")
    assert.same({ code = 0, stdout = "done\n", stderr = "" }, result)
    result = run_script("return function() return nil, 'no luck' end")
    assert.equal(1, result.code)
    assert.equal("no luck", lines(result.stderr)[1].message)
    result = run_script("return function()\n  error 'boom'\nend")
    assert.equal(1, result.code)
    has(lines(result.stderr)[1].message, "script.lua:2: boom")
  end)

  in_task("gives the script all that follows it", function()
    local script = "return function(ctx) print(table.concat(ctx.args, ' ')) end"
    assert.equal("a --help -x 1\n", run_script(script, { "a", "--help", "-x", "1" }).stdout)
    assert.equal("-x\n", run_script(script, { "--", "-x" }).stdout)
    assert.equal("\n", run_script(script).stdout)
  end)

  in_task("stops a loop without end", function()
    local result = run_script("return function()\n  local n = 0\n  while true do\n    n = n + 1\n  end\nend")
    assert.equal(1, result.code)
    local entry = lines(result.stderr)[1]
    assert.equal("CPU", entry.code)
    assert.is_truthy(entry.message:find "script%.lua:[345]: ")
  end)

  in_task("stops a loop that catches its own end", function()
    local result = run_script(
      "return function()\n  while true do\n    pcall(function() while true do end end)\n  end\nend")
    assert.equal(1, result.code)
    assert.equal("CPU", lines(result.stderr)[1].code)
  end)

  in_task("stops an agent that eats memory", function()
    local result = run_script(
      "local mega = ('x'):rep(2^23)\nreturn function()\n  local all = {}\n  while true do\n"
      .. "    all[#all + 1] = mega .. #all\n  end\nend")
    assert.equal(1, result.code)
    local entry = lines(result.stderr)[1]
    assert.equal("MEMORY", entry.code)
    has(entry.message, "script.lua:5: not enough memory (the limit is 64 MiB)")
  end)
end)

describe("rouse observer and consumer", function()
  local function read(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end

  in_task("print their scripts", function()
    for _, name in ipairs { "observer", "consumer" } do
      assert.same({ code = 0, stdout = read("scripts/" .. name .. ".lua"), stderr = "" }, run { name, "--print" })
    end
  end)

  in_task("list all that the environment lacks, and end with 78", function()
    for name, variables in pairs {
      observer = { "MESSAGEHUB_KAFKA_BROKERS_SASL", "MESSAGEHUB_USER", "MESSAGEHUB_PASSWORD", "CE_API_BASE_URL",
        "CE_PROJECT_ID", "IAM_API_KEY", "kafkadata" },
      consumer = { "MESSAGEHUB_KAFKA_BROKERS_SASL", "MESSAGEHUB_USER", "MESSAGEHUB_PASSWORD", "KAFKA_TOPIC",
        "CONSUMER_GROUP" },
    } do
      local empty = {}
      for _, variable in ipairs(variables) do
        empty[variable] = " "
      end
      for _, env in ipairs { {}, empty } do
        local result = run({ name }, env)
        assert.equal(78, result.code)
        assert.equal("", result.stdout)
        for _, variable in ipairs(variables) do
          has(result.stderr, variable .. " is not set: ")
        end
      end
    end
  end)

  in_task("do not end at once as daemons, which would be started again for ever", function()
    local dir <close> = directory { ["observer.lua"] = "return {\n  observ = {},\n}" }
    for _, env in ipairs { { JOB_MODE = "daemon" }, { JOB_MODE = "daemon", ROUSE_ETC = dir.path } } do
      for signal, code in pairs { TERM = 143, INT = 130 } do
        local child <close>, result, finish = start({ "observer" }, env)
        wait_for(result, '"level":"error"')
        local _, _, failure = child:wait { timeout = 0.2 }
        assert.equal("TIMEDOUT", failure)
        assert(child:kill(signal))
        assert.equal(code, finish().code)
      end
    end
  end)

  in_task("say which script they run; an edited one wins", function()
    local dir <close> = directory { ["observer.lua"] = "return function() print 'edited' end" }
    local result = run({ "observer" }, { ROUSE_ETC = dir.path })
    assert.equal(0, result.code)
    assert.equal("edited\n", result.stdout)
    assert.equal("running " .. dir.path .. "/observer.lua", lines(result.stderr)[1].message)
    result = run({ "consumer" }, { ROUSE_ETC = dir.path })
    assert.equal("running the packaged scripts/consumer.lua", lines(result.stderr)[1].message)
  end)

  in_task("end with 78 when the edited script is broken", function()
    local dir <close> = directory { ["consumer.lua"] = "return {\n  consume = {},\n  handel = print,\n}" }
    local result = run({ "consumer" }, { ROUSE_ETC = dir.path })
    assert.equal(78, result.code)
    has(lines(result.stderr)[2].message, "consumer.lua:3: ")
    has(lines(result.stderr)[2].message, "did you mean 'handle'?")
  end)
end)

describe("rouse with secrets", function()
  -- Characters that look different in URLs and forms, so that a copy in another form is a leak that shows.
  local function secret(name)
    return ("%s+%x/&%x="):format(name, math.floor(sys.random() * 2 ^ 40), math.floor(sys.random() * 2 ^ 40))
  end

  local function encoded(value)
    return (value:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end))
  end

  local key, password = secret "apikey", secret "password"

  local function no_secret(result)
    for _, text in ipairs { result.stdout, result.stderr } do
      for _, value in ipairs { key, password } do
        lacks(text, value)
        lacks(text, encoded(value))
        lacks(text, value:match "%x+/")
      end
    end
  end

  -- Both mocks, and the environment of an observer in them.
  local function world()
    local cluster = kafka.new { topics = { payments = 1 } }
    local engine = codeengine.new { api_key = key, jobs = {
      ["payments-consumer"] = { env = { CONSUMER_GROUP = "payments-group" } } } }
    assert(engine:start())
    return setmetatable({
      cluster = cluster, engine = engine,
      env = {
        MESSAGEHUB_KAFKA_BROKERS_SASL = cluster:bootstrap_servers(), MESSAGEHUB_USER = "token",
        MESSAGEHUB_PASSWORD = password, ROUSE_KAFKA = "security.protocol=plaintext", IAM_API_KEY = key,
        IBMCLOUD_IAM_API_ENDPOINT = engine:url(), CE_API_BASE_URL = engine:url(),
        CE_PROJECT_ID = engine.site.project, kafkadata = "payments: {jobs: [payments-consumer]}",
        ROUSE_LOG_LEVEL = "debug",
      },
    }, { __close = function()
      engine:close()
      cluster:close()
    end })
  end

  in_task("observes, wakes, ends with 143 on SIGTERM and shows none of them", function()
    local w <close> = world()
    local child <close>, result, finish = start({ "observer" }, w.env)
    wait_for(result, "observing")
    w.cluster:produce { topic = "payments", partition = 0, value = "v" }
    wait_for(result, "woke payments-consumer")
    assert(child:kill "TERM")
    assert.equal(143, finish().code)
    assert.equal("", result.stdout)
    no_secret(result)
    local log = lines(result.stderr)
    assert.is_truthy(find(log, "payments: lag mode, group payments-group from job payments-consumer"))
    local woke = find(log, "woke payments-consumer: run ")
    assert.equal("woken", woke.code)
    assert.equal(1, woke.instances)
    assert.equal(1, #w.engine:runs())
  end)

  in_task("ends with 77 when IAM refuses the key, and does not show it", function()
    local w <close> = world()
    w.env.IAM_API_KEY = key .. "x"
    local result = run({ "observer" }, w.env)
    assert.equal(77, result.code)
    assert.is_truthy(find(lines(result.stderr), "the target refused the credentials: iam: http 400"))
    no_secret(result)
  end)

  in_task("keeps them out of librdkafka's own messages", function()
    local w <close> = world()
    w.env.ROUSE_KAFKA = "security.protocol=sasl_plaintext;debug=all"
    local result = run({ "observer" }, w.env) -- the mock knows no SASL
    assert.equal(77, result.code)
    has(result.stderr, "Kafka refused the credentials: mechanism PLAIN, user token")
    no_secret(result)
    assert.is_true(#lines(result.stderr) > 20)
  end)

  in_task("keeps them out of what check says", function()
    local w <close> = world()
    w.env.ROUSE_ETC = "/nonexistent"
    local result = run({ "check", "--connect" }, w.env)
    assert.equal(0, result.code, result.stdout)
    no_secret(result)
    w.env.IAM_API_KEY, w.env.ROUSE_KAFKA = key .. "x", "sasl.password=" .. password .. ";" .. password
    result = run({ "check", "--connect" }, w.env)
    assert.equal(78, result.code)
    no_secret(result)
  end)
end)
