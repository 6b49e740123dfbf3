-- An observer in this process on a mock Kafka and a mock Code Engine whose runs are moved by hand.
local assert = require "luassert"
local free_port = require "spec.free_port"
local http = require "rouse.http"
local kafka = require "rouse.kafka"
local observer = require "rouse.observer"
local session = require "rouse.mock.session"
local task = require "rouse.task"
local verdict = require "rouse.verdict"

local DEADLINE = 60 -- a coordinator that hangs is given up after 10 s, twice

local function default_decide()
  return verdict.wake { reason = "records wait" }
end

-- Signals that a spec sends.
local function fake_signals()
  local queue = task.queue()
  return { wait = function() return queue:get() end, send = function(_, name) queue:put(name) end }
end

-- Runs `play(world)` beside an observer. options: topics, brokers, jobs, env, script,
-- run (more of observer.run's options), before.
local function with_observer(options, play)
  local handles = task.handles()
  task.run(function()
    local mock = assert(session.start { environ = {}, execute = false, quiet = true, topics = options.topics,
      brokers = options.brokers, jobs = options.jobs })
    local properties = { ["bootstrap.servers"] = mock.kafka:bootstrap_servers(), ["reconnect.backoff.max.ms"] = 1000 }
    local world = { mock = mock, producer = assert(kafka.producer { properties = properties }),
      admin = assert(kafka.admin { properties = properties }), signals = fake_signals(), port = free_port(),
      http = http.client {} }

    function world:wait(what, fn)
      local deadline = task.monotonic() + DEADLINE
      while true do
        local value = fn()
        if value then return value end
        assert(task.monotonic() < deadline, "waited in vain for " .. what)
        task.sleep(0.01)
      end
    end

    function world:produce(topic, partition, count)
      for i = 1, count or 1 do
        assert(self.producer:produce { topic = topic, partition = partition, value = "v" .. i, timeout = 30 })
      end
    end

    function world:commit(topic, partition, offset)
      assert(self.admin:alter_group_offsets { group = topic .. "-group", timeout = 30,
        partitions = { { topic = topic, partition = partition, offset = offset } } })
    end

    function world:submits(count)
      return self:wait(count .. " submits", function()
        local created = {}
        for _, submit in ipairs(mock.codeengine:counters().submits) do
          if submit.created then created[#created + 1] = submit end
        end
        return #created >= count and created
      end)
    end

    -- Asks the admin endpoint.
    function world:get(path)
      return self.http:get(("http://127.0.0.1:%d%s"):format(self.port, path), { timeout = 5 })
    end

    function world:status(query)
      return assert(self.http:json { url = ("http://127.0.0.1:%d/status"):format(self.port), query = query, timeout = 30 })
    end

    -- Waits until the observer serves; returns its status.
    function world:ready()
      self:wait("readiness", function()
        local answer = self:get "/readyz"
        return answer and answer.status == 200
      end)
      return self:status()
    end

    function world:observe()
      local env = mock:environ {}
      env.ROUSE_ADMIN = tostring(self.port)
      for name, value in pairs(options.env or {}) do env[name] = value end
      local script = options.script or { observe = {}, decide = default_decide }
      self.running = task.spawn(function()
        local how = { script = script, env = env, signals = self.signals }
        for name, value in pairs(options.run or {}) do how[name] = value end
        return observer.run(how)
      end)
    end

    if options.before then options.before(world) end
    world:observe()
    play(world)
    world.signals:send("TERM")
    assert.equal(143, world.running:join(DEADLINE))
    world.producer:close()
    world.admin:close()
    world.http:close()
    mock:close()
  end)
  local deadline = task.monotonic() + DEADLINE
  while task.handles() > handles and task.monotonic() < deadline do -- Kafka handles end on worker threads
    task.run(task.sleep, 0.01)
  end
  assert.is_true(task.handles() <= handles)
end

return with_observer
