require "spec.helper"
local verdict = require "rouse.verdict"
local reader = require "rouse.observer.reader"
local with_observer = require "spec.observer.world"

-- A cluster of three brokers that loses leaders, brokers, topics and permissions, and gets them back.

local DEAD <const> = 2

local function decide()
  return verdict.wake { reason = "records wait" }
end

-- Looks at the topics often enough for a spec.
local watchful = { observe = { refresh = 0.3 }, decide = decide }

local function route(w, topic)
  for _, item in ipairs(w:status().routes) do
    if item.topic == topic then return item end
  end
end

local function unit(w, topic)
  for _, item in ipairs(w:status().units) do
    if item.job == topic .. "-consumer" then return item end
  end
end

-- Waits until the doorbell is armed on so many partitions of a topic.
local function armed(w, topic, count)
  w:wait(count .. " armed partitions of " .. topic, function()
    local seen = 0
    for _, part in ipairs(unit(w, topic).parts) do
      seen = seen + (part.armed and 1 or 0)
    end
    return seen == count
  end)
end

-- Waits for a run of a topic's job beyond the first `known` of it, and ends it with everything consumed.
local function woken(w, topic, known)
  local submit = w:wait("run " .. known + 1 .. " of " .. topic, function()
    local seen = 0
    for _, each in ipairs(w.mock.codeengine:counters().submits) do
      seen = seen + (each.created and each.job == topic .. "-consumer" and 1 or 0)
      if seen > known then return each end
    end
  end)
  return submit
end

local function consumed(w, submit, topic, partition, offset)
  w:commit(topic, partition, offset)
  w.mock.codeengine:finish(submit.name)
end

local function leaders(w, topic, brokers)
  for i, broker in ipairs(brokers) do
    w.mock.kafka:set_leader { topic = topic, partition = i - 1, broker = broker }
  end
end

describe("observer of several brokers", function()
  it("follows leaders that move", function()
    with_observer({ brokers = 3 }, function(w)
      w:ready()
      for broker = 1, 3 do
        leaders(w, "payments", { broker, broker, broker, broker })
        w:produce("payments", 1)
        local submit = woken(w, "payments", broker - 1)
        assert.equal("1", submit.indices)
        consumed(w, submit, "payments", 1, broker)
        armed(w, "payments", 4)
        w:wait("every offset to be read", function() return not unit(w, "payments").unread end)
      end
    end)
  end)

  it("wakes for the brokers that live, and for the dead one's partitions when it is back", function()
    with_observer({ brokers = 3, topics = { { name = "payments", partitions = 3 }, { name = "shipping", partitions = 2 } },
      before = function(w)
        leaders(w, "payments", { 1, DEAD, 3 })
        leaders(w, "shipping", { 1, 3 })
      end }, function(w)
      w:ready()
      armed(w, "payments", 3)
      w.mock.kafka:broker_down(DEAD)
      w:produce("payments", 0)
      local submit = woken(w, "payments", 0)
      assert.equal("0", submit.indices)
      local part = w:wait("the dead broker's partition to be known as unread", function()
        local known = unit(w, "payments").parts[2]
        return known.error and known
      end)
      assert.equal(1, part.partition)
      assert.is_false(part.work)
      w:produce("shipping", 1)
      assert.equal("1", woken(w, "shipping", 0).indices)
      w:produce("payments", 2)
      assert.equal("2", woken(w, "payments", 1).indices)
      w.mock.kafka:broker_up(DEAD)
      w:produce("payments", 1)
      assert.equal("1", woken(w, "payments", 2).indices)
    end)
  end)

  -- What becomes of a broker, and how it comes back: for good, all that it owed is refused.
  local away = {
    ["refuses connections"] = { leave = function(kafka) kafka:broker_down(DEAD) end,
      back = function(kafka) kafka:broker_up(DEAD) end },
    ["does not answer"] = { leave = function(kafka) kafka:rtt(DEAD, 3600) end, back = function(kafka)
      kafka:rtt(DEAD, 0)
      kafka:broker_down(DEAD)
      kafka:broker_up(DEAD)
    end },
  }
  for what, how in pairs(away) do
    it("waits for no broker that " .. what, function()
      local timeout = reader.TIMEOUT
      finally(function() reader.TIMEOUT = timeout end)
      reader.TIMEOUT = 3600
      with_observer({ brokers = 3,
        env = { ROUSE_KAFKA = "security.protocol=plaintext;fetch.wait.max.ms=20;socket.timeout.ms=300000" },
        topics = { { name = "payments", partitions = 3 }, { name = "shipping", partitions = 3 } },
        before = function(w)
          leaders(w, "payments", { 1, DEAD, 3 })
          leaders(w, "shipping", { 1, DEAD, 3 })
          for _, topic in ipairs { "payments", "shipping" } do
            w.mock.kafka:set_coordinator { group = topic .. "-group", broker = 1 }
            for partition = 0, 2 do -- the producer must not get to know anybody later
              w:produce(topic, partition)
              w:commit(topic, partition, 1)
            end
          end
        end }, function(w)
        w:ready()
        armed(w, "payments", 3)
        armed(w, "shipping", 3)
        how.leave(w.mock.kafka)
        w:produce("payments", 0)
        assert.equal("0", woken(w, "payments", 0).indices)
        w:produce("shipping", 2)
        assert.equal("2", woken(w, "shipping", 0).indices)
        w:produce("payments", 2)
        assert.equal("2", woken(w, "payments", 1).indices)
        assert.equal("_TIMED_OUT", unit(w, "payments").parts[2].error)
        assert.is_false(unit(w, "payments").parts[2].work)
        how.back(w.mock.kafka)
        w:produce("payments", 1)
        assert.equal("1", woken(w, "payments", 2).indices)
        w:produce("shipping", 1)
        assert.equal("1", woken(w, "shipping", 1).indices)
      end)
    end)
  end

  it("finds the coordinator that a group has got when its former one hangs", function()
    local timeout = reader.TIMEOUT
    finally(function() reader.TIMEOUT = timeout end)
    reader.TIMEOUT = 3
    with_observer({ brokers = 3, topics = { { name = "payments", partitions = 1 } },
      before = function(w)
        leaders(w, "payments", { 1 })
        w.mock.kafka:set_coordinator { group = "payments-group", broker = DEAD }
        w:produce("payments", 0)
        w:commit("payments", 0, 1)
      end }, function(w)
      w:ready()
      armed(w, "payments", 1)
      w.mock.kafka:rtt(DEAD, 3600)
      w:produce("payments", 0)
      w:wait("a failed reading", function() return unit(w, "payments").decision.code == "read_failed" end)
      w.mock.kafka:set_coordinator { group = "payments-group", broker = 3 }
      woken(w, "payments", 0)
    end)
  end)

  it("ends while one of them owes it an answer", function()
    with_observer({ brokers = 3, topics = { { name = "payments", partitions = 2 } },
      before = function(w)
        leaders(w, "payments", { 1, DEAD })
        w.mock.kafka:set_coordinator { group = "payments-group", broker = 1 }
        w:produce("payments", 0)
        w:commit("payments", 0, 1)
      end }, function(w)
      w:ready()
      armed(w, "payments", 2)
      w.mock.kafka:rtt(DEAD, 3600)
      w:produce("payments", 0)
      woken(w, "payments", 0)
      assert.equal("_TIMED_OUT", unit(w, "payments").parts[2].error)
    end)
  end)

  it("goes on when all of them were away", function()
    with_observer({ brokers = 3 }, function(w)
      w:ready()
      for _, topic in ipairs { "payments", "shipping" } do
        w:wait("a decision on " .. topic, function()
          local decision = unit(w, topic).decision
          return decision and decision.code == "no_work"
        end)
      end
      armed(w, "payments", 4)
      -- Nothing is active, so nothing but the brokers' return is a reason to list runs.
      local lists = w.mock.codeengine:counters().requests.list
      for broker = 1, 3 do w.mock.kafka:broker_down(broker) end
      w:wait("it to say so", function() return not w:status().ready end)
      assert.equal(lists, w.mock.codeengine:counters().requests.list)
      for broker = 1, 3 do w.mock.kafka:broker_up(broker) end
      w:wait("it to say that they are back", function() return w:status().ready end)
      w:wait("it to look at everything anew", function() return w.mock.codeengine:counters().requests.list > lists end)
      w:produce("payments", 2)
      assert.equal("2", woken(w, "payments", 0).indices)
      assert.equal(1, #w.mock.codeengine:counters().submits)
    end)
  end)

  it("says which topic it may not read, wakes for the others, and reads it again when it may", function()
    with_observer({ brokers = 3, script = watchful }, function(w)
      w:ready()
      armed(w, "payments", 4)
      w.mock.kafka:topic_error { topic = "payments", error = "TOPIC_AUTHORIZATION_FAILED" }
      w:wait("the route's problem", function()
        local problem = route(w, "payments").problem
        return problem and problem:find("TOPIC_AUTHORIZATION_FAILED", 1, true)
      end)
      assert.is_nil(route(w, "shipping").problem)
      w:produce("shipping", 0)
      assert.equal("0", woken(w, "shipping", 0).indices)
      w.mock.kafka:topic_error { topic = "payments" }
      w:wait("the problem to go", function() return not route(w, "payments").problem end)
      w:produce("payments", 3)
      assert.equal("3", woken(w, "payments", 0).indices)
    end)
  end)

  it("leaves a deleted topic, says so, and takes up another of that name", function()
    with_observer({ brokers = 3, script = watchful }, function(w)
      w:ready()
      armed(w, "payments", 4)
      w.mock.kafka:topic_error { topic = "payments", error = "UNKNOWN_TOPIC_OR_PART" }
      w:wait("the route's problem", function() return route(w, "payments").problem == "the topic was deleted" end)
      w:wait("nothing to be known of it", function() return #unit(w, "payments").parts == 0 end)
      w:produce("shipping", 0)
      assert.equal("0", woken(w, "shipping", 0).indices)
      w.mock.kafka:topic_error { topic = "payments" }
      armed(w, "payments", 4)
      assert.is_nil(route(w, "payments").problem)
      w:produce("payments", 3)
      assert.equal("3", woken(w, "payments", 0).indices)
    end)
  end)

  it("watches a topic that comes to match a pattern", function()
    local env = { kafkadata = "^pay:\n  jobs:\n  - payments-consumer\n" }
    with_observer({ brokers = 3, script = watchful, env = env }, function(w)
      w:ready()
      armed(w, "payments", 4)
      w.mock.kafka:create_topic { name = "payrolls", partitions = 2 }
      armed(w, "payments", 6)
      w.producer:produce { topic = "payrolls", partition = 1, value = "v", timeout = 30 }
      local submit = woken(w, "payments", 0)
      assert.equal("payments,payrolls", submit.env.KAFKA_TOPIC)
      assert.equal(2, #route(w, "^pay").topics)
    end)
  end)
end)
