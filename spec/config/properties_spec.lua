require "spec.helper"
local properties = require "rouse.config.properties"

local ROLES = { "doorbell", "query", "claims", "consumer", "producer" }

describe("properties.parse", function()
  it("splits at semicolons and newlines, blanks do not count", function()
    assert.same({ ["security.protocol"] = "plaintext", ["client.id"] = "a b", debug = "" },
      properties.parse(" security.protocol = plaintext ;; client.id=a b\n\r\n debug= ;"))
  end)

  it("keeps further equal signs in the value", function()
    assert.same({ ["sasl.password"] = "a=b==" }, properties.parse "sasl.password=a=b==")
  end)

  it("uses one name for each property", function()
    assert.same({ ["sasl.mechanisms"] = "PLAIN" }, properties.parse "sasl.mechanism=PLAIN")
  end)

  it("never repeats an entry it does not understand", function()
    local parsed, message = properties.parse "client.id=x; hunter2 ;a=b"
    assert.is_nil(parsed)
    assert.equal("entry 2 is not name=value", message)
    assert.matches("^entry 1: a name has letters", (select(2, properties.parse "a b=hunter2")))
    assert.equal("entry 1 is not name=value", (select(2, properties.parse "=x")))
  end)
end)

describe("properties.resolve", function()
  local environment = { ["bootstrap.servers"] = "b:9093", ["sasl.username"] = "token",
    ["sasl.password"] = "secret", ["ssl.ca.location"] = "/ca" }

  it("speaks SASL_SSL with PLAIN unless told otherwise, in every role", function()
    for _, role in ipairs(ROLES) do
      local result = properties.resolve(role, { environment = environment })
      assert.equal("SASL_SSL", result["security.protocol"])
      assert.equal("PLAIN", result["sasl.mechanisms"])
      assert.equal("secret", result["sasl.password"])
      assert.equal("/ca", result["ssl.ca.location"])
      assert.equal("rouse", result["client.id"])
      for name, value in pairs(result) do
        assert.is_string(value, name)
      end
    end
  end)

  it("orders the layers: defaults, environment, script, ROUSE_KAFKA, the runtime's own", function()
    local layers = { environment = { ["client.id"] = "env" } }
    local function id(own)
      return properties.resolve("consumer", layers, own)["client.id"]
    end
    assert.equal("rouse", properties.resolve("consumer", {})["client.id"])
    assert.equal("env", id())
    layers.script = { ["client.id"] = "script" }
    assert.equal("script", id())
    layers.override = { ["client.id"] = "override" }
    assert.equal("override", id())
    assert.equal("own", id { ["client.id"] = "own" })
  end)

  it("merges a property under any of its names", function()
    local result = properties.resolve("consumer", {
      environment = environment, script = { ["metadata.broker.list"] = "c:9092" },
    })
    assert.equal("c:9092", result["bootstrap.servers"])
    assert.is_nil(result["metadata.broker.list"])
  end)

  it("writes values as librdkafka reads them", function()
    local result = properties.resolve("consumer", { script = {
      ["session.timeout.ms"] = 6000.0, ["socket.keepalive.enable"] = false, debug = "fetch" } })
    assert.equal("6000", result["session.timeout.ms"])
    assert.equal("false", result["socket.keepalive.enable"])
    assert.equal("fetch", result.debug)
  end)

  it("leaves out credentials that the protocol does not use", function()
    local result = properties.resolve("query",
      { environment = environment, override = { ["security.protocol"] = "plaintext" } })
    assert.equal("plaintext", result["security.protocol"])
    for name in pairs(result) do
      assert.is_nil(name:match("^sasl%.") or name:match("^ssl%."), name)
    end
    result = properties.resolve("query",
      { environment = environment, override = { ["security.protocol"] = "SASL_PLAINTEXT" } })
    assert.equal("secret", result["sasl.password"])
    assert.is_nil(result["ssl.ca.location"])
  end)

  it("gives producers and consumers only what is theirs", function()
    local script = { ["linger.ms"] = 5, ["fetch.wait.max.ms"] = 100, debug = "broker" }
    local producer = properties.resolve("producer", { script = script })
    local consumer = properties.resolve("consumer", { script = script })
    assert.same({ "5", nil, "broker" }, { producer["linger.ms"], producer["fetch.wait.max.ms"], producer.debug })
    assert.same({ nil, "100", "broker" },
      { consumer["linger.ms"], consumer["fetch.wait.max.ms"], consumer.debug })
  end)

  it("makes the doorbell ring for committed records and errors, and for the first byte", function()
    local result = properties.resolve("doorbell", { environment = environment })
    assert.equal("read_committed", result["isolation.level"])
    assert.equal("error", result["auto.offset.reset"])
    assert.equal("1", result["fetch.min.bytes"])
    assert.equal("false", result["enable.auto.commit"])
  end)

  it("raises on properties that Rouse owns, whatever they are called", function()
    for name, instead in pairs {
      ["group.id"] = "use consume.group or CONSUMER_GROUP",
      ["enable.auto.commit"] = "commits what a handler has finished",
      ["auto.commit.enable"] = "commits what a handler has finished",
      ["auto.offset.reset"] = "use reset= of the route or of consume",
      ["group.instance.id"] = "use consume.instance_id",
    } do
      local ok, message = pcall(properties.resolve, "consumer", { script = { [name] = "x" } })
      assert.is_false(ok)
      assert.is_truthy(message:find(("kafka: '%s' is owned by Rouse: "):format(name), 1, true), message)
      assert.is_truthy(message:find(instead, 1, true), message)
    end
    assert.has_error(function() properties.resolve("bell", {}) end)
  end)
end)

describe("properties of every role", function()
  local kafka = require "rouse.kafka"
  local task = require "rouse.task"
  local open = { doorbell = kafka.consumer, query = kafka.admin, claims = kafka.consumer,
    consumer = kafka.consumer, producer = kafka.producer }

  for _, role in ipairs(ROLES) do
    it("are accepted by librdkafka: " .. role, function()
      task.run(function()
        local own = (role == "claims" or role == "consumer") and { ["group.id"] = "g" } or nil
        for _, override in ipairs { {}, { ["security.protocol"] = "plaintext" } } do
          local handle = assert(open[role] { properties = properties.resolve(role, {
            -- Without a broker, so that nothing is tried and complained about.
            environment = { ["sasl.username"] = "token", ["sasl.password"] = "secret" },
            override = override,
          }, own) })
          assert(handle:close { timeout = 5 })
        end
      end)
    end)
  end

  it("are validated by librdkafka, in its words", function()
    task.run(function()
      local handle, message, code = kafka.admin { properties = properties.resolve("query",
        { script = { ["socket.timeout.mss"] = 1 } }) }
      assert.is_nil(handle)
      assert.matches("socket%.timeout%.mss", message)
      assert.equal("CONFIG", code)
    end)
  end)
end)

describe("properties.check", function()
  it("owns the doorbell's properties for observers only", function()
    local checked, message, name = properties.check({ ["isolation.level"] = "read_uncommitted" },
      properties.ROLES.observer)
    assert.is_nil(checked)
    assert.matches("must ring for committed records only", message)
    assert.equal("isolation.level", name)
    assert.same({ ["isolation.level"] = "read_uncommitted" },
      properties.check({ ["isolation.level"] = "read_uncommitted" }, properties.ROLES.consumer))
  end)

  it("refuses what is no property, without showing values", function()
    local _, message = properties.check({ ["sasl.password"] = { "hunter2" } }, properties.ROLES.consumer)
    assert.equal("'sasl.password' is a table, expected a string, a number or true or false", message)
    assert.matches("a property's name is 1", (select(2, properties.check({ "x" }, properties.ROLES.consumer))))
  end)
end)

it("properties.secrets finds every secret among the layers", function()
  local found = properties.secrets {
    environment = { ["sasl.password"] = "one", ["sasl.username"] = "token" },
    script = { ["ssl.key.password"] = "two" },
    override = { ["sasl.password"] = "three" },
  }
  table.sort(found)
  assert.same({ "one", "three", "two" }, found)
end)
