-- The documents are true: their examples run, what the program has is in them, and what they name is there.
require "spec.helper"
local json = require "rouse.json"
local kafkadata = require "rouse.config.kafkadata"
local process = require "rouse.process"
local sandbox = require "rouse.sandbox"
local script = require "rouse.script"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local verdict = require "rouse.verdict"

local DEADLINE = 60
local BUILD = os.getenv "ROUSE_BUILD" or "build"
local PROGRAM = BUILD .. "/rouse"
local COMMANDS = { "observer", "consumer", "run", "check", "explain", "dlq", "mock", "demo" }

local function read(path)
  local file <close> = assert(io.open(path))
  return (file:read "a")
end

local README, SCRIPTING, MANUAL = read "README.md", read "SCRIPTING.md", read "resources/rouse.1"
local OPERATING = read "docs/operating.md"

-- The fenced blocks of a document in one language: { name = "FILE:LINE", text = }.
local function blocks(path, language)
  local list, number, block = {}, 0, nil
  for line in io.lines(path) do
    number = number + 1
    local fence = line:match "^```(.*)"
    if fence and block then
      if block.language == language then
        list[#list + 1] = block
      end
      block = nil
    elseif fence then
      block = { name = ("%s:%d"):format(path, number + 1), language = fence, text = "" }
    elseif block then
      block.text = block.text .. line .. "\n"
    end
  end
  assert(not block, path .. ": a block without an end")
  assert(#list > 0, path .. ": no block in " .. language)
  return list
end

-- Runs a program in this environment and what is given; returns its exit code and all it wrote.
local function run(command, more)
  return task.run(function()
    local env = sys.environ()
    for name, value in pairs(more or {}) do
      env[name] = value
    end
    local child <close> = assert(process.spawn { command = { "sh", "-c", 'exec "$@" 2>&1', "sh", table.unpack(command) },
      env = env, stdout = "pipe" })
    local text = ""
    while true do
      local chunk, message, code = child:read { timeout = DEADLINE }
      if not chunk then
        assert(code == "EOF", message)
        return assert(child:wait { timeout = DEADLINE }).code, text
      end
      text = text .. chunk
    end
  end)
end

-- A file of this text, gone when the scope ends.
local function temporary(text, suffix)
  local path = os.tmpname()
  os.remove(path)
  path = path .. suffix
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  return setmetatable({ path = path }, { __close = function() os.remove(path) end })
end

-- ---- what examples are tried with ----

local function job(fields)
  local made = {
    name = "shipping-consumer", group = "shipping-group", mode = "lag", dedup_window = 0, assign = "group",
    idle_timeout = 60, active = 0, attempt = 1, runs = {},
    partitions = {
      { topic = "shipping", partition = 0, committed = 5, low = 0, end_offset = 8, lag = 3, work = true, covered = false },
      { topic = "shipping", partition = 1, work = false, covered = false, error = "_TIMED_OUT" },
    },
  }
  for name, value in pairs(fields or {}) do
    made[name] = value
  end
  return made
end

local JOBS = {
  job(), job { attempt = 3 }, job { mode = "claims", group = false, partitions = {} },
  job { last_wake = 1000, dedup_window = 30, active = 2, name = "payments-consumer" },
}
local TIMES = { 0, 1010, 1700000000, 12 * 3600 }

local function record(offset, fields)
  local made = { topic = "payments", partition = 0, offset = offset, key = "k", headers = { { name = "h", value = "v" } },
    timestamp = 1700000000.5, timestamp_type = "create" }
  for name, value in pairs(fields or {}) do
    made[name] = value
  end
  return made
end

local RECORDS = {
  record(0), record(1, { value = "no json" }), record(2, { value = '{"amount": 0}' }),
  record(3, { value = '{"amount":123456}' }), record(4, { value = "", key = nil, headers = {} }),
}
local ANSWERS = { done = true, retry = true, dead = true }

local try = {}

function try.observer(loaded)
  local jobs = {}
  for _, route in ipairs(loaded.table.observe.routes or {}) do
    for _, each in ipairs(route.jobs) do
      jobs[each.name] = true
    end
  end
  local decide, on_record = loaded.table.decide, loaded.table.on_record
  assert.is_truthy(decide or on_record)
  local kinds = {}
  for _, now in ipairs(decide and TIMES or {}) do
    for _, each in ipairs(JOBS) do
      kinds[assert(verdict.check(decide(each, { now = now }))).kind] = true
    end
  end
  assert.is_true(not decide or kinds.wake)
  local wakes = 0
  for _, each in ipairs(on_record and RECORDS or {}) do
    wakes = wakes + #assert(verdict.wakes(on_record(each, { now = 1010 }), jobs))
  end
  assert.is_true(not on_record or wakes > 0)
end

function try.consumer(loaded)
  local seen = {}
  if loaded.table.handle then
    for attempt = 1, 2 do
      for _, each in ipairs(RECORDS) do
        local answer, reason = loaded.table.handle(each, { now = 1010, attempt = attempt, group = "g",
          produce = loaded.table.consume.transactional and function(made) assert.is_string(made.topic) end or nil })
        assert.is_true(ANSWERS[answer], tostring(answer))
        assert.is_true(answer == "done" or type(reason) == "string")
        seen[answer] = true
      end
    end
  else
    local answers = loaded.table.handle_batch(RECORDS, { now = 1010, attempt = 1, group = "g" })
    assert.equal(#RECORDS, #answers)
    for _, answer in ipairs(answers) do
      seen[answer] = true
    end
  end
  assert.is_true(seen.done)
end

function try.agent(_, text)
  local file <close> = temporary(text, ".lua")
  local code, output = run { PROGRAM, "run", file.path, "reader" }
  assert.equal(0, code, output)
  assert.is_truthy(output:find("reader", 1, true), output)
end

local function try_lua(block)
  if not block.text:find "describe%(" then
    local loaded = assert(script.load(nil, { source = block.text, name = block.name }))
    try[loaded.kind](loaded, block.text)
    return
  end
  local _, lines = block.text:gsub("\n", "")
  assert.is_true(lines <= 25, block.name .. ": an example of a spec has 25 lines or less")
  local file <close> = temporary(block.text, "_spec.lua")
  local code, output = run({ "lua5.4", "/usr/bin/busted", "-o", "plainTerminal", file.path },
    { LUA_PATH = package.path, LUA_CPATH = package.cpath })
  assert.equal(0, code, output)
  assert.is_truthy(output:find "[1-9]%d* success", output)
end

describe("README.md and SCRIPTING.md", function()
  for _, path in ipairs { "README.md", "SCRIPTING.md" } do
    for _, block in ipairs(blocks(path, "lua")) do
      it(block.name .. " runs", function() try_lua(block) end)
    end
  end

  it("show kafkadata that is right", function()
    for _, block in ipairs(blocks("README.md", "yaml")) do
      local routes, problems = kafkadata.parse(block.text, { file = block.name })
      assert(routes, table.concat(problems or {}, "\n"))
      assert.equal(2, #routes)
    end
  end)

  it("show commands that work", function()
    local known = {
      ["^make (%w+)$"] = function(target) return run { "make", "-n", target, "BUILD=" .. BUILD } end,
      ["^%./run%.sh(.*)$"] = function(words)
        assert.is_true(words == "" or words:match "^%s*(%S+)" == "clean", words)
        return run { "bash", "-n", "run.sh" }
      end,
      ["^export (.*)$"] = function(words)
        for name in words:gmatch "([%w_]+)=" do
          assert.is_truthy(read "run.sh":find(name, 1, true), name)
        end
        return 0
      end,
      ["^(build/rouse .*)$"] = function(line)
        return run({ "sh", "-c", (line:gsub("build/rouse", PROGRAM)) }, { ROUSE_ETC = "/nonexistent" })
      end,
    }
    for _, block in ipairs(blocks("README.md", "sh")) do
      for line in block.text:gmatch "[^\n]+" do
        local tried
        for pattern, try_it in pairs(known) do
          local match = line:gsub("%s*#.*", ""):match(pattern)
          if match then
            local code, output = try_it(match)
            assert.equal(0, code, output)
            tried = true
          end
        end
        assert.is_true(tried, line .. ": nobody knows how to try it")
      end
    end
  end)

  it("lead somewhere", function()
    for _, document in ipairs { README, SCRIPTING, OPERATING, read "docs/embedding.md", read "docs/consuming.md",
      read "docs/letters.md", read "docs/design.md", read "CONTRIBUTING.md" } do
      for target in document:gmatch "%]%(([^)#]+)%)" do
        local path = target:gsub("^%.%./", "")
        assert.is_true(target:find "^https?:" ~= nil or sys.exists(path) or sys.exists("docs/" .. path), target)
      end
    end
  end)

  it("stay short", function()
    for path, most in pairs { ["README.md"] = 120, ["SCRIPTING.md"] = 300, ["docs/operating.md"] = 180 } do
      local _, lines = read(path):gsub("\n", "")
      assert.is_true(lines <= most, ("%s has %d lines"):format(path, lines))
    end
  end)

  it("name the modules that scripts may require, and no others", function()
    local table_of_modules = SCRIPTING:match "| module |.-\n\n"
    for _, name in ipairs(sandbox.MODULES) do
      assert.is_truthy(table_of_modules:find("`" .. name .. "`", 1, true), name)
      require(name)
    end
    for name in table_of_modules:gmatch "`(rouse%.[%w_.]+)`" do
      local allowed = false
      for _, known in ipairs(sandbox.MODULES) do
        allowed = allowed or known == name
      end
      assert.is_true(allowed, name)
    end
  end)

  it("name functions that there are", function()
    for name, functions in pairs { task = "spawn sleep now monotonic within event queue",
      http = "client server", kafka = "consumer producer admin", json = "null array encode decode" } do
      for member in functions:gmatch "%S+" do
        assert.is_truthy(require("rouse." .. name)[member], name .. "." .. member)
        assert.is_truthy(SCRIPTING:find("%f[%w]" .. member .. "%f[%W]"), member)
      end
    end
  end)

  it("name every key of a script's table, and say right what it is by default", function()
    local _, observer = script.check { observe = {}, decide = print }
    local _, consumer = script.check { consume = {}, handle = print }
    assert.equal(500, consumer.consume.batch)
    assert.same({ first = 1, max = 60, tries = 10 }, consumer.consume.retry)
    for _, spec in ipairs { { observer, "observe" }, { consumer, "consume" } } do
      for key in pairs(spec[1][spec[2]]) do
        assert.is_truthy(SCRIPTING:find("%f[%w_]" .. key .. "%f[^%w_]"), key)
      end
    end
    for name in ("topics group routes target handle_batch on_record idle_exit dead reset key"):gmatch "%S+" do
      assert.is_truthy(SCRIPTING:find("%f[%w_]" .. name .. "%f[^%w_]"), name)
    end
    for _, option in ipairs(require "rouse.config.routes".JOB) do
      assert.is_truthy(SCRIPTING:find("`" .. option.name .. "`", 1, true), option.name)
    end
  end)

  it("name commands that there are", function()
    local known = { help = true, version = true, COMMAND = true }
    for _, name in ipairs(COMMANDS) do
      known[name] = true
    end
    for _, document in ipairs { README, SCRIPTING, OPERATING, read "CHANGELOG.md" } do
      for name in document:gmatch "`rouse %-*([%w-]+)" do
        assert.is_true(known[name], name)
      end
    end
  end)
end)

-- ---- the manual page ----

local manual = MANUAL:gsub("\\%-", "-"):gsub("\\f[BIRP]", "")

-- Environment variables that the library and the host read. Not those that runs are given.
local PREFIXES = { "MESSAGEHUB_", "ROUSE_", "CE_", "IAM_", "IBMCLOUD_", "OBSERVER_", "JOB_", "SSL_", "KAFKA_TOPIC",
  "CONSUMER_GROUP", "IDLE_TIMEOUT" }

-- Read in the definitions of jobs, not in our environment.
local FOREIGN = { CE_REMOVE_COMPLETED_JOBS = true }

local function is_variable(name)
  if FOREIGN[name] then
    return false
  end
  for _, prefix in ipairs(PREFIXES) do
    if name:sub(1, #prefix) == prefix and #name > #prefix or name == prefix and name:sub(-1) ~= "_" then
      return true
    end
  end
  return false
end

local function sources()
  local texts = {}
  for path in io.popen("find lua src -name '*.lua' -o -name '*.c'"):lines() do
    if not path:find "/mock/codeengine" and not path:find "/target/" and not path:find "/wake/"
      and not path:find "/sim/" then
      texts[#texts + 1] = read(path)
    end
  end
  return table.concat(texts, "\n")
end

local function variables_read()
  local text, names = sources(), { kafkadata = true }
  for _, pattern in ipairs { '[%a]+%(?"([%u_]+)"', '{ "([%u_]+)",', 'env%.([%u_]+)', 'environ%.([%u_]+)', '= "([%u_]+)"' } do
    for name in text:gmatch(pattern) do
      if is_variable(name) then
        names[name] = true
      end
    end
  end
  for name in text:gmatch 'secret%("([%u_]+)"' do
    names[name .. "_FILE"] = true
  end
  return names
end

describe("rouse(1)", function()
  it("is a manual page that groff has nothing to say about", function()
    if not os.execute "command -v groff >/dev/null" then
      return pending "groff is not here"
    end
    local code, output = run { "env", "-u", "LD_PRELOAD", "groff", "-man", "-ww", "-Tutf8", "-z", "resources/rouse.1" }
    assert.same({ 0, "" }, { code, output })
  end)

  it("uses macros that there are", function()
    local known = {}
    for name in ("TH SH SS TP B I BR RB IR RI BI nf fi PP"):gmatch "%S+" do
      known[name] = true
    end
    for line in MANUAL:gmatch "[^\n]+" do
      local macro = line:match "^%.(%S*)"
      assert.is_true(not macro or known[macro], line)
    end
  end)

  it("names every command and option of --help, and no others", function()
    local options = {}
    for _, command in ipairs { "", "dlq list", "dlq show", "dlq replay", table.unpack(COMMANDS) } do
      local code, help = run { "sh", "-c", ("%s %s --help"):format(PROGRAM, command) }
      assert.equal(0, code)
      assert.is_truthy(command == "" or manual:find("\n%.B " .. command .. "%f[^%w]"), command)
      for option in help:gmatch "%-%-[%w-]+" do
        options[option] = true
        assert.is_truthy(manual:find(option, 1, true), option)
      end
    end
    for option in manual:match "COMMANDS.-%.SH ENVIRONMENT":gmatch "%-%-[%w-]+" do
      assert.is_true(options[option], option)
    end
  end)

  it("names every variable that the code reads, and no others", function()
    local names = variables_read()
    for _, name in ipairs { "MESSAGEHUB_PASSWORD", "MESSAGEHUB_USER", "IAM_API_KEY_FILE", "ROUSE_LUA", "ROUSE_ETC",
      "JOB_MODE", "ROUSE_LOG_LEVEL", "ROUSE_EXECUTABLE" } do
      assert.is_true(names[name], "the search does not find " .. name)
    end
    for name in pairs(names) do
      assert.is_truthy(manual:find("%f[%w_]" .. name .. "%f[^%w_]"), name)
    end
    local text = sources()
    for line in manual:match "%.SH ENVIRONMENT(.-)%.SH":gmatch "\n%.BR? ([^\n]+)" do
      for name in line:gmatch "[%w_]+" do
        assert.is_truthy(text:find(name:gsub("_FILE$", ""), 1, true), name)
      end
    end
  end)

  it("has the exit codes that docs/operating.md has", function()
    local codes = 0
    for code in manual:match "%.SH EXIT STATUS(.-)%.SH":gmatch "\n(%d+) " do
      codes = codes + 1
      assert.is_truthy(OPERATING:find("\n| " .. code .. " |", 1, true), code)
    end
    assert.equal(11, codes)
  end)
end)

describe("docs/operating.md", function()
  it("explains every reason code of the wake engine, and no others", function()
    local text = ""
    for path in io.popen("find lua/rouse/wake lua/rouse/wake.lua -name '*.lua'"):lines() do
      text = text .. read(path)
    end
    local explained, codes = OPERATING:match "\n| code | level |.-\n\n", 0
    for _, pattern in ipairs { ":note(%b())", ":hold(%b())", "%f[%w]code = ([^\n]+)" } do
      for call in text:gmatch(pattern) do
        for code in call:gsub("%b{}", ""):gmatch '"([%l_]+)"' do
          codes = codes + 1
          assert.is_truthy(explained:find("`" .. code .. "`", 1, true), code)
        end
      end
    end
    assert.is_true(codes > 12)
    local levels = read "lua/rouse/observer/effects.lua"
    for code, level in explained:gmatch "\n| `([%l_]+)` | (%l+) |" do
      assert.equal(levels:match("%f[%w_]" .. code .. ' = "(%l+)"') or "debug", level, code)
      assert.is_truthy(text:find('"' .. code .. '"', 1, true), code)
    end
  end)

  it("quotes log lines that are JSON", function()
    for _, block in ipairs(blocks("docs/operating.md", "json")) do
      for line in block.text:gmatch "[^\n]+" do
        assert.is_string(assert(json.decode(line)).message)
      end
    end
  end)
end)
