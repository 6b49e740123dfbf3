require "spec.helper"
local kafka = require "rouse.kafka"
local mocked = require "spec.mocked"
local task = require "rouse.task"

local with_mock, admin_of = mocked.run, mocked.admin

describe("kafka producer", function()
  it("reports each delivery", with_mock({ topics = { t = 2 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties() })
    local place = assert(producer:produce { topic = "t", partition = 1, value = "v", timeout = 5 })
    assert.same({ partition = 1, offset = 0 }, place)
    local _, message, code = producer:produce { topic = "t", partition = 9, value = "v", timeout = 5 }
    assert.equal("_UNKNOWN_PARTITION", code)
    assert.is_string(message)
    mock:fail { api = "Produce", errors = { "MSG_SIZE_TOO_LARGE" } }
    _, _, code = producer:produce { topic = "t", partition = 0, value = "v", timeout = 5 }
    assert.equal("MSG_SIZE_TOO_LARGE", code)
    assert.equal(0, producer:outstanding())
    assert.is_true(producer:close { timeout = 5 })
  end))

  it("delivers the first record of a topic without a second's delay", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 0 } })
    local start = task.monotonic()
    assert(producer:produce { topic = "t", value = "v", timeout = 5 })
    assert(task.monotonic() - start < 0.6)
    producer:close()
  end))

  it("sends without waiting, and says at the flush what was lost", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 1 } })
    for i = 1, 3000 do
      assert(producer:send { topic = "t", partition = 0, value = "v" .. i })
    end
    assert(producer:outstanding() > 0)
    assert.is_true(producer:flush { timeout = 10 })
    assert.equal(0, producer:outstanding())
    local admin = admin_of(mock)
    assert.equal(3000, admin:offsets { partitions = { { topic = "t", partition = 0 } }, timeout = 5 }[1].offset)
    mock:fail { api = "Produce", errors = { "TOPIC_AUTHORIZATION_FAILED" } }
    assert(producer:send { topic = "t", partition = 0, value = "x" })
    local _, message, code = producer:flush { timeout = 10 }
    assert.equal("TOPIC_AUTHORIZATION_FAILED", code)
    assert.matches("1 records were not delivered", message, 1, true)
    assert.is_true(producer:flush { timeout = 10 })
    admin:close()
    producer:close()
  end))

  it("delivers what is queued when it closes, or says that it did not", with_mock({ topics = { t = 1 } }, function(mock)
    local admin = admin_of(mock)
    local producer = assert(kafka.producer { properties = mock:properties { ["linger.ms"] = 500 } })
    assert(producer:send { topic = "t", partition = 0, value = "v" })
    assert.is_true(producer:close { timeout = 5 })
    assert.equal(1, admin:offsets { partitions = { { topic = "t", partition = 0 } }, timeout = 5 }[1].offset)
    producer = assert(kafka.producer { properties = { ["bootstrap.servers"] = "127.0.0.1:1" } })
    assert(producer:send { topic = "t", partition = 0, value = "v" })
    local waiting = task.spawn(function()
      return producer:produce { topic = "t", value = "v" }
    end)
    task.sleep(0)
    local _, message, code = producer:close { timeout = 0.2 }
    assert.equal("TIMEDOUT", code)
    assert.equal("2 records were not delivered in time", message)
    assert.equal("CLOSED", select(3, waiting:join { timeout = 1 }))
    admin:close()
  end))

  it("survives a report for a task that is gone", with_mock({ topics = { t = 1 } }, function(mock)
    local producer = assert(kafka.producer { properties = mock:properties() })
    mock:rtt(1, 0.2)
    assert.equal("TIMEDOUT", select(3, producer:produce { topic = "t", value = "v", timeout = 0.05 }))
    collectgarbage()
    mock:rtt(1, 0)
    assert.is_true(producer:flush { timeout = 5 })
    producer:close()
  end))

  it("raises on what it cannot send", function()
    local producer = assert(kafka.producer { properties = { ["bootstrap.servers"] = "127.0.0.1:1" } })
    assert.error_matches(function()
      producer:send { value = "v" }
    end, "producer:send: option 'topic' is missing", 1, true)
    assert.error_matches(function()
      producer:send { topic = "t", value = 3 }
    end, "option 'value': string expected, got number", 1, true)
    assert.error_matches(function()
      producer:send { topic = "t", headers = { { value = "v" } } }
    end, "item 1 has no name", 1, true)
    assert.error_matches(function()
      producer:send { topic = "t", partitions = 1 }
    end, "did you mean 'partition'?", 1, true)
    task.run(function()
      assert(producer:close { timeout = 1 })
    end)
  end)
end)
