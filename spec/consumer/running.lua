-- Running a whole consumer against a fake cluster, to its end.
require "spec.helper"
local consumer = require "rouse.consumer"
local fake = require "spec.consumer.fake"
local task = require "rouse.task"

local running = {}

local DEADLINE <const> = 60 -- seconds

running.DEADLINE = DEADLINE

function running.environment(more)
  local env = { KAFKA_TOPIC = "payments", CONSUMER_GROUP = "payments-group", IDLE_TIMEOUT = "0",
    ROUSE_KAFKA = "security.protocol=plaintext;bootstrap.servers=localhost:1" }
  for name, value in pairs(more or {}) do env[name] = value or nil end
  return env
end

function running.by_index(more)
  local env = running.environment { ROUSE_ASSIGN = "index", JOB_INDEX = "0", CE_JOBRUN = "run-7" }
  for name, value in pairs(more or {}) do env[name] = value end
  return env
end

-- Runs a script against a fake cluster to its end; `during` runs beside it.
function running.run(cluster, script, env, during, options)
  local log, signals = fake.log(), fake.signals()
  script.consume = script.consume or {}
  script.consume.retry = script.consume.retry or { first = 0.001, max = 0.001, tries = 3 }
  options = options or {}
  local exit
  task.run(function()
    local deadline = task.spawn(function()
      task.sleep(DEADLINE)
      error(("the consumer did not end in %d s"):format(DEADLINE))
    end)
    local kafka = cluster:module()
    local beside = during and task.spawn(during, signals, log)
    exit = consumer.run {
      script = script, env = env, signals = signals, kafka = kafka, log = log,
      drain = options.drain, commit_interval = options.commit_interval, collector = options.collector,
    }
    if beside then beside:cancel() end
    deadline:cancel()
  end)
  return exit, log
end

function running.await(cond)
  local deadline = task.monotonic() + DEADLINE / 2
  while not cond() do
    assert(task.monotonic() < deadline, "what was waited for did not happen")
    task.sleep(0.001)
  end
end

function running.done() return "done" end

-- A group's first assignment, as the coordinator would send it.
function running.join(cluster, protocol)
  cluster.events = {}
  cluster.on_subscribe = function(topics)
    local list = {}
    for _, topic in ipairs(topics) do
      for number = 0, #cluster.logs[topic] do
        list[#list + 1] = { topic = topic, partition = number }
      end
    end
    cluster:event { kind = "assign", partitions = list, protocol = protocol or "EAGER" }
  end
end

return running
