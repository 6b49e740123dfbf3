require "spec.helper"
local kafka = require "rouse.kafka"
local mock_kafka = require "rouse.mock.kafka"
local task = require "rouse.task"

describe("rouse.mock.kafka", function()
  after_each(function() -- what closes in the background
    task.run(function()
      collectgarbage()
      local deadline = task.monotonic() + 30
      while task.handles() > 0 and task.monotonic() < deadline do
        task.sleep(0.01)
      end
      assert.equal(0, (task.handles()))
    end)
  end)

  it("serves a consumer what it produced", function()
    task.run(function()
      local mock <close> = mock_kafka.new { topics = { orders = 2 } }
      local places = mock:produce {
        { topic = "orders", partition = 1, key = "a", value = "1" },
        { topic = "orders", partition = 1, key = "b", value = "2" },
      }
      assert.same({ { partition = 1, offset = 0 }, { partition = 1, offset = 1 } }, places)
      assert.same({ { partition = 0, offset = 0 } }, mock:produce { topic = "orders", partition = 0, value = "3" })
      local consumer <close> = assert(kafka.consumer { properties = mock:consumer_properties() })
      assert(consumer:assign { { topic = "orders", partition = 1, offset = 1 } })
      local event = assert(consumer:poll { timeout = 30 })
      assert.equal("2", event.records[1].value)
    end)
  end)

  it("takes topics as an array too, and properties on top of its own", function()
    task.run(function()
      local mock <close> = mock_kafka.new { brokers = 2, topics = { { name = "a", partitions = 3 }, { name = "b" } } }
      local _, count = mock:bootstrap_servers():gsub("127%.0%.0%.1:%d+", "")
      assert.equal(2, count)
      local properties = mock:consumer_properties("g", { ["fetch.wait.max.ms"] = 77 })
      assert.equal("g", properties["group.id"])
      assert.equal(77, properties["fetch.wait.max.ms"])
      assert.equal(mock:bootstrap_servers(), properties["bootstrap.servers"])
      local admin <close> = assert(kafka.admin { properties = mock:properties() })
      local metadata = assert(admin:metadata { timeout = 30 })
      assert.equal(3, #metadata.topics.a.partitions)
      assert.equal(1, #metadata.topics.b.partitions)
      assert(mock:create_topic { name = "c", partitions = 4 })
      assert.equal(4, #assert(admin:metadata { timeout = 30 }).topics.c.partitions)
    end)
  end)

  it("creates no topic that a consumer looks for, only one that is produced to", function()
    task.run(function()
      local mock <close> = mock_kafka.new { topics = { orders = 1 } }
      local admin <close> = assert(kafka.admin { properties = mock:properties() })
      local consumer <close> = assert(kafka.consumer {
        properties = mock:consumer_properties("g", { ["topic.metadata.propagation.max.ms"] = 100 }),
      })
      assert(consumer:assign { { topic = "looked-for", partition = 0, offset = 0 } })
      local event = assert(consumer:poll { timeout = 30 })
      assert.matches("UNKNOWN", event.code)
      mock:produce { topic = "produced", value = "v" }
      local topics = assert(admin:metadata { timeout = 30 }).topics
      assert.is_nil(topics["looked-for"])
      assert.is_table(topics.produced)
    end)
  end)

  it("injects faults, once for each error named", function()
    task.run(function()
      local mock <close> = mock_kafka.new { topics = { t = 1 } }
      assert(mock:fail { api = "Produce", errors = { "MSG_SIZE_TOO_LARGE" } })
      local ok, message = pcall(mock.produce, mock, { topic = "t", value = "v" })
      assert.is_false(ok)
      assert.matches("too large", message, 1, true)
      assert.equal(0, mock:produce { topic = "t", value = "v" }[1].offset)
    end)
  end)

  it("raises on what it does not know", function()
    local mock <close> = mock_kafka.new()
    assert.error_matches(function()
      mock_kafka.new { topic = {} }
    end, "unknown key 'topic'", 1, true)
    assert.error_matches(function()
      mock:fail { api = "Fetsch", errors = {} }
    end, "a request's name", 1, true)
    assert.error_matches(function()
      mock:fail { api = "Fetch", errors = { "NO_SUCH" } }
    end, "librdkafka knows no error 'NO_SUCH'", 1, true)
    assert.is_nil((mock:broker_down(7)))
  end)

  it("may be closed twice, and raises when used after", function()
    local mock = mock_kafka.new()
    mock:close()
    mock:close()
    assert.error_matches(function()
      mock:bootstrap_servers()
    end, "closed", 1, true)
  end)
end)
