-- Dead letters: the record as it came, key, value and timestamp untouched, with headers that say
-- where it comes from and why it is here. The names are Kafka Connect's, so that its tools read
-- them.

local deadletter = {}

-- Longer reasons are cut: a header must never be what makes the record too large.
local MAX_REASON <const> = 1000

---The record to produce.
---@param record table
---@param how {topic: string, group: string, reason: string, attempts: integer, index: integer|nil}
---@return table
function deadletter.letter(record, how)
  local headers = table.move(record.headers or {}, 1, #(record.headers or {}), 1, {})
  local function add(name, value)
    headers[#headers + 1] = { name = name, value = tostring(value) }
  end
  add("__connect.errors.topic", record.topic)
  add("__connect.errors.partition", record.partition)
  add("__connect.errors.offset", record.offset)
  add("__connect.errors.connector.name", how.group)
  add("__connect.errors.task.id", how.index or 0)
  add("__connect.errors.stage", "TASK_PUT")
  add("__connect.errors.class.name", "rouse.consumer")
  add("__connect.errors.exception.class.name", "rouse.dead")
  add("__connect.errors.exception.message", how.reason:sub(1, MAX_REASON))
  add("rouse.attempts", how.attempts)
  return { topic = how.topic, key = record.key, value = record.value, headers = headers,
    timestamp = record.timestamp }
end

---What a partition calls with a dead record: true once every in-sync replica has it.
---@param producer table
---@param how {topic: string, group: string, index: integer|nil, timeout: number|nil}
---@return rouse.consumer.Bury
function deadletter.writer(producer, how)
  return function(record, reason, attempts)
    local letter = deadletter.letter(record, {
      topic = how.topic, group = how.group, index = how.index, reason = reason, attempts = attempts,
    })
    letter.timeout = how.timeout or 30
    local delivered, message, code = producer:produce(letter)
    if not delivered then return nil, message, code end
    return true
  end
end

return deadletter
