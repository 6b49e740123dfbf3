-- What an error code of Kafka means for a consumer, and the exit code a fault that ends it
-- deserves.

local faults = {}

faults.exit = {
  parked = 65, unavailable = 69, bug = 70, deadline = 75, credentials = 77, configuration = 78,
}

local kinds = {
  _AUTHENTICATION = "credentials",
  SASL_AUTHENTICATION_FAILED = "credentials",
  UNSUPPORTED_SASL_MECHANISM = "credentials",
  ILLEGAL_SASL_STATE = "credentials",
  TOPIC_AUTHORIZATION_FAILED = "authorization",
  GROUP_AUTHORIZATION_FAILED = "authorization",
  CLUSTER_AUTHORIZATION_FAILED = "authorization",
  UNKNOWN_TOPIC_OR_PART = "topic",
  _UNKNOWN_TOPIC = "topic",
  _UNKNOWN_PARTITION = "topic",
  INVALID_TOPIC_EXCEPTION = "topic",
  _ALL_BROKERS_DOWN = "link",
  _TRANSPORT = "link",
  _RESOLVE = "link",
  _SSL = "link",
  _TIMED_OUT = "link",
  TIMEDOUT = "link",
  -- a broker's answer to somebody who is not (or no longer) the group's member
  UNKNOWN_MEMBER_ID = "group",
  ILLEGAL_GENERATION = "group",
  REBALANCE_IN_PROGRESS = "group",
  FENCED_INSTANCE_ID = "group",
  _ASSIGNMENT_LOST = "group",
  _FENCED = "fatal",
  _FATAL = "fatal",
}

---@param code string|nil
---@return "credentials"|"authorization"|"topic"|"link"|"group"|"fatal"|"other"
function faults.kind(code)
  return kinds[code] or "other"
end

---The outcome of a session that never got to work.
---@param exit integer
---@param message string|string[]  one line of the log each
---@param fields table|nil
function faults.at_start(exit, message, fields)
  return { kind = "fault", start = true, exit = exit, message = message, fields = fields }
end

return faults
