-- run.sh against a command line that only pretends: spec/stub/ibmcloud records the calls and knows
-- what exists.
require "spec.helper"

local KEY = "s3cret/key+value="
local SERVICE = "my event streams"

---@param command string
---@return string output, integer code
local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  return output, code or 0
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

describe("run.sh", function()
  local state, copy

  before_each(function()
    state = shell("mktemp -d"):gsub("%s+$", "")
    copy = state .. "/copy"
    assert.equal("", (shell(("mkdir %s && cp -r run.sh scripts resources %s"):format(copy, copy))))
  end)

  after_each(function()
    shell("rm -rf " .. quote(state))
  end)

  --- Runs it with nothing of the caller's environment but PATH.
  local function run(arguments, environment)
    local words = { "env -i", "PATH=" .. quote("spec/stub:" .. os.getenv("PATH")),
      "HOME=" .. quote(state), "TMPDIR=" .. quote(state), "STUB_STATE=" .. quote(state) }
    for name, value in pairs(environment or { IAM_API_KEY = KEY, ES_SERVICE_INSTANCE = SERVICE }) do
      words[#words + 1] = name .. "=" .. quote(value)
    end
    return shell(table.concat(words, " ") .. " " .. copy .. "/run.sh " .. (arguments or ""))
  end

  local function calls(pattern)
    local found = {}
    for line in (read(state .. "/calls") or ""):gmatch("[^\n]+") do
      if line:find(pattern) then found[#found + 1] = line end
    end
    return found
  end

  local function forget_calls()
    os.remove(state .. "/calls")
  end

  local function existing()
    return (shell("cd " .. quote(state) .. " && ls -d */*/ | grep -v '^copy/' || true"))
  end

  local function bindings(job)
    return read(state .. "/job/" .. job .. "/bindings")
  end

  local JOBS = { "ce-kafka-observer", "payments-consumer", "shipping-consumer" }

  it("creates secret, config maps, jobs and bindings, then starts the observer", function()
    local output, code = run()
    assert.equal(0, code, output)
    assert.equal(table.concat({
      "configmap/rouse-scripts/", "configmap/topic-to-jobs/",
      "job/ce-kafka-observer/", "job/payments-consumer/", "job/shipping-consumer/",
      "jobrun/ce-kafka-observer/", "secret/authentication-secrets/", "",
    }, "\n"), existing())
    assert.equal(KEY, read(state .. "/secret/authentication-secrets/IAM_API_KEY"))
    assert.equal(read("resources/kafkadata"), read(state .. "/configmap/topic-to-jobs/kafkadata"))
    for _, script in ipairs { "observer.lua", "consumer.lua" } do
      assert.equal(read("scripts/" .. script), read(state .. "/configmap/rouse-scripts/" .. script))
    end
    for _, job in ipairs(JOBS) do
      local options = read(state .. "/job/" .. job .. "/options")
      assert.truthy(options:find("--mode daemon\n", 1, true), job)
      assert.truthy(options:find("--mount-configmap /etc/rouse=rouse-scripts\n", 1, true), job)
      assert.truthy(options:find("--build-source " .. copy .. "\n", 1, true), job)
      assert.equal(SERVICE .. "\n", bindings(job))
    end
  end)

  it("tells each job its role and what it may use", function()
    run()
    local observer = read(state .. "/job/ce-kafka-observer/options")
    for _, option in ipairs { "--argument observer", "--cpu 0.125", "--memory 0.25G",
      "--env-from-secret authentication-secrets", "--env-from-configmap topic-to-jobs" } do
      assert.truthy(observer:find(option .. "\n", 1, true), option)
    end
    for topic, job in pairs { payments = "payments-consumer", shipping = "shipping-consumer" } do
      local options = read(state .. "/job/" .. job .. "/options")
      for _, option in ipairs { "--argument consumer", "--env KAFKA_TOPIC=" .. topic,
        "--env CONSUMER_GROUP=" .. job .. "-group", "--env ROUSE_ASSIGN=index" } do
        assert.truthy(options:find(option .. "\n", 1, true), job .. ": " .. option)
      end
      assert.falsy(options:find("authentication-secrets", 1, true), "no API key for consumers")
      assert.falsy(options:find("CE_REMOVE_COMPLETED_JOBS", 1, true))
    end
    local submit = "ce jobrun submit --job ce-kafka-observer --name ce-kafka-observer"
    assert.same({ submit .. " --cpu 0.125 --memory 0.25G" }, calls("jobrun submit"))
  end)

  it("binds before it submits", function()
    run()
    local all = calls("bind %-%-name")
    local everything = calls(".")
    assert.equal(3, #all)
    assert.truthy(everything[#everything]:find("jobrun submit", 1, true))
  end)

  it("updates on the second run, binds nothing again and replaces the observer's run", function()
    run()
    forget_calls()
    local output, code = run(nil,
      { IAM_API_KEY = "another", ES_SERVICE_INSTANCE = SERVICE, STUB_LINGER = "1" })
    assert.equal(0, code, output)
    assert.same({}, calls(" create "))
    assert.same({}, calls(" bind "))
    assert.equal(6, #calls(" update "))
    assert.equal("another", read(state .. "/secret/authentication-secrets/IAM_API_KEY"))
    for _, job in ipairs(JOBS) do assert.equal(SERVICE .. "\n", bindings(job)) end
    assert.equal(1, #calls("jobrun delete"))
    assert.equal(1, #calls("jobrun submit"))
    assert.is_nil(read(state .. "/jobrun/ce-kafka-observer/dying"), "not the dying one")
  end)

  it("binds a job that is bound to another instance only", function()
    run()
    local file = assert(io.open(state .. "/job/payments-consumer/bindings", "w"))
    file:write("my event streams 2x\n"):close()
    file = assert(io.open(state .. "/job/shipping-consumer/bindings", "w"))
    file:write("not my event streams\n"):close()
    forget_calls()
    local output, code = run()
    assert.equal(0, code, output)
    assert.equal("my event streams 2x\n" .. SERVICE .. "\n", bindings("payments-consumer"))
    assert.equal("not my event streams\n" .. SERVICE .. "\n", bindings("shipping-consumer"))
  end)

  it("takes scripts that are gone out of the config map", function()
    run()
    shell("cp scripts/observer.lua " .. copy .. "/scripts/mine.lua")
    run()
    assert.truthy(read(state .. "/configmap/rouse-scripts/mine.lua"))
    os.remove(copy .. "/scripts/mine.lua")
    local output, code = run()
    assert.equal(0, code, output)
    assert.is_nil(read(state .. "/configmap/rouse-scripts/mine.lua"))
    assert.truthy(read(state .. "/configmap/rouse-scripts/observer.lua"))
  end)

  it("takes over from an earlier deployment", function()
    run()
    local file = assert(io.open(state .. "/job/payments-consumer/options", "a"))
    file:write("--env CE_REMOVE_COMPLETED_JOBS=IMMEDIATELY\n"):close()
    shell("mkdir " .. state .. "/jobrun/kafka-observer")
    forget_calls()
    local output, code = run()
    assert.equal(0, code, output)
    assert.equal(1, #calls("%-%-env%-rm CE_REMOVE_COMPLETED_JOBS"))
    assert.equal(1, #calls("job update %-%-name payments%-consumer .*%-%-env%-rm"))
    assert.falsy(existing():find("jobrun/kafka-observer/", 1, true))
  end)

  it("clean removes everything, and again has nothing to complain about", function()
    run()
    local output, code = run("clean", {}) -- no key needed to remove things
    assert.equal(0, code, output)
    assert.equal("", existing())
    assert.equal(3, #calls("job unbind"))
    forget_calls()
    output, code = run("clean", {})
    assert.equal(0, code, output)
    assert.equal(0, #calls("job unbind"))
  end)

  it("clean goes on after a failure, and says what is left", function()
    run()
    local output, code = run("clean", { STUB_FAIL = "job unbind --name payments-consumer" })
    assert.equal(1, code)
    assert.truthy(output:find("stub: told to fail", 1, true))
    assert.truthy(output:find("failed:\n  unbind job payments-consumer\n", 1, true), output)
    assert.equal("", existing())
  end)

  it("lists all that is missing in the environment, with what it is for", function()
    for _, environment in ipairs { {}, { IAM_API_KEY = "", ES_SERVICE_INSTANCE = "" } } do
      local output, code = run(nil, environment)
      assert.equal(78, code)
      assert.truthy(output:find("IAM_API_KEY +the API key"), output)
      assert.truthy(output:find("ES_SERVICE_INSTANCE +the name"), output)
    end
    local output, code = run(nil, { IAM_API_KEY = KEY })
    assert.equal(78, code)
    assert.falsy(output:find("IAM_API_KEY", 1, true))
    assert.same({}, calls("."), "nothing is asked of Code Engine")
  end)

  it("shows the key nowhere: no output, no command line, no file left behind", function()
    local output = run()
    output = output .. run()
      .. run(nil, { IAM_API_KEY = KEY, ES_SERVICE_INSTANCE = SERVICE, STUB_FAIL = "secret update" })
    assert.falsy(output:find(KEY, 1, true))
    assert.falsy(read(state .. "/calls"):find("s3cret", 1, true))
    shell("rm -r " .. state .. "/secret")
    assert.equal("", (shell("grep -rl s3cret " .. quote(state) .. " || true")))
  end)

  it("stops at the first command that fails, with its message and ours", function()
    local output, code = run(nil, { IAM_API_KEY = KEY, ES_SERVICE_INSTANCE = SERVICE,
      STUB_FAIL = "job create --name shipping-consumer" })
    assert.equal(1, code)
    assert.truthy(output:find("stub: told to fail", 1, true))
    assert.truthy(output:find("'ibmcloud ce job create shipping-consumer' failed", 1, true), output)
    assert.same({}, calls("bind"))
    assert.same({}, calls("submit"))
    output, code = run() -- and the next run picks up where it stopped
    assert.equal(0, code, output)
    assert.equal(1, #calls("submit"))
  end)

  it("refuses without a project, for an unknown instance, and words it does not know", function()
    local output, code = run(nil,
      { IAM_API_KEY = KEY, ES_SERVICE_INSTANCE = SERVICE, STUB_PROJECT = "none" })
    assert.equal(69, code)
    assert.truthy(output:find("project select", 1, true))
    output, code = run("clean", { STUB_PROJECT = "none" })
    assert.equal(69, code, output)
    output, code = run(nil, { IAM_API_KEY = KEY, ES_SERVICE_INSTANCE = "other" })
    assert.equal(78, code)
    assert.truthy(output:find("'other'", 1, true))
    output, code = run("klean")
    assert.equal(2, code)
    assert.truthy(output:find("usage: run.sh", 1, true))
    assert.equal("", existing())
  end)

  it("explains itself", function()
    local output, code = run("--help", {})
    assert.equal(0, code)
    assert.truthy(output:find("IAM_API_KEY", 1, true))
    assert.truthy(output:find("ES_SERVICE_INSTANCE", 1, true))
    assert.same({}, calls("."))
  end)
end)
