require "spec.helper"
local http = require "rouse.http"
local json = require "rouse.json"
local mock = require "rouse.cli.mock"
local process = require "rouse.process"
local settled = require "spec.settled"
local task = require "rouse.task"

local build = os.getenv("ROUSE_BUILD") or "build"
local ROUSE = build .. "/rouse"
local FORM = "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=mock-api-key"

-- Runs a function as a task that may not leave anything behind.
local function run(fn)
  return function()
    local before = settled()
    assert(task.run(function()
      fn()
      return true
    end))
    assert.is_true(settled() <= before)
  end
end

local function until_true(what, condition)
  local deadline = task.monotonic() + 60
  local value = condition()
  while not value do
    assert(task.monotonic() < deadline, "never happened: " .. what)
    task.sleep(0.01)
    value = condition()
  end
  return value
end

-- Starts rouse mock with arguments; its output is read from pipes.
local function start(...)
  return assert(process.spawn { command = { ROUSE, "mock", ... }, stdout = "pipe", stderr = "pipe" })
end

local function read_all(child, stream)
  local parts = {}
  local chunk = child:read { stream = stream, timeout = 60 }
  while chunk do
    parts[#parts + 1] = chunk
    chunk = child:read { stream = stream, timeout = 60 }
  end
  return table.concat(parts)
end

-- Runs rouse mock to its end.
local function finish(...)
  local child = start(...)
  local out = task.spawn(read_all, child, "stdout")
  local err = task.spawn(read_all, child, "stderr")
  local ended = assert(child:wait { timeout = 30 })
  local output, errors = out:join(), err:join()
  child:close()
  return ended.code, output, errors
end

local function read_until_ready(child)
  local text = ""
  while not text:find("# ready\n", 1, true) do
    text = text .. assert(child:read { stream = "stdout", timeout = 60 })
  end
  return text
end

local function alive(pid)
  return (os.execute(("kill -0 %s 2>/dev/null"):format(pid)))
end

-- One call of the API, with a token of its own.
local function call(base, project, request)
  local client = http.client {}
  local answer = assert(client:request { method = "POST", body = FORM, url = base .. "/identity/token",
    headers = { ["Content-Type"] = "application/x-www-form-urlencoded" } })
  request.headers = { Authorization = "Bearer " .. json.decode(answer.body).access_token }
  request.url, request.path = ("%s/v2/projects/%s%s"):format(base, project, request.path), nil
  answer = assert(client:request(request))
  client:close()
  return answer
end

local function submit(base, project, body)
  return call(base, project, { method = "POST", path = "/job_runs", json = body }).status
end

local function with_file(text, fn)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write(text)
  file:flush()
  local ok, message = pcall(fn, name)
  os.remove(name)
  assert(ok, message)
end

describe("rouse mock's arguments", function()
  it("name topics with their partitions", function()
    assert.same({ { name = "a", partitions = 1 }, { name = "B_2.c-d", partitions = 30 } },
      mock.topics { "a:1", "B_2.c-d:30" })
    assert.is_nil(mock.topics {})
    for _, wrong in ipairs { "a", "a:", ":1", "a:0", "a:1001", "a b:1", "a:x", "^a:1" } do
      local topics, message = mock.topics { wrong }
      assert.is_nil(topics)
      assert.matches("NAME:PARTITIONS", message)
    end
    assert.matches("named twice", select(2, mock.topics { "a:1", "a:2" }))
  end)

  it("are quoted for a shell when they come out again", function()
    assert.equal("http://127.0.0.1:1/x", mock.quote("http://127.0.0.1:1/x"))
    for _, value in ipairs { "", "it's", '["a:1"]', "{a: [b]}", "$HOME `x` \\ \"", "a\nb", "*", "~" } do
      local pipe <close> = assert(io.popen("printf %s " .. mock.quote(value)))
      assert.equal(value, pipe:read("a"))
    end
  end)

  it("are checked before anything starts", run(function()
    for _, wrong in ipairs { { "--topic", "a" }, { "--http-port", "x" }, { "--http-port", "70000" },
      { "--topik", "a:1" } } do
      local code, output, errors = finish(table.unpack(wrong))
      assert.equal(2, code)
      assert.equal("", output)
      assert.is_true(#errors > 0)
    end
    local code, _, errors = finish("--jobs", "/no/such/file")
    assert.equal(78, code)
    assert.matches("/no/such/file", errors)
    with_file("a: {command: x}\nb: 1\n", function(name)
      code, _, errors = finish("--jobs", name)
      assert.equal(78, code)
      assert.matches(name .. ":1:14: command", errors, 1, true)
      assert.matches(name .. ":2:4: the job", errors, 1, true)
    end)
  end))
end)

describe("rouse mock", function()
  it("prints what a shell takes, serves any client, and ends by SIGTERM", run(function()
    local child = start()
    local lines, env = {}, {}
    for line in read_until_ready(child):gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.equal("# ready", table.remove(lines))
    for _, line in ipairs(lines) do
      local name = assert(line:match("^export ([%a_]+)="), line)
      local pipe <close> = assert(io.popen(line .. '; printf %s "$' .. name .. '"'))
      env[name] = pipe:read("a")
    end
    for _, name in ipairs { "MESSAGEHUB_KAFKA_BROKERS_SASL", "MESSAGEHUB_USER", "MESSAGEHUB_PASSWORD",
      "ROUSE_KAFKA", "IAM_API_KEY", "IBMCLOUD_IAM_API_ENDPOINT", "CE_API_BASE_URL", "CE_REGION",
      "CE_PROJECT_ID", "kafkadata", "IDLE_TIMEOUT", "KAFKA_TOPIC", "CONSUMER_GROUP" } do
      assert.is_string(env[name], name)
    end
    assert.matches("^127%.0%.0%.1:%d+$", json.decode(env.MESSAGEHUB_KAFKA_BROKERS_SASL)[1])
    assert.matches("^security%.protocol=plaintext;", env.ROUSE_KAFKA)
    local answer = call(env.CE_API_BASE_URL, env.CE_PROJECT_ID, { path = "/jobs" })
    local names = {}
    for _, job in ipairs(json.decode(answer.body).jobs) do names[job.name] = true end
    assert.same({ ["payments-consumer"] = true, ["shipping-consumer"] = true }, names)
    child:kill("TERM")
    assert.equal(0, assert(child:wait { timeout = 60 }).code)
    child:close()
  end))

  it("runs a command in that environment and ends with its exit code", run(function()
    local code, output = finish("--topic", "orders.v1:2", "--", "sh", "-c",
      'echo "$kafkadata|$KAFKA_TOPIC|$CONSUMER_GROUP"; exit 7')
    assert.equal(7, code)
    assert.equal("{orders.v1: {partitions: 2, jobs: [orders-v1-consumer]}}|orders.v1|orders.v1-group\n",
      output)
    assert.equal(143, (finish("--", "sh", "-c", "kill -TERM $$")))
    local missing, _, errors = finish("--", "/no/such/command")
    assert.equal(127, missing)
    assert.matches("/no/such/command", errors)
  end))

  it("executes the jobs of a file, and leaves no process", run(function()
    with_file([[
stays: {command: [sh, -c, "echo pid $$ index $JOB_INDEX group $G at $CE_API_BASE_URL; exec sleep 300"], env: {G: g}}
]], function(jobs)
      local child = start("--jobs", jobs, "--", "sh", "-c",
        "echo command $$ at $CE_API_BASE_URL project $CE_PROJECT_ID; exec sleep 300")
      local output, errors = "", ""
      local command, base, project = until_true("the command", function()
        output = output .. (child:read { stream = "stdout", timeout = 0.05 } or "")
        return output:match("\n") and output
      end):match("command (%d+) at (%S+) project (%S+)")
      assert.equal(404, submit(base, project, { job_name = "nobody" }))
      assert.equal(202, submit(base, project, { job_name = "stays", scale_array_spec = "3" }))
      local pid, index, group, url = until_true("the job", function()
        errors = errors .. (child:read { stream = "stderr", timeout = 0.05 } or "")
        return errors:match("pid %d+[^\n]*\n") and errors
      end):match("pid (%d+) index (%d+) group (%w+) at (http:%S+)")
      assert.same({ "3", "g" }, { index, group })
      assert.matches("^http://127", url)
      assert.is_true(alive(pid) and alive(command))
      child:kill("TERM")
      assert.equal(143, assert(child:wait { timeout = 60 }).code)
      child:close()
      until_true("the end of all", function() return not alive(pid) and not alive(command) end)
    end)
  end))
end)
