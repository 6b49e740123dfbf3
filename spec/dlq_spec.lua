-- Dead letters listed, shown and sent back: the program on a mock cluster, and its bookkeeping by itself.
require "spec.helper"
local deadletter = require "rouse.consumer.deadletter"
local json = require "rouse.json"
local kafka = require "rouse.kafka"
local mocked = require "spec.mocked"
local process = require "rouse.process"
local progress = require "rouse.dlq.progress"

local PROGRAM = (os.getenv "ROUSE_BUILD" or "build") .. "/rouse"

describe("dlq.progress", function()
  local function of(done, last)
    local list = {}
    for offset = 0, last do if done:has(offset) then list[#list + 1] = offset end end
    return table.concat(list, " ")
  end

  it("survives being written and read", function()
    local done = progress.read()
    for _, range in ipairs { { 7, 7 }, { 3, 4 }, { 12, 12 }, { 8, 9 } } do done:add(range[1], range[2]) end
    assert.equal("3 4 7 8 9 12", of(done, 20))
    local offset, metadata = done:write()
    assert.same({ 0, "replayed+3x2+2x3+2x1" }, { offset, metadata })
    assert.equal("3 4 7 8 9 12", of(progress.read(offset, metadata), 20))
  end)

  it("joins what meets, in any order", function()
    local done = progress.read(2, "replayed+2x1")
    assert.equal("0 1 4", of(done, 9))
    done:add(6, 6)
    done:add(2, 3)
    assert.same({ 5, "replayed+1x1" }, { done:write() })
    done:add(5, 5)
    assert.same({ 7, "replayed" }, { done:write() })
    done:add(0, 3)
    done:add(9, 8)
    assert.same({ 7, "replayed" }, { done:write() })
    done:raise(20)
    assert.same({ 20, "replayed" }, { done:write() })
  end)

  it("does not read what somebody else noted, and says when it cannot be noted", function()
    assert.equal("0 1", of(progress.read(2, "run-7"), 9))
    local done = progress.read()
    for i = 1, 1200 do done:add(i * 3, i * 3) end
    local offset, message = done:write()
    assert.is_nil(offset)
    assert.matches("too many", message, 1, true)
  end)
end)

-- Runs the program on the mock; returns exit code, stdout, stderr.
local function run(mock, ...)
  local child <close> = assert(process.spawn { stdout = "pipe", stderr = "pipe", command = { PROGRAM, "dlq", ... },
    env = { PATH = os.getenv "PATH", LSAN_OPTIONS = os.getenv "LSAN_OPTIONS",
      ROUSE_KAFKA = "security.protocol=plaintext;fetch.wait.max.ms=10",
      MESSAGEHUB_KAFKA_BROKERS_SASL = type(mock) == "string" and mock or mock:bootstrap_servers() } })
  local texts = {}
  for _, stream in ipairs { "stdout", "stderr" } do
    texts[stream] = ""
    for chunk in function() return child:read { stream = stream, timeout = 60 } end do
      texts[stream] = texts[stream] .. chunk
    end
  end
  return assert(child:wait { timeout = 60 }).code, texts.stdout, texts.stderr
end

local TOPICS = { payments = 3, orders = 1, dead = 2, other = 1 }

local function letter(topic, partition, offset, fields)
  local record = { topic = topic, partition = partition, offset = offset, key = "k" .. offset,
    value = "secret\0" .. offset, timestamp = 1700000000.125,
    headers = { { name = "h", value = "1" }, { name = "h", value = "\xff\0" }, { name = "n" } } }
  for name, value in pairs(fields or {}) do record[name] = value or nil end
  local made = deadletter.letter(record, { topic = "dead", group = topic .. "-group", reason = "no\tgood " .. offset,
    attempts = 3, now = 1700000001.5 })
  made.partition = offset % 2
  return made
end

-- dead/0: payments 70, 72, orders 4 (no key, tombstone). dead/1: payments 71 (empty key and value), and no dead letter.
local function fill(mock)
  mock:produce {
    letter("payments", 2, 70), letter("payments", 0, 71, { key = "", value = "" }), letter("payments", 1, 72),
    letter("orders", 0, 4, { key = false, value = false }),
    { topic = "dead", partition = 1, value = "not ours" },
  }
end

local function lines(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

local function read(mock, topic)
  local consumer = mocked.consumer(mock, "reader", { ["enable.partition.eof"] = true })
  local found = {}
  for partition = 0, TOPICS[topic] - 1 do
    consumer:assign { { topic = topic, partition = partition, offset = "beginning" } }
    repeat
      local event = assert(consumer:poll { timeout = 60 })
      table.move(event.records or {}, 1, #(event.records or {}), #found + 1, found)
    until event.kind == "eof"
  end
  consumer:close()
  return found
end

local with_mock = function(fn)
  return mocked.run({ topics = { payments = 3, orders = 1, dead = 2, other = 1 }, deadline = 240 }, fn)
end

describe("rouse dlq list", function()
  it("prints a line for each dead letter, and no value", with_mock(function(mock)
    fill(mock)
    local code, out, err = run(mock, "list", "dead")
    assert.equal(0, code, err)
    assert.same({
      "0/0\tpayments/2/70\tpayments-group\t3\t2023-11-14T22:13:21.500Z\t-\tno good 70",
      "0/1\tpayments/1/72\tpayments-group\t3\t2023-11-14T22:13:21.500Z\t-\tno good 72",
      "0/2\torders/0/4\torders-group\t3\t2023-11-14T22:13:21.500Z\t-\tno good 4",
      "1/0\tpayments/0/71\tpayments-group\t3\t2023-11-14T22:13:21.500Z\t-\tno good 71",
      "1/1\t-\t-\t-\t-\t-\t-",
    }, lines(out))
    assert.is_nil((out .. err):find("secret", 1, true))
    out = select(2, run(mock, "list", "dead", "--group", "payments-group", "--limit", "2"))
    assert.equal(2, #lines(out))
    out = select(2, run(mock, "list", "dead", "--topic", "orders", "--reason", "good 4", "--json"))
    local found = json.decode(out)
    assert.same({ topic = "orders", partition = 0, offset = 4 }, found.origin)
    assert.same({ "orders-group", 3, 1700000001.5, false }, { found.group, found.attempts, found.time, found.replayed })
    assert.same({ name = "h", value = { hex = "ff00" } }, found.headers[2])
    assert.is_nil(found.value_bytes)
  end))

  it("says what is wrong, with an exit code for each", with_mock(function(mock)
    mock:topic_error { topic = "nowhere", error = "UNKNOWN_TOPIC_OR_PART" }
    local code, out, err = run(mock, "list", "nowhere")
    assert.same({ 78, "" }, { code, out })
    assert.matches("topic nowhere does not exist", err, 1, true)
    mock:topic_error { topic = "closed", error = "TOPIC_AUTHORIZATION_FAILED" }
    assert.equal(77, (run(mock, "list", "closed")))
    assert.equal(2, (run(mock, "list", "dead", "--limit", "0")))
    assert.equal(2, (run(mock, "show", "dead", "1")))
    assert.equal(2, (run(mock, "list")))
    code, out, err = run("", "list", "dead")
    assert.same({ 78, "" }, { code, out })
    assert.matches("MESSAGEHUB_KAFKA_BROKERS_SASL is not set", err, 1, true)
  end))

  it("exits 69 where no broker answers", with_mock(function()
    local code, _, err = run("127.0.0.1:1", "list", "dead")
    assert.equal(69, code)
    assert.matches("refused", err, 1, true)
  end))
end)

describe("rouse dlq show", function()
  it("prints metadata and headers, and the value only when asked", with_mock(function(mock)
    fill(mock)
    local code, out = run(mock, "show", "dead", "0/1")
    assert.equal(0, code)
    for _, line in ipairs { "place: 0/1", "origin: payments/1/72", "reason: no good 72", "key: 3 bytes", "value: 9 bytes",
      'header h: "1"', "header n: none", "timestamp: 2023-11-14T22:13:20.125Z", "replayed: no" } do
      assert.is_truthy(("\n" .. out):find("\n" .. line .. "\n", 1, true), line .. " is not in\n" .. out)
    end
    assert.is_nil(out:find("secret", 1, true))
    assert.same({ 0, "secret\0" .. "72", "" }, { run(mock, "show", "dead", "0/1", "--value") })
  end))

  it("tells none from empty", with_mock(function(mock)
    fill(mock)
    local _, out = run(mock, "show", "dead", "1/0")
    assert.is_truthy(out:find("key: 0 bytes\nvalue: 0 bytes", 1, true), out)
    out = select(2, run(mock, "show", "dead", "0/2"))
    assert.is_truthy(out:find("key: none\nvalue: none", 1, true), out)
    assert.equal(1, (run(mock, "show", "dead", "0/2", "--value")))
    assert.equal(0, (run(mock, "show", "dead", "1/0", "--key")))
    local code, _, err = run(mock, "show", "dead", "0/9")
    assert.equal(1, code)
    assert.matches("no record at 0/9", err, 1, true)
    assert.equal(1, (run(mock, "show", "dead", "7/0")))
  end))
end)

describe("rouse dlq replay", function()
  it("sends each record back once, as it was", with_mock(function(mock)
    fill(mock)
    local code, out = run(mock, "replay", "dead", "--dry-run")
    assert.equal(1, code) -- one of them is no dead letter
    assert.equal(4, #lines(out))
    assert.equal(0, #read(mock, "payments"))
    local err
    code, out, err = run(mock, "replay", "dead")
    assert.equal(1, code)
    assert.same({ "0/0\tpayments/2/70\tpayments\t2/0", "0/1\tpayments/1/72\tpayments\t1/0",
      "0/2\torders/0/4\torders\t0/0", "1/0\tpayments/0/71\tpayments\t0/0" }, lines(out))
    assert.is_truthy(err:find("is no dead letter", 1, true), err)
    local found = read(mock, "payments")
    assert.equal(3, #found)
    assert.same({ "", "" }, { found[1].key, found[1].value })
    assert.same({ "k70", "secret\0" .. "70", 1700000000.125 }, { found[3].key, found[3].value, found[3].timestamp })
    assert.same({ { name = "h", value = "1" }, { name = "h", value = "\xff\0" }, { name = "n" } }, found[3].headers)
    local order = read(mock, "orders")[1]
    assert.is_nil(order.key)
    assert.is_nil(order.value)

    out = select(2, run(mock, "replay", "dead"))
    assert.equal("", out)
    assert.equal(3, #read(mock, "payments"))
    out = select(2, run(mock, "list", "dead", "--pending"))
    assert.same({ "1/1\t-\t-\t-\t-\t-\t-" }, lines(out))
    code, out = run(mock, "replay", "dead", "0/0", "--again", "--to", "other")
    assert.equal(0, code)
    assert.same({ "0/0\tpayments/2/70\tother\t0/0" }, lines(out))
    assert.equal(1, #read(mock, "other"))
  end))

  it("remembers those that were chosen, and names those that are not there", with_mock(function(mock)
    fill(mock)
    local code, out, err = run(mock, "replay", "dead", "0/1", "0/9", "5/0")
    assert.equal(1, code)
    assert.equal(1, #lines(out))
    assert.equal(2, select(2, err:gsub("no such dead letter", "")))
    assert.equal(0, (run(mock, "replay", "dead", "--topic", "payments", "--limit", "1")))
    out = select(2, run(mock, "replay", "dead", "--topic", "payments"))
    assert.same({ "1/0\tpayments/0/71\tpayments\t0/0" }, lines(out))
    assert.equal(3, #read(mock, "payments"))
    out = select(2, run(mock, "list", "dead", "--pending"))
    assert.equal(2, #lines(out))
  end))

  it("does not note what was not delivered", with_mock(function(mock)
    fill(mock)
    mock:fail { api = "Produce", errors = { "POLICY_VIOLATION", "POLICY_VIOLATION" } }
    local code, _, err = run(mock, "replay", "dead", "0/0")
    assert.equal(1, code)
    assert.matches("POLICY_VIOLATION", err, 1, true)
    local _, out = run(mock, "list", "dead", "--pending")
    assert.equal(5, #lines(out))
    mock:topic_error { topic = "orders", error = "UNKNOWN_TOPIC_OR_PART" }
    code, _, err = run(mock, "replay", "dead", "0/2")
    assert.equal(1, code)
    assert.matches("topic orders does not exist", err, 1, true)
    assert.equal(0, #assert(kafka.match and read(mock, "payments")))
  end))
end)
