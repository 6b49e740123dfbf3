--- An observer process, a mock Code Engine with real consumer processes, and topics on the real broker, for specs that need
--- several routes at once. A route without consumers has runs that nobody works for: they stay active.
local assert = require "luassert"
local arrayspec = require "rouse.arrayspec"
local codeengine = require "rouse.mock.codeengine"
local free_port = require "spec.free_port"
local http = require "rouse.http"
local kafka = require "rouse.kafka"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local System = { __name = "spec.system" }
System.__index = System

local system = {}

local KEY, PROJECT = "an-api-key", "4e49b3e0-27a8-48d2-a784-c7ee48bb863b"
local CONSUMER <const> = 'exec "$0" consumer >>"$1" 2>&1'
local BELLS = 16

---@class spec.Route
---@field partitions integer? 1
---@field properties string? the topic's
---@field assign "index"|"group"|nil index
---@field idle number? 1
---@field consumers boolean? true
---@field topic string filled in, like job, group and log

--- Topics, jobs and the observer's environment; nothing observes before `observe`.
---@param scope table
---@param options { routes: table<string, spec.Route>, script: string? }
function system.new(scope, options)
  local access = support.kafka("plaintext", scope.brokers)
  local self = setmetatable({ scope = scope, routes = options.routes, rung = 0 }, System)
  -- One that proves, by being woken, that whatever could ring before has rung.
  self.routes.bell = { partitions = BELLS, consumers = false }
  local jobs, routing = {}, {}
  for name, route in pairs(self.routes) do
    route.partitions = route.partitions or 1
    route.topic = scope:topic { partitions = route.partitions, prefix = name, properties = route.properties }
    route.job, route.group, route.log = support.name(name .. "-job"), support.name(name .. "-group"), scope:log(name)
    jobs[route.job] = {
      command = route.consumers ~= false and { "/bin/sh", "-c", CONSUMER, support.rouse, route.log } or nil,
      env = { CONSUMER_GROUP = route.group, KAFKA_TOPIC = route.topic, IDLE_TIMEOUT = tostring(route.idle or 1),
        ROUSE_ASSIGN = route.assign or "index" },
    }
    table.insert(routing, ("%s: { jobs: [%s] }\n"):format(route.topic, route.job))
  end
  self.mock = codeengine.new { api_key = KEY, project = PROJECT, execute = true, jobs = jobs,
    environ = support.merge(support.environ(), access) }
  scope:defer(function() self.mock:close() end)
  assert(self.mock:start())
  self.admin = assert(kafka.admin { properties = { ["bootstrap.servers"] = scope.brokers } })
  scope:defer(function() self.admin:close() end)
  self.command = options.script and { support.rouse, "run", scope:file("script.lua", options.script) }
    or { support.rouse, "observer" }
  self.env = support.merge(access, {
    IAM_API_KEY = KEY, CE_PROJECT_ID = PROJECT, CE_REGION = "us-south", CE_API_BASE_URL = self.mock:url(),
    IBMCLOUD_IAM_API_ENDPOINT = self.mock:url(), CE_JOB = "observer", JOB_MODE = "task", ROUSE_ADMIN = "off",
    kafkadata = table.concat(routing),
  })
  return self
end

function System:observe()
  self.observer = self.scope:spawn { command = self.command, env = self.env, name = "observer" }
  return self.observer
end

--- Observers from here on can be asked. Returns what one of them knows of a route's partitions, when called.
---@return fun(): table[]
function System:asked(route)
  local client, port = http.client {}, free_port()
  self.scope:defer(function() client:close() end)
  self.env.ROUSE_ADMIN = tostring(port)
  return function()
    local status = assert(client:json { url = ("http://127.0.0.1:%d/status"):format(port), query = { job = route.job },
      timeout = 30 })
    return status.units[1].parts
  end
end

--- Ends the observer as Code Engine does.
function System:stop()
  local observer = self.observer
  self.observer = nil
  assert.equal(143, (observer:terminate()))
end

--- Ends it without a word.
function System:kill()
  local observer = self.observer
  self.observer = nil
  observer.child:kill("KILL")
  observer:finish()
end

function System:produce(route, partitions, count)
  self.scope:produce { topic = route.topic, partitions = partitions or { 0 }, count = count }
end

--- Produces one record that retention keeps, however short it is: retention counts from the record's timestamp, and a broker
--- takes one that is up to an hour ahead (message.timestamp.after.max.ms).
function System:keep(route)
  local producer <close> = assert(kafka.producer { properties = { ["bootstrap.servers"] = self.scope.brokers } })
  assert(producer:produce { topic = route.topic, partition = 0, value = "kept", timestamp = task.now() + 1800,
    timeout = 30 })
end

--- Asks about one partition until the answer is no error: a coordinator that has just been made is still loading.
function System:patiently(what, ask)
  return support.wait(what, 30, function()
    local list = ask()
    return list and not list[1].error and list[1]
  end)
end

--- Commits for a route's group, or another, as an operator would.
function System:commit(route, partition, offset, group)
  self:patiently("the commit", function()
    return self.admin:alter_group_offsets { group = group or route.group, timeout = 30,
      partitions = { { topic = route.topic, partition = partition, offset = offset } } }
  end)
end

--- What a route's group, or another, has committed; nil for nothing.
function System:committed(route, partition, group)
  return self:patiently("the group's offset", function()
    return self.admin:group_offsets { group = group or route.group, timeout = 30,
      partitions = { { topic = route.topic, partition = partition } } }
  end).offset
end

--- The low or end offset of a partition.
function System:offset(route, partition, at)
  return self:patiently("the topic's offset", function()
    return self.admin:offsets { at = at, timeout = 30,
      partitions = { { topic = route.topic, partition = partition } } }
  end).offset
end

--- The runs submitted for a route so far, also those that are no longer listed.
function System:submits(route)
  local created = {}
  for _, submit in ipairs(self.mock:counters().submits) do
    if submit.created and submit.job == route.job then
      table.insert(created, submit)
    end
  end
  return created
end

--- Waits until a route was woken `count` times in all.
function System:woken(route, count, seconds)
  support.wait(("wake %d of %s"):format(count, route.topic), seconds or 30, function()
    assert(not self.observer or not self.observer:ended(), "the observer ended")
    return #self:submits(route) >= count
  end)
  return self:submits(route)[count]
end

--- Waits until a record that came after everything so far has woken somebody: twice, so that a fetch that was under way
--- at the first has ended, and what it brought is decided.
function System:bell()
  local bell = self.routes.bell
  for _ = 1, 2 do
    assert(self.rung < BELLS, "more partitions for the bell, please")
    local before = #self:submits(bell)
    self:produce(bell, { self.rung })
    self.rung = self.rung + 1
    self:woken(bell, before + 1)
  end
end

--- Whether every run of a route has ended, none of them badly.
function System:ended(route)
  for _, run in ipairs(self.mock:runs()) do
    if run.job == route.job then
      assert(run.status ~= "failed", run.name .. " failed")
      if run.status ~= "completed" then
        return false
      end
    end
  end
  return true
end

--- Waits until a route's group has committed the end of every partition and its runs have ended.
function System:settled(route, seconds)
  support.wait(route.topic .. " consumed and its runs ended", seconds or 60, function()
    assert(not self.observer or not self.observer:ended(), "the observer ended")
    if not self:ended(route) then
      return false
    end
    local _, rows = self.scope:left(route.group, route.topic)
    for _, row in ipairs(rows) do
      if row.committed ~= row.end_offset and (row.committed ~= -1 or row.end_offset > row.low) then
        return false
      end
    end
    return true
  end)
end

--- The indices of a route's runs from number `first` on, each as often as it was submitted.
function System:indices(route, first)
  local list = {}
  for i, submit in ipairs(self:submits(route)) do
    if i >= (first or 1) then
      table.move(arrayspec.parse(submit.indices), 1, BELLS, #list + 1, list)
    end
  end
  table.sort(list)
  return list
end

--- How many records a route's consumers have handled.
function System:handled(route)
  local file, count = io.open(route.log), 0
  if file then
    for _ in file:read("a"):gmatch('"partition":%d+,"offset":%d+') do
      count = count + 1
    end
    file:close()
  end
  return count
end

return system
