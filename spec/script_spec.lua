require "spec.helper"
local sandbox = require "rouse.sandbox"
local script = require "rouse.script"
local task = require "rouse.task"

-- Loads source as the file agents/rule.lua, with other files beside it.
local function load_source(source, files)
  files = files or {}
  files["agents/rule.lua"] = source
  return script.load("agents/rule.lua", { read = function(path)
    if files[path] then
      return files[path]
    end
    return nil, "No such file or directory"
  end })
end

local function failure(source, files)
  local loaded, message, code = load_source(source, files)
  assert.is_nil(loaded)
  assert.equal("SCRIPT", code)
  return message
end

-- What a free-form script's function returns.
local function value_of(source, files)
  local loaded = assert(load_source("return function(...) " .. source .. " end", files))
  return loaded.fn()
end

describe("script.load", function()
  it("tells the kinds of scripts by what they return", function()
    assert.equal("observer", assert(load_source "return {observe = {}}").kind)
    assert.equal("consumer", assert(load_source "return {consume = {}, handle = print}").kind)
    local agent = assert(load_source "return function(ctx) return ctx.args[1] end")
    assert.equal("agent", agent.kind)
    assert.equal("x", agent.fn { args = { "x" } })
  end)

  it("fills in what an observer leaves out", function()
    local loaded = assert(load_source [[return {
      observe = { routes = { payments = { jobs = { "p" } } }, kafka = { ["client.id"] = "me" }, target = "process" },
      decide = function() end, on_record = function() end }]])
    assert.equal("payments", loaded.table.observe.routes[1].topic)
    assert.equal(60, loaded.table.observe.routes[1].jobs[1].idle_timeout)
    assert.same({ kind = "process" }, loaded.table.observe.target)
    assert.same({ ["client.id"] = "me" }, loaded.table.observe.kafka)
    assert.is_true(loaded.table.observe.renew_offsets)
    assert.equal(60, loaded.table.observe.refresh)
    assert.is_function(loaded.table.decide)
    assert.is_function(loaded.table.on_record)
    assert.is_nil(assert(load_source "return {observe = {}}").table.observe.routes)
  end)

  it("fills in what a consumer leaves out", function()
    local consume = assert(load_source [[return {
      consume = { topics = "a", retry = { tries = 2 }, dead = "a.dead" }, handle_batch = function() end,
    }]]).table.consume
    assert.same({ topics = { "a" }, retry = { first = 1, max = 60, tries = 2 }, dead = "a.dead",
      parallel = 1, batch = 500, headers = true, kafka = {} }, consume)
  end)

  it("takes an id of a static member as Kafka does", function()
    assert(load_source [[return { consume = { instance_id = "payments-3" }, handle = function() end }]])
    for _, id in ipairs { "", "a b", ("x"):rep(250) } do
      local source = ("return { consume = { instance_id = %q }, handle = function() end }"):format(id)
      assert.matches("instance_id", failure(source))
    end
  end)

  it("takes an embedded source, which finds nothing beside it", function()
    local loaded = assert(script.load(nil, { source = "return {observe = {}}", name = "scripts/o.lua" }))
    assert.same({ "scripts/o.lua", nil }, { loaded.name, loaded.path })
    local _, message = script.load(nil, { source = "local x = require 'x'", name = "scripts/o.lua" })
    assert.equal("scripts/o.lua:1: require: no module 'x'", message)
  end)

  it("skips a first line for the shell and a byte order mark, lines stay right", function()
    assert.is_table(load_source "#!/usr/bin/env -S rouse run\nreturn {observe = {}}")
    assert.is_table(load_source "\xEF\xBB\xBFreturn {observe = {}}")
    assert.matches("^agents/rule%.lua:2: ", failure "#!/usr/bin/rouse\nerror 'x'")
  end)

  it("says which file cannot be read", function()
    local loaded, message, code = script.load("/nowhere/rule.lua")
    assert.same({ nil, "/nowhere/rule.lua: cannot be read: /nowhere/rule.lua: No such file or directory",
      "SCRIPT" }, { loaded, message, code })
    assert.matches("^spec: cannot be read: ", (select(2, script.load("spec"))))
  end)

  local cases = {
    { "return", "agents/rule.lua: the script returns nothing, expected a table with `observe` or `consume`" },
    { "return 5", "agents/rule.lua: the script returns 5" },
    { "return {}", "agents/rule.lua: the script's table has neither `observe` nor `consume`" },
    { "return {\nobserv = {}}", "agents/rule.lua:2: unknown key 'observ', did you mean 'observe'?" },
    { "return {\nobserve = {},\nconsume = {}}", "agents/rule.lua:3: observe and consume are both given" },
    { "return {\nobserve = true}", "agents/rule.lua:2: the script's table: observe is true, expected a table" },
    { "return {\nobserve = {},\non_recrod = print}",
      "agents/rule.lua:3: the script's table: unknown key 'on_recrod', did you mean 'on_record'?" },
    { "return {\nobserve = {},\nhandle = print}", "agents/rule.lua:3: the script's table: unknown key 'handle'" },
    { "return {\nobserve = {},\ndecide = 'x'}",
      "agents/rule.lua:3: the script's table: decide is 'x', expected a function" },
    { "return {observe = {\nroute = {}}}", "agents/rule.lua:2: observe: unknown key 'route', did you mean 'routes'?" },
    { "return {observe = {\ntarget = 'codengine'}}", "agents/rule.lua:2: observe: target is 'codengine'" },
    { "return {observe = {\nkafka = {\n['isolation.level'] = 'x'}}}",
      "agents/rule.lua:3: observe.kafka: 'isolation.level' is owned by Rouse: the doorbell must ring" },
    { "-- jobs = {'B'}\nreturn {observe = {routes = {payments = {\njobs = {'a',\n'B'}}}}}",
      "agents/rule.lua:4: observe.routes[\"payments\"].jobs[2]: name is 'B', expected a job name" },
    { "local r = {payments = {\njobs = {{name = 'b',\ndedup = 1}}}}\nreturn {observe = {routes = r}}",
      "agents/rule.lua:3: observe.routes[\"payments\"].jobs[1]: unknown key 'dedup', did you mean 'dedup_window'?" },
    { "return {\nconsume = {}}", "agents/rule.lua:2: neither handle nor handle_batch is given" },
    { "return {consume = {}, handle = print,\nhandle_batch = print}",
      "agents/rule.lua:2: handle and handle_batch are both given" },
    { "return {consume = {\nidle_timeout = 5}, handle = print}",
      "agents/rule.lua:2: consume: unknown key 'idle_timeout', did you mean 'idle_exit'?" },
    { "return {consume = {\ntopics = {'a b'}}, handle = print}",
      "agents/rule.lua:2: consume: wrong topics, expected" },
    { "return {consume = {\ntopics = {}}, handle = print}",
      "agents/rule.lua:2: consume: wrong topics, expected at least" },
    { "return {consume = {\ndead = '^x'}, handle = print}", "consume: dead is '^x', expected one topic, not a pattern" },
    { "return {consume = {\nbatch = 0}, handle = print}", "agents/rule.lua:2: consume: batch is 0, expected a whole" },
    { "return {consume = {\nkey = 1}, handle = print}", "agents/rule.lua:2: consume: key is 1, expected a function" },
    { "return {consume = {\nparallel = 0}, handle = print}", "agents/rule.lua:2: consume: parallel is 0, expected a whole" },
    { "return {consume = {\nparallel = 2, transactional = true}, handle = print}",
      "agents/rule.lua:2: consume.parallel is 2, expected 1 with transactional" },
    { "return {consume = {transactional = true,\nkafka = {\n['isolation.level'] = 'read_uncommitted'}}, handle = print}",
      "consume.kafka: isolation.level is 'read_uncommitted', expected read_committed with transactional" },
    { "return {consume = {\ntransactional = 1}, handle = print}",
      "agents/rule.lua:2: consume: transactional is 1, expected" },
    { "return {consume = {kafka = {\n['transactional.id'] = 'x'}}, handle = print}", "use consume.transactional" },
    { "return {consume = {\nparallel = 2}, handle_batch = print}",
      "agents/rule.lua:2: consume: parallel is 2, but handle_batch has many records in one call as it is" },
    { "return {consume = {\nkey = print, parallel = 1}, handle_batch = print}",
      "agents/rule.lua:2: consume: key is given, but handle_batch gets records in the order of their partition" },
    { "return {consume = {\nkey = print}, handle = print}",
      "agents/rule.lua:2: consume: key is given without parallel, expected parallel = 2 or more beside it" },
    { "return {consume = {retry = {\ntrys = 3}}, handle = print}",
      "agents/rule.lua:2: consume.retry: unknown key 'trys', did you mean 'tries'?" },
    { "return {consume = {retry = {\nmax = 0.5}}, handle = print}", "agents/rule.lua:2: consume.retry: max is 0.5" },
    { "return {consume = {kafka = {\n[\"group.id\"] = 'x'}}, handle = print}",
      "agents/rule.lua:2: consume.kafka: 'group.id' is owned by Rouse: use consume.group or CONSUMER_GROUP" },
    { "return {\n", "agents/rule.lua:2: " },
    { "\27Lua", "agents/rule.lua: attempt to load a binary chunk" },
    { "\nerror 'broken'", "agents/rule.lua:2: broken" },
    { "error {}", "agents/rule.lua: a table" },
  }
  for _, case in ipairs(cases) do
    it(("refuses %q"):format(case[1]), function()
      local message = failure(case[1])
      assert.matches("^agents/rule%.lua", message)
      assert.is_truthy(message:find(case[2], 1, true), message)
    end)
  end

  it("stops a body that never ends", function()
    task.run(function()
      local message = failure "local n = 0\nwhile true do n = n + 1 end"
      assert.matches("^agents/rule%.lua:2: ", message)
    end)
  end)
end)

describe("script.check", function()
  it("checks tables made in Lua, at the caller's line", function()
    assert.equal("observer", (script.check { observe = {} }))
    local ok, message = pcall(function()
      local _ = script.check { observe = { x = 1 } }
    end)
    assert.is_false(ok)
    assert.matches("^spec/script_spec%.lua:%d+: observe: unknown key 'x'", message)
  end)
end)

describe("a script's globals", function()
  it("keep the language", function()
    assert.equal("a,b", value_of "return table.concat({ ('A'):lower(), string.lower 'B' }, ',')")
    assert.equal(3, value_of "return math.max(1, utf8.len 'abc')")
    assert.is_true(value_of "return os.time() > 0 and os.getenv 'HOME' ~= 1 and type(os.date()) == 'string'")
    assert.equal(7, value_of "return load 'return 3 + 4' ()")
    assert.same({ 1, 2 }, { value_of [[
      local co = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end)
      return co(), co()]] })
    assert.equal("x", value_of "return getmetatable(setmetatable({}, { __name = 'x' })).__name")
    assert.is_true(value_of "return collectgarbage 'count' > 0")
  end)

  local refused = {
    ["local _ = io"] = "io is not available in scripts",
    ["local _ = debug"] = "debug is not available in scripts",
    ["local _ = package"] = "package is not available in scripts",
    ["dofile 'x'"] = "dofile is not available in scripts",
    ["local f = loadfile"] = "loadfile is not available in scripts",
    ["os.execute 'true'"] = "os.execute is not available in scripts",
    ["os.exit(0)"] = "os.exit is not available in scripts: return from the script instead",
    ["os.remove 'x'"] = "os.remove is not available in scripts",
    ["local f = string.dump"] = "string.dump is not available in scripts",
    ["local _ = require 'io'"] = "io is not available in scripts",
    ["local _ = require 'rouse.process'"] = "require: scripts have no module 'rouse.process'",
    ["local _ = require 'rouse.core.sys'"] = "require: scripts have no module 'rouse.core.sys'",
    ["local _ = require 'rouse.verdit'"] = "no module 'rouse.verdit', did you mean 'rouse.verdict'?",
    ["local _ = require(7)"] = "require: expected a module's name, got 7",
    ["local _ = require '../x'"] = "require: no module '../x'",
    ["local t = setmetatable({}, { __gc = print })"] = "setmetatable: __gc is not available in scripts",
    ["collectgarbage 'stop'"] = "collectgarbage: 'stop' is not available in scripts",
    ["local _ = pritn"] = "unknown global 'pritn', did you mean 'print'?",
    ["local _ = zzz"] = "unknown global 'zzz'",
    ["count = 1"] = "global 'count' is written, expected `local count = ...`",
    ["print = nil"] = "global 'print' is written",
    ["_G.count = 1"] = "global 'count' is written",
    ["rawset(_G, 'count', 1)"] = "global 'count' is written with rawset",
    ["local f = function() _ENV.x = 1 end f()"] = "global 'x' is written",
    ["load 'y = 1' ()"] = "global 'y' is written",
  }
  for source, expected in pairs(refused) do
    it(("refuse %q, with the line"):format(source), function()
      local message = failure("\n" .. source)
      assert.is_truthy(message:find(expected, 1, true), message)
      assert.matches(source:find("^load '") and '^%[string "y = 1"%]:1: ' or "^agents/rule%.lua:2: ", message)
    end)
  end

  it("load text only", function()
    local bytecode = string.dump(function() return 1 end)
    local loaded = assert(load_source "return function(code) return load(code, 'x', 'b') end")
    local chunk, message = loaded.fn(bytecode)
    assert.is_nil(chunk)
    assert.matches("attempt to load a binary chunk", message)
  end)

  it("belong to one script: changing a library changes it for that script only", function()
    local original = string.upper
    assert.equal("changed", value_of "string.upper = function() return 'changed' end return string.upper 'x'")
    assert.equal(original, string.upper)
    assert.equal("X", value_of "return string.upper 'x'")
    assert.is_nil(value_of "return getmetatable ''")
  end)

  it("can be added by the embedding program", function()
    local env = sandbox.new { globals = { answer = 42 } }
    assert.equal(42, assert(load("return answer", "x", "t", env))())
  end)
end)

describe("require in scripts", function()
  it("finds Rouse's modules", function()
    assert.equal("wake", value_of "return require 'rouse.verdict'.wake().kind")
    assert.equal(require "rouse.json", value_of "return require 'rouse.json'")
    assert.equal("function", value_of "return type(require 'string'.format)")
  end)

  it("finds files beside the script, once each, in the same environment", function()
    local files = {
      ["agents/shop/prices.lua"] = "local util = require 'util'\nreturn { double = util.double, name = ... }",
      ["agents/util/init.lua"] = "return { double = function(x) return 2 * x end }",
    }
    assert.same({ 42, true, "shop.prices" }, { value_of([[
      local prices = require 'shop.prices'
      return prices.double(21), prices == require 'shop.prices', prices.name]], files) })
    assert.matches("^agents/bad%.lua:2: global 'x' is written",
      failure("local _ = require 'bad'", { ["agents/bad.lua"] = "\nx = 1" }))
    assert.matches("^agents/bad%.lua:1: ", failure("local _ = require 'bad'", { ["agents/bad.lua"] = "return {" }))
  end)

  it("says where it looked, and when a module requires itself", function()
    assert.equal("agents/rule.lua:1: require: no module 'utl' beside the script in agents/",
      failure "local _ = require 'utl'")
    local files = { ["agents/a.lua"] = "local _ = require 'b'", ["agents/b.lua"] = "local _ = require 'a'" }
    assert.equal("agents/b.lua:1: require: 'a' requires itself", failure("local _ = require 'a'", files))
  end)

  it("finds what an embedding program added", function()
    local rouse = require "rouse"
    rouse.added.shop = { price = function() return 3 end }
    finally(function() rouse.added.shop = nil end)
    assert.equal(3, value_of "return require 'shop'.price()")
  end)
end)
