require "spec.helper"
local http = require "rouse.http"
local log = require "rouse.log"
local process = require "rouse.process"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local verdict = require "rouse.verdict"
local with_observer = require "spec.observer.world"

local PROGRAM = (os.getenv "ROUSE_BUILD" or "build") .. "/rouse"

local function job_of(status, name)
  for _, unit in ipairs(status.units) do
    if unit.job == name then return unit end
  end
end

describe("admin endpoint", function()
  it("answers probes, and tells all there is under /", function()
    with_observer({}, function(w)
      w:ready()
      assert.equal("ok\n", w:get("/livez").body)
      assert.equal("ok\n", w:get("/readyz").body)
      local index = w:get("/")
      assert.equal(200, index.status)
      for _, path in ipairs { "/livez", "/readyz", "/status" } do
        assert.is_truthy(index.body:find(path, 1, true))
      end
      assert.equal(404, w:get("/nothing").status)
      local answer = w.http:request { method = "POST", url = ("http://127.0.0.1:%d/status"):format(w.port) }
      assert.equal(405, answer.status)
      assert.equal("GET, HEAD", answer.headers.allow)
    end)
  end)

  it("tells routes, jobs, partitions and what is waited for", function()
    with_observer({}, function(w)
      local status = w:ready()
      assert.is_true(status.ready)
      assert.is_true(status.kafka.reachable)
      assert.same({ "payments-consumer" }, status.routes[1].jobs)
      assert.same({ "payments-consumer/payments-group" }, status.routes[1].units)
      assert.equal("payments: lag mode, group payments-group from job payments-consumer", status.routes[1].why)
      assert.same({ { name = "payments", partitions = 4 } }, status.routes[1].topics)
      w:wait("four armed partitions", function()
        local unit, armed = job_of(w:status(), "payments-consumer"), 0
        for _, part in ipairs(unit.parts) do armed = armed + (part.armed == 0 and part.state == "quiet" and 1 or 0) end
        return armed == 4
      end)
      w:produce("payments", 2)
      local name = w:submits(1)[1].name
      local unit = w:wait("the run", function()
        local found = job_of(w:status(), "payments-consumer")
        return found.runs[1] and found.woken and found
      end)
      assert.equal(name, unit.runs[1].name)
      assert.equal("covered", unit.parts[3].state)
      assert.equal(0, unit.parts[3].proof)
      assert.equal("records wait", unit.woken.reason)
      assert.equal(name, unit.woken.inputs.name)
    end)
  end)

  it("tells about one job", function()
    with_observer({}, function(w)
      w:ready()
      local status = w:status { job = "shipping-consumer" }
      assert.equal(1, #status.routes)
      assert.equal(1, #status.units)
      assert.equal("shipping", status.routes[1].topic)
      assert.same({}, w:status { job = "nobody" }.routes)
    end)
  end)

  it("tells what a route lacks", function()
    with_observer({ env = { kafkadata = "absent: {jobs: [payments-consumer]}\npayments: {partitions: 9, jobs: [gone]}\n" } },
      function(w)
        local status = w:ready()
        assert.equal("the topic does not exist (yet)", status.routes[1].problem)
        assert.is_truthy(status.routes[2].problem:find "kafkadata says 9 partitions, the cluster has 4")
      end)
  end)

  it("lets no secret out", function()
    log.secret "hush-hush-hush"
    local script = { observe = {}, decide = function()
      return verdict.wait { seconds = 60, reason = "because of hush-hush-hush \xff" }
    end }
    with_observer({ script = script, before = function(w) w:produce("payments", 0) end }, function(w)
      w:ready()
      local reason = w:wait("the wait", function()
        local decision = job_of(w:status(), "payments-consumer").decision
        return decision and decision.code == "wait" and decision.reason
      end)
      assert.equal("because of *** ?", reason)
      assert.is_nil(w:get("/status").body:find("mock-api-key", 1, true))
      assert.is_nil(w:get("/status").body:find("mock-password", 1, true))
    end)
  end)

  it("is off where it is told to be, and where its port is taken", function()
    with_observer({ env = { ROUSE_ADMIN = "off" }, before = function(w) w:produce("payments", 0) end }, function(w)
      w:submits(1)
      local _, _, code = w:get("/livez")
      assert.equal("CONNECT", code)
    end)
    with_observer({ before = function(w)
      w.squatter = assert(http.server { port = w.port })
      w:produce("payments", 0)
    end }, function(w)
      w:submits(1)
      w.squatter:close()
    end)
  end)

  it("says that it waits for Kafka", function()
    with_observer({ before = function(w) w.mock.kafka:broker_down(1) end }, function(w)
      w:wait("the endpoint", function() return w:get("/livez") end)
      local answer = w:get("/readyz")
      assert.same({ 503, "starting: waiting for Kafka\n" }, { answer.status, answer.body })
      assert.same({}, w:status().units)
      w.mock.kafka:broker_up(1)
      w:ready()
    end)
  end)
end)

describe("rouse explain", function()
  -- Runs the program; returns its exit code and what it wrote.
  local function run(...)
    local env = sys.environ()
    local child <close> = assert(process.spawn { command = { PROGRAM, ... }, env = env, stdout = "pipe", stderr = "pipe" })
    local output = { stdout = "", stderr = "" }
    for _, stream in ipairs { "stdout", "stderr" } do
      local chunk = child:read { stream = stream, timeout = 60 }
      while chunk do
        output[stream] = output[stream] .. chunk
        chunk = child:read { stream = stream, timeout = 60 }
      end
    end
    return assert(child:wait { timeout = 60 }).code, output.stdout, output.stderr
  end

  it("asks a running observer", function()
    with_observer({ before = function(w) w:produce("payments", 1) end }, function(w)
      w:submits(1)
      w:ready()
      w:wait("the run's end of the story", function()
        local decision = job_of(w:status(), "payments-consumer").decision
        return decision and decision.code == "covered"
      end)
      local where = "127.0.0.1:" .. w.port
      local code, text = run("explain", "--address", where)
      assert.equal(0, code)
      for _, expected in ipairs { "payments: lag mode, group payments-group from job payments-consumer",
        "shipping/2 ", "quiet, rings at 0", "payments/1 ", "run payments-consumer-",
        "; records wait" } do
        assert.is_truthy(text:find(expected, 1, true), expected .. " in " .. text)
      end
      for line in text:gmatch "[^\n]+" do
        assert.is_true(#line <= 120, line)
      end
      code, text = run("explain", "--address", where, "--job", "shipping-consumer")
      assert.equal(0, code)
      assert.is_nil(text:find "payments")
      code, text = run("explain", "--address", where, "--json")
      assert.equal(0, code)
      assert.equal("payments", assert(require "rouse.json".decode(text)).routes[1].topic)
      local _, message
      code, _, message = run("explain", "--address", where, "--job", "nobody")
      assert.equal(1, code)
      assert.is_truthy(message:find "no route names the job nobody")
    end)
  end)

  it("ends with 69 where no observer answers, with 2 and 78 on addresses that are none", function()
    task.run(function()
      local server = assert(http.server { port = 0 })
      local where = "127.0.0.1:" .. server:port()
      server:close()
      local code, _, message = run("explain", "--address", where)
      assert.equal(69, code)
      assert.is_truthy(message:find("no observer answers at " .. where, 1, true))
      code, _, message = run("explain", "--address", "here")
      assert.equal(2, code)
      assert.is_truthy(message:find "expected PORT or HOST:PORT")
    end)
  end)

  it("ends with 69 where somebody else answers", function()
    task.run(function()
      local server = assert(http.server { port = 0 })
      local serving = task.spawn(function() server:serve(function() return { json = { hello = "world" } } end) end)
      local code, _, message = run("explain", "--address", tostring(server:port()))
      assert.equal(69, code)
      assert.is_truthy(message:find "somebody else")
      server:close()
      serving:join()
    end)
  end)
end)
