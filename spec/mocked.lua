-- What the specs of the Kafka handles share: a mock cluster for the time of one function, and its clients.
require "spec.helper"
local assert = require "luassert" -- busted sets the global in spec files only
local kafka = require "rouse.kafka"
local mock_kafka = require "rouse.mock.kafka"
local task = require "rouse.task"

local mocked = {}

-- Returns a function that runs fn(mock) in a task with a deadline; afterwards everything must be closed.
function mocked.run(options, fn)
  return function()
    local seconds = options.deadline or 60
    options.deadline = nil
    task.run(function()
      local mock = mock_kafka.new(options)
      local child = task.spawn(fn, mock)
      local ok, message, code = child:join { timeout = seconds }
      mock:close()
      collectgarbage()
      if code then
        child:cancel()
        error(message, 0)
      end
      local deadline = task.monotonic() + 30
      while task.handles() > 0 and task.monotonic() < deadline do
        task.sleep(0.01) -- closing goes on in the background, and tells nobody when done
      end
      assert.equal(0, (task.handles()))
      return ok
    end)
  end
end

function mocked.consumer(mock, group, more)
  return assert(kafka.consumer { properties = mock:consumer_properties(group, more) })
end

function mocked.admin(mock, more)
  return assert(kafka.admin { properties = mock:properties(more) })
end

function mocked.fill(mock, topic, partition, count, value)
  local records = {}
  for i = 1, count do
    records[i] = { topic = topic, partition = partition, value = value or ("v" .. i) }
  end
  return mock:produce(records)
end

-- The records of the next events until there are `count`.
function mocked.read(consumer, count, options)
  local records = {}
  local deadline = task.monotonic() + 30
  while #records < count do
    options = options or {}
    options.timeout = deadline - task.monotonic()
    local event = assert(consumer:poll(options))
    assert.equal("records", event.kind)
    table.move(event.records, 1, #event.records, #records + 1, records)
  end
  return records
end

return mocked
