require "spec.helper"
local log = require "rouse.log"
local script = require "rouse.script"
local sources = require "rouse.observer.sources"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local with_observer = require "spec.observer.world"

-- A directory of this spec's own.
local function directory()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute(("mkdir '%s'"):format(path)))
  return setmetatable({ path = path }, { __close = function() os.execute(("rm -rf '%s'"):format(path)) end })
end

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

local PAYMENTS = "payments: {jobs: [payments-consumer]}\n"
local BOTH = PAYMENTS .. "shipping: {jobs: [shipping-consumer]}\n"
local WAKE = 'local verdict = require "rouse.verdict"\nreturn { observe = {},\n'
  .. '  decide = function() return verdict.wake { reason = "%s" } end }\n'

-- What the log said while a spec ran: { level, message, fields }.
local said, real
-- How often a file was read.
local looks, read_file

local function heard(level, part)
  local count = 0
  for _, line in ipairs(said) do
    if line.level == level and line.message:find(part, 1, true) then count = count + 1 end
  end
  return count
end

-- An observer whose script and kafkadata are files in a directory. files: name → text; main: the script's name.
local function with_files(files, play, more)
  local dir <close> = directory()
  for name, text in pairs(files) do write(dir.path .. "/" .. name, text) end
  local main = dir.path .. "/rule.lua"
  local read = sources.new()
  local options = { env = { ROUSE_KAFKADATA = dir.path .. "/kafkadata" }, run = { watch = 0.1 } }
  for name, value in pairs(more or {}) do options[name] = value end
  if files["rule.lua"] then
    local function load(reader) return script.load(main, { read = reader }) end
    options.run.load, options.run.script_files = load, read
    task.run(function() options.script = assert(load(read.reader)).table end)
  end
  with_observer(options, function(w)
    w.dir = dir.path
    function w.write(name, text) write(dir.path .. "/" .. name, text) end
    function w:generation(number)
      return self:wait("generation " .. number, function()
        local status = self:status()
        return status.reload.generation >= number and status
      end)
    end
    w:ready()
    play(w)
  end)
end

local function jobs(status)
  local list = {}
  for i, unit in ipairs(status.units) do list[i] = unit.job end
  return list
end

describe("hot reload", function()
  before_each(function()
    said, real, looks, read_file = {}, {}, 0, sys.read_file
    sys.read_file = function(path)
      looks = looks + 1
      return read_file(path)
    end
    for _, level in ipairs { "info", "warn", "error" } do
      real[level] = log[level]
      log[level] = function(message, fields) said[#said + 1] = { level = level, message = message, fields = fields } end
    end
  end)

  after_each(function()
    for level, fn in pairs(real) do log[level] = fn end
    sys.read_file = read_file
  end)

  it("takes a new route, wakes for it, and leaves what was there alone", function()
    with_files({ kafkadata = PAYMENTS }, function(w)
      w:produce("payments", 0)
      local first = w:submits(1)[1].name
      w:wait("the run", function() return w:status().units[1].runs[1] end)
      w.write("kafkadata", BOTH)
      local status = w:generation(2)
      assert.same({ "payments-consumer", "shipping-consumer" }, jobs(status))
      assert.equal("covered", status.units[1].parts[1].state)
      assert.equal(first, status.units[1].woken.inputs.name)
      w:produce("shipping", 1)
      local submits = w:submits(2)
      assert.equal("shipping-consumer", submits[2].job)
      assert.equal(2, #submits)
      assert.equal(1, heard("info", "shipping: lag mode"))
      assert.equal(1, heard("info", "payments: lag mode"))
    end)
  end)

  it("disarms a route that is gone", function()
    with_files({ kafkadata = BOTH }, function(w)
      w.write("kafkadata", PAYMENTS)
      assert.same({ "payments-consumer" }, jobs(w:generation(2)))
      w:produce("shipping", 0)
      w:produce("payments", 3)
      local submits = w:submits(1)
      assert.same({ 1, "payments-consumer" }, { #submits, submits[1].job })
    end)
  end)

  it("changes nothing for a bad file, and says so once, with file and line", function()
    with_files({ kafkadata = PAYMENTS }, function(w)
      w.write("kafkadata", "payments: {jobs: [payments-consumer]}\nshipping: {jobz: [x]}\n")
      local status = w:wait("the refusal", function()
        local status = w:status()
        return status.reload.error and status
      end)
      assert.equal(1, status.reload.generation)
      assert.is_truthy(status.reload.error.message:find("kafkadata:2:12: ", 1, true), status.reload.error.message)
      assert.same({ "payments-consumer" }, jobs(status))
      local before = looks
      w:wait("more looks", function() return looks > before + 5 end)
      assert.equal(1, heard("error", "reload refused, nothing is changed: "))
      w:produce("payments", 0)
      w:submits(1)
      w.write("kafkadata", PAYMENTS .. "\n")
      assert.is_nil(w:generation(2).reload.error)
    end)
  end)

  it("asks a new rule, and keeps the running one where it is broken", function()
    with_files({ kafkadata = PAYMENTS, ["rule.lua"] = WAKE:format "first" }, function(w)
      w.write("rule.lua", "return {\n  observe = {},\n  decid = function() end,\n}\n")
      w:wait("the refusal", function() return heard("error", "rule.lua:3: ") == 1 end)
      assert.equal(1, w:status().reload.generation)
      w.write("rule.lua", "return {\n  consume = {}, handle = function() end }\n")
      w:wait("the refusal", function() return heard("error", "it is no observer") == 1 end)
      w:produce("payments", 0)
      w:submits(1)
      w:wait("the reason", function()
        local woken = w:status().units[1].woken
        return woken and woken.reason == "first"
      end)
      w.write("rule.lua", WAKE:format "second")
      w:generation(2)
      w:produce("payments", 1)
      w:submits(2)
      w:wait("the new reason", function() return w:status().units[1].woken.reason == "second" end)
    end)
  end)

  it("watches modules beside the script, and a script that is swapped with its directory", function()
    local main = 'local texts = require "texts"\nlocal verdict = require "rouse.verdict"\n'
      .. "return { observe = {}, decide = function() return verdict.wake { reason = texts.reason } end }\n"
    with_files({ kafkadata = PAYMENTS, ["rule.lua"] = main, ["texts.lua"] = 'return { reason = "first" }' }, function(w)
      local files = w:status().reload.files
      assert.is_truthy(table.concat(files, " "):find("texts.lua", 1, true))
      -- As a mounted config map does it: a link to a directory is moved over the one before.
      assert(os.execute(("cd '%s' && mkdir v2 && mv texts.lua v2 && ln -s v2/texts.lua texts.lua"):format(w.dir)))
      assert(os.execute(("cd '%s' && mkdir v3 && echo 'return { reason = \"second\" }' >v3/texts.lua"):format(w.dir)))
      assert(os.execute(("cd '%s' && ln -s v3/texts.lua new && mv -T new texts.lua"):format(w.dir)))
      w:generation(2)
      w:produce("payments", 0)
      w:submits(1)
      w:wait("the new reason", function()
        local woken = w:status().units[1].woken
        return woken and woken.reason == "second"
      end)
    end)
  end)

  it("keeps what an unchanged script remembers", function()
    local counting = 'local verdict = require "rouse.verdict"\nlocal count = 0\nreturn { observe = {}, decide = function()\n'
      .. '  count = count + 1\n  return verdict.wake { reason = "call " .. count } end }\n'
    with_files({ kafkadata = PAYMENTS, ["rule.lua"] = counting }, function(w)
      w:produce("payments", 0)
      w:submits(1)
      w.write("kafkadata", BOTH)
      w:generation(2)
      w:produce("shipping", 0)
      w:submits(2)
      w:wait("the second call", function()
        local woken = w:status().units[2].woken
        return woken and woken.reason == "call 2"
      end)
    end)
  end)

  it("reads its files at SIGHUP, and goes on; SIGTERM ends it as ever", function()
    with_files({ kafkadata = PAYMENTS }, function(w)
      w.signals:send "HUP"
      w:generation(2)
      w.write("kafkadata", BOTH)
      w.signals:send "HUP"
      assert.same({ "payments-consumer", "shipping-consumer" }, jobs(w:generation(3)))
      w.write("kafkadata", "payments: [")
      w.signals:send "HUP"
      w:wait("the refusal", function() return heard("error", "reload refused") == 1 end)
      w.signals:send "HUP"
      w:wait("the second refusal", function() return heard("error", "reload refused") == 2 end)
    end, { run = { watch = 3600 } })
  end)

  it("joins the claims group when the new script reads records, and leaves it again", function()
    with_files({ kafkadata = PAYMENTS, ["rule.lua"] = WAKE:format "lag" }, function(w)
      w.write("rule.lua", 'return { observe = {}, on_record = function() return { job = "payments-consumer" } end }\n')
      local status = w:generation(2)
      assert.equal("claims", status.units[1].mode)
      assert.equal("observer-group", status.claims.group)
      w.write("rule.lua", WAKE:format "lag")
      status = w:generation(3)
      assert.equal("lag", status.units[1].mode)
      assert.is_nil(status.claims)
      w:produce("payments", 2)
      assert.equal("2", w:submits(1)[1].indices)
    end)
  end)

  it("says what takes a new start", function()
    local changed = 'return { observe = { kafka = { ["client.id"] = "another" } } }\n'
    with_files({ kafkadata = PAYMENTS, ["rule.lua"] = WAKE:format "first" }, function(w)
      w.write("rule.lua", changed)
      assert.same({ "Kafka's properties or credentials" }, w:generation(2).reload.waiting)
      assert.equal(1, heard("warn", "that takes a new start"))
      w.write("rule.lua", WAKE:format "first")
      assert.same({}, w:generation(3).reload.waiting)
    end)
  end)

  it("reads the definitions of new jobs only", function()
    with_files({ kafkadata = PAYMENTS }, function(w)
      assert.equal(1, w.mock.codeengine:counters().requests.job)
      w.write("kafkadata", BOTH)
      w:generation(2)
      assert.equal(2, w.mock.codeengine:counters().requests.job)
    end)
  end)
end)
