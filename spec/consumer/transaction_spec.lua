-- Transactional consumers on a mock cluster, run as the program. The mock keeps no transaction's offsets
-- and hides nothing from who reads committed records only: a real broker does, in
-- spec/kafka/transaction_spec.lua.
require "spec.helper"
local mocked = require "spec.mocked"
local process = require "rouse.process"
local task = require "rouse.task"
local transaction = require "rouse.consumer.transaction"

local PROGRAM = (os.getenv "ROUSE_BUILD" or "build") .. "/rouse"

-- A consumer of these consume settings and functions, to its end. Returns exit code and log lines.
local function run(mock, text, env)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local environ = { PATH = os.getenv "PATH", LSAN_OPTIONS = os.getenv "LSAN_OPTIONS", KAFKA_TOPIC = "payments",
    CONSUMER_GROUP = "g", IDLE_TIMEOUT = "0", ROUSE_ASSIGN = "index", JOB_INDEX = "0", CE_JOBRUN = "run-1",
    ROUSE_KAFKA = "security.protocol=plaintext;fetch.wait.max.ms=10",
    MESSAGEHUB_KAFKA_BROKERS_SASL = mock:bootstrap_servers() }
  for name, value in pairs(env or {}) do environ[name] = value or nil end
  local child <close> = assert(process.spawn { stderr = "pipe", command = { PROGRAM, "run", path }, env = environ })
  local said = {}
  for chunk in function() return child:read { stream = "stderr", timeout = 60 } end do said[#said + 1] = chunk end
  os.remove(path)
  return assert(child:wait { timeout = 60 }).code, table.concat(said)
end

local function read(mock, topic)
  local consumer, found = mocked.consumer(mock, "reader", { ["enable.partition.eof"] = true }), {}
  consumer:assign { { topic = topic, partition = 0, offset = "beginning" } }
  repeat
    local event = assert(consumer:poll { timeout = 60 })
    table.move(event.records or {}, 1, #(event.records or {}), #found + 1, found)
  until event.kind == "eof"
  consumer:close()
  return found
end

local function values(mock, topic)
  local list = {}
  for i, record in ipairs(read(mock, topic)) do list[i] = record.value end
  return table.concat(list, " ")
end

local function committed(mock)
  local consumer <close> = mocked.consumer(mock, "g")
  local list = assert(consumer:committed({ { topic = "payments", partition = 0 } }, { timeout = 30 }))
  return list[1].offset
end

local function with_mock(fn)
  return mocked.run({ topics = { payments = 1, totals = 1, dead = 1 }, deadline = 240 }, fn)
end

-- The same for batches, which are not taken apart.
local BATCHES <const> = [[
  return {
    consume = { transactional = true, retry = { first = 0.001, max = 0.001, tries = 3 } },
    handle_batch = function(records, ctx)
      for _, record in ipairs(records) do ctx.produce { topic = "totals", value = record.value } end
      return "done"
    end,
  }
]]

local COPY <const> = [[
  return {
    consume = { transactional = true, retry = { first = 0.001, max = 0.001, tries = 3 } },
    handle = function(record, ctx)
      ctx.produce { topic = "totals", value = record.value }
      return "done"
    end,
  }]]

describe("consume.transactional", function()
  for _, way in ipairs { "index", "group" } do
    it("commits offsets with what a batch produced, by " .. way, with_mock(function(mock)
      mocked.fill(mock, "payments", 0, 5)
      local code, said = run(mock, [[
        return {
          consume = { transactional = true, batch = 2 },
          handle_batch = function(records, ctx)
            for _, record in ipairs(records) do
              ctx.produce { topic = "totals", key = "", value = record.value:upper() }
            end
            return "done"
          end,
        }]], { ROUSE_ASSIGN = way })
      assert.equal(0, code, said)
      assert.equal("V1 V2 V3 V4 V5", values(mock, "totals"))
      assert.equal("", read(mock, "totals")[1].key)
    end))
  end

  it("drops what a call produced that is not done, and writes dead letters", with_mock(function(mock)
    mocked.fill(mock, "payments", 0, 4)
    local code, said = run(mock, [[
      return {
        consume = { transactional = true, dead = "dead", retry = { first = 0.001, max = 0.001, tries = 3 } },
        handle = function(record, ctx)
          ctx.produce { topic = "totals", value = record.value .. "/" .. ctx.attempt }
          if record.offset == 1 and ctx.attempt < 3 then return "retry", "later" end
          if record.offset == 2 then return "dead", "poison" end
          return "done"
        end,
      }]])
    assert.equal(0, code, said)
    assert.equal("v1/1 v2/3 v4/1", values(mock, "totals"))
    local letters = read(mock, "dead")
    assert.same({ 1, "v3" }, { #letters, letters[1].value })
  end))

  it("writes a batch's dead records beside what the others produced", with_mock(function(mock)
    mocked.fill(mock, "payments", 0, 3)
    local code, said = run(mock, [[
      return {
        consume = { transactional = true, dead = "dead" },
        handle_batch = function(records, ctx)
          local answers = {}
          for i, record in ipairs(records) do
            answers[i] = record.offset == 1 and { "dead", "poison" } or "done"
            if answers[i] == "done" then ctx.produce { topic = "totals", value = record.value } end
          end
          return answers
        end,
      }]])
    assert.equal(0, code, said)
    assert.same({ "v1 v3", "v2" }, { values(mock, "totals"), values(mock, "dead") })
  end))

  it("parks where ctx.produce cannot send, and says where in the script", with_mock(function(mock)
    mock:topic_error { topic = "nowhere", error = "UNKNOWN_TOPIC_OR_PART" }
    mocked.fill(mock, "payments", 0, 2)
    for _, case in ipairs {
      { [[{ topic = "nowhere", value = "" }]], "topic nowhere does not exist" },
      { [[{ topic = "totals", value = 7 }]], "ctx.produce: value: a string expected, got a number" },
      { [[{ topic = "totals", valeu = "7" }]], "valeu" },
      { [[{ topic = "totals", value = ("x"):rep(2000000) }]], "message.max.bytes" },
    } do
      local code, said = run(mock, ([[
        return {
          consume = { transactional = true, retry = { first = 0.001, max = 0.001, tries = 2 } },
          handle = function(record, ctx)
            ctx.produce %s
            return "done"
          end,
        }]]):format(case[1]))
      assert.equal(65, code, said)
      assert.is_truthy(said:find(case[2], 1, true), said)
      assert.is_truthy(said:find(":4: ctx.produce", 1, true), said)
      assert.equal(0, committed(mock))
    end
    assert.equal(0, #read(mock, "totals"))
  end))

  it("stands where the topic for dead letters is missing: 78, nothing committed", with_mock(function(mock)
    mock:topic_error { topic = "nowhere", error = "UNKNOWN_TOPIC_OR_PART" }
    mocked.fill(mock, "payments", 0, 2)
    local code, said = run(mock, [[
      return { consume = { transactional = true, dead = "nowhere" }, handle = function() return "done" end }]])
    assert.equal(78, code, said)
    assert.is_nil((math.tointeger(committed(mock))))
  end))

  it("goes on through a coordinator that is loading", with_mock(function(mock)
    mocked.fill(mock, "payments", 0, 3)
    -- TxnOffsetCommit
    mock:fail { api = 28, errors = { "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_LOAD_IN_PROGRESS" } }
    local code, said = run(mock, COPY)
    assert.equal(0, code, said)
    assert.equal("v1 v2 v3", values(mock, "totals"))
    assert.is_nil(said:find("aborted", 1, true), said)
  end))

  it("handles again what an aborted transaction held, in a transaction for each record", with_mock(function(mock)
    mocked.fill(mock, "payments", 0, 3)
    mock:fail { api = 28, errors = { "ILLEGAL_GENERATION" } }
    local code, said = run(mock, COPY)
    assert.equal(0, code, said)
    assert.equal("v1 v2 v3 v1 v2 v3", values(mock, "totals")) -- the mock shows aborted records, too
    assert.is_truthy(said:find("transaction aborted, its records are handled again", 1, true), said)
  end))

  local function refused_offsets(mock)
    mocked.fill(mock, "payments", 0, 1)
    local errors = {}
    for i = 1, 10 do errors[i] = "ILLEGAL_GENERATION" end
    mock:fail { api = 28, errors = errors }
  end

  it("parks its partition where a record's own transaction fails as often as there are tries", with_mock(function(mock)
    refused_offsets(mock)
    local code, said = run(mock, COPY)
    assert.equal(65, code, said)
    assert.is_truthy(said:find('"partition parked"', 1, true), said)
    assert.is_truthy(said:find('"handler asks for a retry"', 1, true), said)
    assert.equal(0, committed(mock))
  end))

  it("parks a partition of batches after as many aborts as there are tries", with_mock(function(mock)
    refused_offsets(mock)
    local code, said = run(mock, BATCHES)
    assert.equal(65, code, said)
    assert.is_truthy(said:find('"reason":"transaction aborted: ', 1, true), said)
    assert.equal(2, select(2, said:gsub('"transaction aborted, its records', "")), said)
    assert.equal(0, committed(mock))
  end))
end)

describe("a transaction of a partition that is lost", function()
  local place = { topic = "payments", partition = 0 }
  local transactions, producer, ending, part

  local function ok() return true end

  before_each(function()
    ending, producer = nil, {}
    local closed = false
    for _, method in ipairs { "begin", "send_offsets", "commit", "abort", "close" } do
      producer[method] = function(self, options)
        assert(not closed, method .. " of a producer that is closed")
        closed = method == "close"
        if self["on_" .. method] then return self["on_" .. method](options) end
        return true
      end
    end
    transactions = transaction.new {
      settings = { group = "g", transactional = true }, script = { handle = ok }, kafka = {}, task = task,
      log = { warn = ok, error = ok }, properties = function() return {} end,
      session = { partitions = { payments = {} }, say = ok, finish = function(_, outcome) ending = outcome end },
    }
    transactions.next_state = { producer = producer, floor = 0, failures = 0 }
    transactions:script_of(place)
    transactions.states["payments/0"].ready = true
    part = { topic = "payments", partition = 0, committed = 0, position = function() return 3 end }
  end)

  -- The code for the session.
  local function commit()
    local done, _, code
    task.run(function()
      done, _, code = transactions:commit({ topic = "payments", partition = 0, offset = 3, part = part }, 10)
    end)
    assert.is_nil(done)
    return code
  end

  local function fenced() return nil, "fenced by a newer instance", "_FENCED", "fatal" end

  it("says that somebody has the partition where it is fenced and has lost nothing", function()
    producer.on_send_offsets = fenced
    assert.equal("TAKEN", commit())
  end)

  it("is fenced by right where the group took the partition away in the same moment", function()
    function producer.on_send_offsets()
      transactions:leave { place }
      return fenced()
    end
    assert.equal("LOST", commit())
  end)

  it("is fenced by right where that happens while its producer is closed", function()
    producer.on_send_offsets = fenced
    function producer.on_close() transactions:leave { place } end
    assert.equal("LOST", commit())
  end)

  it("asks nothing more of a producer that was closed while the broker was waited for", function()
    function producer.on_send_offsets()
      transactions:leave { place }
      return nil, "not yet", "CONCURRENT_TRANSACTIONS", "retriable"
    end
    assert.equal("LOST", commit())
  end)

  it("is not aborted again after its producer was closed", function()
    local state = transactions.states["payments/0"]
    state.open = true
    function producer.on_abort()
      transactions:drop(state)
      return nil, "not yet", "CONCURRENT_TRANSACTIONS", "retriable"
    end
    task.run(function() transactions:leave { place } end)
  end)

  it("ends nobody who gives up what the group took away", function()
    local state = transactions.states["payments/0"]
    transactions:leave { place }
    transactions:give_up(state, "fenced")
    assert.is_nil(ending)
  end)
end)
