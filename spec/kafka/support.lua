--- What the specs on a real broker share: topics of their own, records by kcat, the mock Code Engine with real consumer
--- processes, observers as real processes, and the second opinion on what is left behind. Every wait has a deadline;
--- what a spec started ends with it, also when it fails.
require "spec.helper"
local process = require "rouse.process"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local support = {}

local function getenv(name)
  return os.getenv(name) or error(name .. " is not set: run spec/kafka/run", 0)
end

support.brokers = getenv "KAFKA_PLAINTEXT"
support.password = getenv "KAFKA_PASSWORD"
support.rouse = getenv "ROUSE_BUILD" .. "/rouse"

local work, tool, dir = getenv "KAFKA_WORK", getenv "KAFKA_TOOL", getenv "KAFKA_DIR"
-- This module is loaded anew for each spec file, so a number alone would come again, and a topic that was deleted a moment
-- ago may still lend its settings to the next one of its name.
local loaded, serial = math.floor(task.monotonic() * 1000) % 0x1000000, 0

--- A name that no other spec of this run uses.
---@param prefix string
---@return string
function support.name(prefix)
  serial = serial + 1
  return ("%s-%d-%x-%d"):format(prefix, sys.pid(), loaded, serial)
end

--- Waits until check() returns something true, and returns it. Raises after `seconds`.
---@param what string finishes the sentence "waited N s for ..."
---@param seconds number
---@param check fun(): any
---@param interval number? seconds between two checks, default 0.05
---@return any
function support.wait(what, seconds, check, interval)
  local deadline = task.monotonic() + seconds
  while true do
    local value = check()
    if value then
      return value
    end
    if task.monotonic() > deadline then
      error(("waited %g s for %s"):format(seconds, what), 2)
    end
    task.sleep(interval or 0.05)
  end
end

--- What every process here starts from: a sanitizer build's settings, and no broker of the person who runs this.
---@return table<string, string>
function support.environ()
  local env = {}
  for _, name in ipairs { "PATH", "HOME", "LD_PRELOAD", "LSAN_OPTIONS", "ASAN_OPTIONS", "ROUSE_LUA" } do
    env[name] = os.getenv(name)
  end
  return env
end

--- The variables by which a process reaches the broker.
---@param listener "plaintext"|"sasl" sasl: exactly the binding's variables on Code Engine, and the CA
---@param brokers string? a broker of the spec's own, for plaintext
---@return table<string, string>
function support.kafka(listener, brokers)
  if listener == "sasl" then
    return {
      MESSAGEHUB_KAFKA_BROKERS_SASL = ('["%s"]'):format(getenv "KAFKA_SASL"),
      MESSAGEHUB_USER = getenv "KAFKA_USER",
      MESSAGEHUB_PASSWORD = support.password,
      SSL_CERT_FILE = getenv "KAFKA_CA",
    }
  end
  return {
    MESSAGEHUB_KAFKA_BROKERS_SASL = brokers or support.brokers,
    MESSAGEHUB_USER = "token",
    MESSAGEHUB_PASSWORD = "not-asked-for",
    ROUSE_KAFKA = "security.protocol=plaintext",
  }
end

--- One table of several; later ones win.
---@param ... table?
---@return table
function support.merge(...)
  local all = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...)) or {}) do
      all[name] = value
    end
  end
  return all
end

local Process = { __name = "spec.process" }
Process.__index = Process

--- Everything it wrote so far, on both streams.
function Process:text()
  return table.concat(self.output)
end

--- Whether it has ended.
function Process:ended()
  self.result = self.result or self.child:wait { timeout = 0 } or nil
  return self.result ~= nil
end

--- Waits for its end and for the rest of its output.
---@return integer? code, string? signal
function Process:finish(seconds)
  local result = self.result or self.child:wait { timeout = seconds or 20 }
  if not result then
    error(("%s did not end within %g s; its output:\n%s"):format(self.name, seconds or 20, self:text()), 2)
  end
  self.result = result
  for _, reader in ipairs(self.readers) do
    reader:join(5)
  end
  return result.code, result.signal
end

function Process:terminate(seconds)
  self.child:kill("TERM")
  return self:finish(seconds)
end

local Scope = { __name = "spec.scope" }
Scope.__index = Scope

--- Runs fn when the spec ends, in reverse order.
function Scope:defer(fn)
  table.insert(self.deferred, fn)
end

-- Both streams go into one text, so whole lines: what is read at once may end in the middle of one.
local function gather(child, stream, output)
  local rest = ""
  while true do
    local chunk = child:read { stream = stream }
    if not chunk then
      table.insert(output, rest)
      return true
    end
    local lines, left = (rest .. chunk):match "^(.*\n)(.*)$"
    table.insert(output, lines)
    rest = left or rest .. chunk
  end
end

--- Starts a process whose output is kept.
---@param options {command: string[], env: table?, name: string?}
function Scope:spawn(options)
  local child = assert(process.spawn {
    command = options.command, env = support.merge(support.environ(), options.env), stdout = "pipe", stderr = "pipe",
  })
  local started = setmetatable({
    child = child, name = options.name or options.command[1], output = {}, readers = {},
  }, Process)
  for _, stream in ipairs { "stdout", "stderr" } do
    table.insert(started.readers, task.spawn(gather, child, stream, started.output))
  end
  table.insert(self.processes, started)
  self:defer(function()
    if not started.result then
      child:kill("TERM")
      child:wait { timeout = 15 }
    end
    child:close()
  end)
  return started
end

--- Runs a command to its end and returns what it wrote; raises unless it ended well.
---@param options {env: table?, seconds: number?}? or the command's first word
---@param ... string
function Scope:run(options, ...)
  local words = { ... }
  if type(options) == "string" then
    table.insert(words, 1, options)
    options = nil
  end
  options = options or {}
  local command = self:spawn { command = words, env = options.env }
  local code = command:finish(options.seconds or 60)
  if code ~= 0 then
    error(("%s ended with %s: %s"):format(table.concat(words, " "), code, command:text()), 2)
  end
  return command:text()
end

--- Creates a topic, deleted when the spec ends; on a broker of the spec's own it goes with that. (There one broker of two
--- may just have been killed, and the other still name it as the controller.)
---@param options {partitions: integer?, prefix: string?, properties: string?}?
---@return string name
function Scope:topic(options)
  options = options or {}
  local name = support.name(options.prefix or "topic")
  local spec = ("%s:%d"):format(name, options.partitions or 4)
  if options.properties then
    spec = spec .. ":" .. options.properties
  end
  self:run(tool, self.brokers, "create", spec)
  if self.brokers == support.brokers then
    self:defer(function() self:run(tool, self.brokers, "delete", name) end)
  end
  return name
end

--- Deletes a topic before the spec ends; `create` gives the name back.
function Scope:delete(topic)
  self:run(tool, self.brokers, "delete", topic)
end

--- Deletes a topic and creates it anew, empty.
function Scope:recreate(topic, partitions)
  self:delete(topic)
  self:create(topic, partitions)
end

--- Creates a topic of a name that was deleted.
function Scope:create(topic, partitions)
  -- The name is taken until the broker has done with the old one.
  support.wait("the new topic", 20, function()
    return (pcall(self.run, self, tool, self.brokers, "create", ("%s:%d"):format(topic, partitions)))
  end)
end

--- Lets nobody read a topic, or everybody again. The scope's broker needs an authorizer.
---@param word "deny"|"allow"
function Scope:permit(word, topic)
  self:run(tool, self.brokers, word, topic)
end

--- Gives a topic more partitions, and waits until they are there.
function Scope:grow(topic, partitions)
  self:run(tool, self.brokers, "grow", ("%s:%d"):format(topic, partitions))
end

--- Produces with kcat and waits for the acknowledgement.
---@param options {topic: string, partitions: integer[], count: integer?} count: records for each partition
function Scope:produce(options)
  local path = ("%s/%s"):format(work, support.name "records")
  local file = assert(io.open(path, "w"))
  for i = 1, options.count or 1 do
    file:write(("record %d\n"):format(i))
  end
  file:close()
  for _, partition in ipairs(options.partitions) do
    self:run("kcat", "-P", "-b", self.brokers, "-t", options.topic, "-p", tostring(partition), "-l", path)
  end
  os.remove(path)
end

--- Goes on producing, `count` records at a time, until what it returns is called: that returns how many there were on each
--- partition. Whoever is to be met at work is so met, however slow the machine.
---@param options {topic: string, partitions: integer[], count: integer}
---@return fun(): integer
function Scope:feed(options)
  local fed, stopping = 0, false
  local feeder = task.spawn(function()
    repeat
      self:produce(options)
      fed = fed + options.count
      task.sleep(0.2)
    until stopping
    return true
  end)
  return function()
    stopping = true
    assert(feeder:join(60))
    return fed
  end
end

--- A transactional producer: call the result with "begin", "put VALUE", "flush", "commit" or "abort".
---@return fun(line: string)
function Scope:transactor(topic, partition)
  local child = assert(process.spawn {
    command = { tool, self.brokers, "transact", topic, tostring(partition) }, stdin = "pipe", stdout = "pipe",
  })
  self:defer(function() child:close() end)
  local function answer(expected)
    local text = ""
    while not text:find("\n", 1, true) do
      text = text .. assert(child:read { stream = "stdout", timeout = 30 })
    end
    assert(text == expected .. "\n", "tool transact: " .. text)
  end
  answer("ready")
  return function(line)
    assert(child:write(line .. "\n"))
    answer("ok")
  end
end

--- How many records a group has not committed yet, and the rows: {topic, partition, committed, low, end_offset}.
---@param group string
---@param ... string topics
---@return integer left, table[] rows
function Scope:left(group, ...)
  local left, rows = 0, {}
  for topic, partition, committed, low, end_offset in
      self:run(tool, self.brokers, "left", group, ...):gmatch("(%S+) (%d+) (%-?%d+) (%d+) (%d+)\n") do
    local row = {
      topic = topic, partition = tonumber(partition), committed = tonumber(committed), low = tonumber(low),
      end_offset = tonumber(end_offset),
    }
    table.insert(rows, row)
    left = left + math.max(0, row.end_offset - math.max(row.committed, row.low))
  end
  assert(#rows > 0, "the tool printed no partition")
  return left, rows
end

--- Stops the broker and starts it again on the same ports and data; `between` runs while it is down.
---@param between fun()?
function Scope:restart_broker(between)
  self:run("spec/kafka/broker.sh", "stop", dir)
  local ok, message = true, nil
  if between then
    ok, message = pcall(between)
  end
  self:run("spec/kafka/broker.sh", "start", dir)
  if not ok then
    error(message, 0)
  end
end

--- Starts a broker of the spec's own; from here on the scope works with it.
---@param properties string lines of server.properties
---@param join string? the directory of a broker that is there already: the new one is the second of its cluster
---@return string own its directory, for stop_broker and start_broker
function Scope:broker(properties, join)
  local own = ("%s/%s"):format(work, support.name "broker")
  self:defer(function() self:stop_broker(own, "kill") end)
  self:run({ env = { KAFKA_PROPERTIES = properties, KAFKA_JARS = os.getenv "KAFKA_JARS", KAFKA_JOIN = join,
    XDG_CACHE_HOME = os.getenv "XDG_CACHE_HOME" }, seconds = 120 }, "spec/kafka/broker.sh", "start", own)
  local address = self:run("spec/kafka/broker.sh", "env", own):match "KAFKA_PLAINTEXT=(%S+)"
  self.brokers = join and self.brokers .. "," .. address or address
  return own
end

--- Stops a broker of the spec's own, or kills it: a power cut; or has it hang, until it is resumed.
---@param how "stop"|"kill"|"hang"|"resume"|nil
function Scope:stop_broker(own, how)
  self:run("spec/kafka/broker.sh", how or "stop", own)
end

function Scope:start_broker(own)
  self:run("spec/kafka/broker.sh", "start", own)
end

--- Writes a file that goes with the broker.
---@return string path
function Scope:file(prefix, text)
  local path = ("%s/%s"):format(work, support.name(prefix))
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  file:close()
  return path
end

-- Runs what was deferred, the latest first; returns the first failure.
local function close(scope)
  local failure
  while #scope.deferred > 0 do
    local closed, why = pcall(table.remove(scope.deferred))
    failure = failure or (not closed and why) or nil
  end
  return failure
end

local function explain(e)
  return type(e) == "table" and e or debug.traceback(tostring(e), 2)
end

-- The outputs of a failed spec's processes, and the files it named.
local function show_outputs(scope)
  for _, child in ipairs(scope.processes) do
    local text = child:text()
    if text ~= "" then
      io.stderr:write(("--- %s\n%s\n"):format(child.name, text:sub(-8000)))
    end
  end
  for _, path in ipairs(scope.logs) do
    local file = io.open(path)
    if file then
      io.stderr:write(("--- %s\n%s\n"):format(path, file:read("a"):sub(-8000)))
      file:close()
    end
  end
end

--- Names a file whose end is shown if the spec fails.
---@return string path
function Scope:log(prefix)
  local path = ("%s/%s.log"):format(work, support.name(prefix))
  table.insert(self.logs, path)
  return path
end

--- Runs fn(scope) in a task under a deadline; what it started ends with it.
---@param fn fun(scope: table)
---@param seconds number
---@return any failure nil when all went well
function support.run(fn, seconds)
  local scope = setmetatable({ deferred = {}, processes = {}, logs = {}, brokers = support.brokers }, Scope)
  local failure
  task.run(function()
    local body = task.spawn(function()
      local ok, message = xpcall(fn, explain, scope)
      if not ok then
        failure = message
      end
      -- Here, where the tasks that fn started still live.
      local unclosed = close(scope)
      failure = failure or unclosed
      return true
    end)
    local done, message, code = body:join(seconds)
    if not done then
      body:cancel()
      failure = code == "TIMEDOUT" and ("not over within %g s"):format(seconds) or message
      close(scope)
    end
  end)
  if failure then
    show_outputs(scope)
  end
  return failure
end

--- A body for it(): fn(scope) under a deadline.
---@param fn fun(scope: table)
---@param seconds number? 120
---@return fun()
function support.scoped(fn, seconds)
  return function()
    local failure = support.run(fn, seconds or 120)
    if failure then
      error(failure, 0)
    end
  end
end

return support
