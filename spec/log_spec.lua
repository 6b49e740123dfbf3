require "spec.helper"
local json = require "rouse.json"
local log = require "rouse.log"

-- Runs Lua code in a process of its own and returns the lines it wrote to stderr.
local function lines_of(code)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write('require "spec.helper"\nlocal log = require "rouse.log"\n', code)
  file:close()
  local pipe = assert(io.popen("lua5.4 " .. name .. " 2>&1 >/dev/null"))
  local lines = {}
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  local ok = pipe:close()
  os.remove(name)
  assert(ok, table.concat(lines, "\n"))
  return lines
end

describe("log", function()
  it("writes JSON lines when stderr is no terminal, without a timestamp", function()
    assert.same({
      '{"level":"info","message":"hello"}',
      '{"level":"warn","message":"two","a":1,"b":true,"c":"x","f":5.0}',
      '{"level":"error","message":"three","nested":{"list":[],"n":null}}',
    }, lines_of [[
      local json = require "rouse.json"
      log.info("hello")
      log.debug("not shown")
      log.warn("two", { b = true, a = 1, c = "x", f = 5.0 })
      log.error("three", { nested = { n = json.null, list = json.array {} } })
    ]])
  end)

  it("puts job, topic, partition and offset first, in that order", function()
    local lines = lines_of [[log.info("record", { offset = 7, a = 1, partition = 2, topic = "t" })]]
    assert.same({
      '{"level":"info","message":"record","topic":"t","partition":2,"offset":7,"a":1}',
    }, lines)
  end)

  it("knows where a record is", function()
    assert.same({ topic = "t", partition = 2, offset = 3 },
      log.place { topic = "t", partition = 2, offset = 3, value = "v", headers = {} })
    assert.error_matches(function() log.place("t/2") end, "table expected", 1, true)
  end)

  it("takes many fields", function()
    assert.same({ '{"level":"info","message":"m","f01":1,"f02":2,"f03":3,"f04":4,"f05":5,"f06":6,"f07":7,"f08":8,"f09":9,'
      .. '"f10":10,"f11":11,"f12":12,"f13":13,"f14":14,"f15":"x"}' }, lines_of [[
      local fields = { f15 = "x" }
      for i = 1, 14 do fields[("f%02d"):format(i)] = i end
      log.info("m", fields)
    ]])
  end)

  it("holds the lines of a stretch together, and nothing that matters back", function()
    assert.same({
      "early", '{"level":"info","message":"a"}', '{"level":"info","message":"b"}', '{"level":"warn","message":"c"}', "said",
      '{"level":"info","message":"d"}', "waited", '{"level":"info","message":"e"}', "ended",
    }, lines_of [[
      local task = require "rouse.task"
      local function raw(text) io.stderr:write(text, "\n") end
      local cursor = task.cursor(function(item)
        log[item == "c" and "warn" or "info"](item)
        if item == "b" then raw "early" end
        if item == "c" then raw "said" end
        if item == "d" then task.sleep(0) end
        return "done"
      end, {})
      task.run(function()
        local child = task.spawn(function()
          cursor:run({ "a", "b", "c", "d", "e" }, 1, 5, 10)
          cursor:run({ "e" }, 1, 1, 10)
          raw "ended"
        end)
        task.sleep(0)
        raw "waited"
        child:join()
      end)
    ]])
  end)

  it("writes text on request, and only the levels asked for", function()
    assert.same({
      "DEBUG route ready topic=payments n=3 reason=\"no group\"",
      "INFO  two",
      "    lines",
      "ERROR x",
    }, lines_of [[
      log.configure { format = "text", level = "debug" }
      log.debug("route ready", { topic = "payments", n = 3, reason = "no group" })
      log.info("two\nlines")
      log.configure { level = "error" }
      log.warn("not shown")
      log.error("x")
    ]])
  end)

  it("stays valid JSON whatever it is given", function()
    local lines = lines_of [[
      local cycle = {}
      cycle.self = cycle
      log.info("a\0b\xff\n\"q\" \u{9b}31m", {
        cycle = cycle, fn = print, nan = 0 / 0, inf = math.huge, level = "mine", ["k\n"] = "v",
        object = setmetatable({}, { __tostring = function() return "shown" end }),
        long = ("x"):rep(20000),
      })
    ]]
    assert.equal(1, #lines)
    local line = assert(json.decode(lines[1]))
    assert.equal("info", line.level)
    assert.equal("a\0b\u{fffd}\n\"q\" \u{9b}31m", line.message)
    assert.is_nil(lines[1]:find("\u{9b}", 1, true))
    assert.equal("mine", line.level_)
    assert.equal("v", line["k\n"])
    assert.equal("nan", line.nan)
    assert.equal("inf", line.inf)
    assert.matches("table contains itself", line.cycle)
    assert.matches("^function", line.fn)
    assert.equal(("x"):rep(16384) .. "...", line.long)
  end)

  it("replaces secrets in messages, fields, names and nested tables, in every encoding", function()
    local lines = lines_of [[
      local secret = "p@ss/w\"rd+1"
      assert(log.secret(secret) and log.secret("12345678"))
      assert(not log.secret("abc"))
      log.info("plain " .. secret .. ", url p%40ss%2Fw%22rd%2B1 and p%40ss%2fw%22rd%2b1")
      -- base64 of the secret alone, after "token:" and after "user:"
      log.info("b64 cEBzcy93InJkKzE= dG9rZW46cEBzcy93InJkKzE= dXNlcjpwQHNzL3cicmQrMQ==")
      log.info("json " .. require "rouse.json".encode { password = secret })
      log.info("fields", {
        a = secret, b = { c = { "x" .. secret .. "y" }, ["12345678"] = 1 },
        n = 12345678, f = 12345678.5, ["key " .. secret] = 1,
      })
    ]]
    local text = table.concat(lines, "\n")
    local traces = { "p@ss", "w\\\"rd", "%40ss", "cEBzcy9", "BAc3Mvd", "wQHNzL3", "12345678" }
    for _, trace in ipairs(traces) do
      assert.is_nil(text:find(trace, 1, true), trace .. " is in:\n" .. text)
    end
    assert.equal("plain ***, url *** and ***", json.decode(lines[1]).message)
    assert.equal('json {"password":"***"}', json.decode(lines[3]).message)
    local fields = assert(json.decode(lines[4]))
    assert.equal("***", fields.a)
    assert.same({ c = { "x***y" }, ["***"] = 1 }, fields.b)
    assert.equal("***", fields.n)
    assert.equal("***.5", fields.f)
    assert.equal(1, fields["key ***"])
  end)

  it("takes secrets out of any text", function()
    assert.equal("nothing here", log.redact "nothing here")
    assert.equal("", log.redact "")
    assert.is_true(log.secret "s3cret/redacted")
    assert.equal("***", log.redact "s3cret/redacted")
    assert.equal("a *** b *** s3cret/", log.redact "a s3cret/redacted b s3cret%2Fredacted s3cret/")
    assert.error_matches(function() log.redact(5) end, "string expected, got number")
  end)

  it("raises on misuse", function()
    assert.error_matches(function() log.info() end, "string expected, got no value")
    assert.error_matches(function() log.info("x", "y") end, "table expected, got string")
    assert.error_matches(function() log.info("x", { 1 }) end, "fields are named by strings")
    assert.error_matches(function() log.configure { level = "loud" } end,
      "option 'level': one of debug, info, warn, error expected, got 'loud'")
    assert.error_matches(function() log.configure { levle = "info" } end, "did you mean 'level'")
    assert.error_matches(function() log.secret(5) end, "string expected, got number")
  end)
end)
