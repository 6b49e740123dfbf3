-- The packaged consumer: reads KAFKA_TOPIC in CONSUMER_GROUP, logs where each record is (never what
-- is in it), and exits after IDLE_TIMEOUT seconds without records. Copy it and put your work where
-- the log line is.

local log = require "rouse.log"

return {
  -- What is not written here comes from the environment or has a default:
  -- topics = { "payments" }, group = "payments-group", idle_exit = 60, dead = "payments-dead",
  -- retry = { first = 1, max = 60, tries = 10 }
  consume = {
    headers = false, -- this handler does not look at them, which makes each record cheaper
  },

  -- Called for each record, in the order of its partition. Its offset is committed after "done".
  --   return "done"              the record is finished
  --   return "retry", "why"      call me again with it, later each time; an error means the same
  --   return "dead", "why"       give it up: to the topic named by dead=, or park the partition
  handle = function(record)
    log.info("record", log.place(record))
    return "done"
  end,
}
