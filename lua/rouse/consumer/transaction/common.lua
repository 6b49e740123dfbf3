-- What the rooms of rouse.consumer.transaction share.

local common = {}

---Codes that say that somebody else has taken the partition's transactional.id.
common.FENCED = { _FENCED = true, INVALID_PRODUCER_EPOCH = true, PRODUCER_FENCED = true }

---Seconds of one call of librdkafka; those that may be repeated are.
common.TIMEOUT = 10

---The name of a partition in tables.
---@param item {topic: string, partition: integer}
---@return string
function common.key(item) return ("%s/%d"):format(item.topic, item.partition) end

return common
