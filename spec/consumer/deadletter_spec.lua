require "spec.helper"
local deadletter = require "rouse.consumer.deadletter"

local record = { topic = "payments", partition = 3, offset = 77, key = "k\0", value = "v\0\xff",
  timestamp = 1700000000.25, timestamp_type = "create",
  headers = { { name = "trace", value = "1" }, { name = "trace", value = "2" }, { name = "none" } } }

local function header(letter, name)
  for _, item in ipairs(letter.headers) do
    if item.name == name then return item.value end
  end
end

describe("consumer.deadletter", function()
  it("keeps the record as it came and says where it comes from", function()
    local letter = deadletter.letter(record, { topic = "dead", group = "g", reason = "poison",
      attempts = 4, index = 3 })
    assert.equal("dead", letter.topic)
    assert.equal(record.key, letter.key)
    assert.equal(record.value, letter.value)
    assert.equal(record.timestamp, letter.timestamp)
    assert.same({ record.headers[1], record.headers[2], record.headers[3] },
      { letter.headers[1], letter.headers[2], letter.headers[3] })
    assert.equal("payments", header(letter, "__connect.errors.topic"))
    assert.equal("3", header(letter, "__connect.errors.partition"))
    assert.equal("77", header(letter, "__connect.errors.offset"))
    assert.equal("g", header(letter, "__connect.errors.connector.name"))
    assert.equal("poison", header(letter, "__connect.errors.exception.message"))
    assert.equal("4", header(letter, "rouse.attempts"))
    assert.equal(3, #record.headers)
  end)

  it("keeps a tombstone a tombstone, and cuts a long reason", function()
    local letter = deadletter.letter({ topic = "t", partition = 0, offset = 0 },
      { topic = "dead", group = "g", reason = ("x"):rep(100000), attempts = 1 })
    assert.is_nil(letter.value)
    assert.is_nil(letter.key)
    assert.is_true(#header(letter, "__connect.errors.exception.message") <= 1000)
  end)

  it("is finished only with the delivery report", function()
    local answers = { { nil, "timed out", "_MSG_TIMED_OUT" }, { { partition = 0, offset = 9 } } }
    local bury = deadletter.writer({
      produce = function() return table.unpack(table.remove(answers, 1), 1, 3) end,
    }, { topic = "dead", group = "g" })
    local ok, message, code = bury(record, "r", 1)
    assert.is_nil(ok)
    assert.equal("timed out", message)
    assert.equal("_MSG_TIMED_OUT", code)
    assert.is_true(bury(record, "r", 1))
  end)
end)
