-- rouse dlq list|show|replay: what lies in a topic of dead letters, and sending it back. Values are
-- printed only where that is asked for.

local deadletter = require "rouse.consumer.deadletter"
local dlq = require "rouse.dlq"
local environment = require "rouse.config.environment"
local json = require "rouse.json"
local log = require "rouse.log"
local sys = require "rouse.core.sys"

local command = {}

local PROBLEMS <const>, CONFIGURATION <const> = 1, 78

-- ---- arguments ----

local function count(text)
  local value = math.tointeger(text)
  if value and value >= 1 then return value end
  return nil, ("'%s' is not a number from 1"):format(text)
end

local function place(text)
  local partition, offset = text:match("^(%d+)/(%d+)$")
  partition, offset = math.tointeger(partition), math.tointeger(offset)
  if partition and offset then return { partition = partition, offset = offset } end
  return nil, ("'%s' is not PARTITION/OFFSET, as `rouse dlq list` prints it"):format(text)
end

local function filters(parser)
  parser:argument("topic", "The topic of dead letters.")
  parser:option("--group", "Only those of this consumer group."):argname("GROUP")
  parser:option("--topic", "Only those whose record was in this topic."):argname("TOPIC"):target("origin")
  parser:option("--reason", "Only those whose reason contains this text."):argname("TEXT")
  parser:option("--limit", "At most that many."):argname("N"):convert(count)
end

function command.setup(parser)
  parser:command_target("action")
  local list = parser:command("list", "A line for each dead letter: its place, where the record was, group, attempts, "
    .. "time, whether it was replayed, reason; separated by tabs.")
  filters(list)
  list:flag("--pending", "Only those that were not replayed.")
  list:flag("--json", "A JSON object a line.")
  local show = parser:command("show", "One dead letter: metadata and headers.")
  show:argument("topic", "The topic of dead letters.")
  show:argument("place", "PARTITION/OFFSET, as list prints it."):convert(place)
  show:mutex(show:flag("--json", "As a JSON object."), show:flag("--value", "Nothing but the value, as it is."),
    show:flag("--key", "Nothing but the key, as it is."))
  local replay = parser:command("replay", "Send records back to where they were, once each.")
  filters(replay)
  replay:argument("places", "PARTITION/OFFSET of those to send; all without any."):args("*"):convert(place)
  replay:option("--to", "Another topic than the one they were in."):argname("TOPIC")
  replay:flag("--again", "Also those that were replayed already.")
  replay:flag("--dry-run", "Print what would be sent, and send nothing."):target("dry")
  for _, each in ipairs { list, show, replay } do each.error = parser.error end
end

-- ---- printing ----

-- One line's worth of a text from somewhere: no tabs, no control characters.
local function plain(text)
  if text == nil then return "-" end
  text = tostring(text):gsub("%c", " ")
  return text == "" and "-" or text
end

local function iso(seconds)
  if not seconds or seconds <= 0 then return nil end
  local whole = seconds // 1
  return os.date("!%Y-%m-%dT%H:%M:%S", math.tointeger(whole)) .. (".%03dZ"):format((seconds - whole) * 1000 // 1 | 0)
end

local function origin(said)
  if not said.topic then return nil end
  return ("%s/%s/%s"):format(said.topic, said.partition or "?", said.offset or "?")
end

-- A string as JSON can hold it; bytes that are no text as hexadecimal digits.
local function text_of(bytes)
  if bytes == nil then return nil end
  if utf8.len(bytes) then return bytes end
  return { hex = (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)) }
end

local function document(record, said, replayed)
  local headers = json.array {}
  for i, header in ipairs(record.headers) do
    headers[i] = { name = header.name, value = text_of(header.value) }
  end
  return {
    partition = record.partition, offset = record.offset, timestamp = record.timestamp,
    timestamp_type = record.timestamp_type, key_bytes = record.key and #record.key,
    value_bytes = record.value and #record.value, headers = headers, replayed = replayed,
    origin = said.topic and { topic = said.topic, partition = said.partition, offset = said.offset } or nil,
    group = said.group, reason = text_of(said.reason), attempts = said.attempts, time = said.time,
  }
end

local function size(bytes) return bytes and ("%d bytes"):format(#bytes) or "none" end

local function show_lines(record, said, replayed)
  local lines = {
    ("place: %d/%d"):format(record.partition, record.offset),
    "origin: " .. plain(origin(said)), "group: " .. plain(said.group), "attempts: " .. plain(said.attempts),
    "time: " .. plain(iso(said.time)), "reason: " .. plain(said.reason), "replayed: " .. (replayed and "yes" or "no"),
    "timestamp: " .. plain(iso(record.timestamp)), "key: " .. size(record.key), "value: " .. size(record.value),
  }
  for _, header in ipairs(record.headers) do
    lines[#lines + 1] = ("header %s: %s"):format(plain(header.name),
      header.value and ("%q"):format(header.value):gsub("\\\n", "\\n") or "none")
  end
  return table.concat(lines, "\n") .. "\n"
end

-- ---- commands ----

local function matches(args, said)
  return (not args.group or said.group == args.group) and (not args.origin or said.topic == args.origin)
    and (not args.reason or (said.reason or ""):find(args.reason, 1, true) ~= nil)
end

local function list(letters, args)
  local left, open = args.limit or math.huge, true
  for _, partition in ipairs(letters.partitions) do
    local ok, message, exit = letters:scan(partition, 0, math.maxinteger, function(record)
      local said = deadletter.read(record)
      local replayed = partition.progress:has(record.offset)
      if matches(args, said) and not (args.pending and replayed) then
        local line = args.json and json.encode(document(record, said, replayed))
          or table.concat({ ("%d/%d"):format(record.partition, record.offset), plain(origin(said)),
            plain(said.group), plain(said.attempts), plain(iso(said.time)), replayed and "replayed" or "-",
            plain(said.reason) }, "\t")
        open = sys.write(1, line .. "\n") ~= nil -- a reader that has gone wants no more
        left = left - 1
      end
      return open and left > 0
    end)
    if not ok then return nil, message, exit end
    if not open or left <= 0 then break end
  end
  return 0
end

local function show(letters, args)
  local at = args.place
  local partition, found = letters:find(at.partition), nil
  if partition then
    local ok, message, exit = letters:scan(partition, at.offset, at.offset, function(record)
      if record.offset == at.offset then found = record end
      return false
    end)
    if not ok then return nil, message, exit end
  end
  if not found then
    return nil, ("topic %s has no record at %d/%d"):format(args.topic, at.partition, at.offset), PROBLEMS
  end
  if args.value or args.key then
    local bytes = found.key
    if args.value then bytes = found.value end
    if not bytes then
      return nil, ("the record has no %s"):format(args.value and "value" or "key"), PROBLEMS
    end
    sys.write(1, bytes)
    return 0
  end
  local said, replayed = deadletter.read(found), partition.progress:has(at.offset)
  sys.write(1, args.json and json.encode(document(found, said, replayed)) .. "\n"
    or show_lines(found, said, replayed))
  return 0
end

-- Which offsets of a partition were asked for: a set, or nil for all; and the first and last.
local function wanted(places, id)
  if #places == 0 then return nil, 0, math.maxinteger end
  local set, first, last = {}, math.maxinteger, -1
  for _, at in ipairs(places) do
    if at.partition == id then
      set[at.offset] = true
      first, last = math.min(first, at.offset), math.max(last, at.offset)
    end
  end
  return set, first, last
end

-- The letters of a partition that are to be sent; counts what is not.
local function choose(letters, partition, args, tally)
  local chosen, problem = {}, nil
  local set, first, last = wanted(args.places, partition.id)
  local ok, message, exit = letters:scan(partition, first, last, function(record)
    local said = deadletter.read(record)
    if (set and not set[record.offset]) or not matches(args, said) then return true end
    if set then set[record.offset] = nil end
    if partition.progress:has(record.offset) and not args.again then
      tally.before = tally.before + 1
      return true
    end
    local original, why, code = letters:original(record, args.to)
    if not original and code then
      problem = { why, code }
      return false
    elseif original then
      chosen[#chosen + 1] = { offset = record.offset, record = original, from = origin(said) }
      tally.left = tally.left - 1
    else
      tally.failed = tally.failed + 1
      log.error("dead letter not replayed", { partition = record.partition, offset = record.offset, reason = why })
    end
    return tally.left > 0 and #chosen < 1000
  end)
  if not ok then return nil, message, exit end
  if problem then return nil, problem[1], problem[2] end
  return chosen, set
end

local function print_sent(partition, letter, at)
  sys.write(1, table.concat({ ("%d/%d"):format(partition.id, letter.offset), plain(letter.from), letter.record.topic,
    at and ("%d/%d"):format(at.partition, at.offset) or "-" }, "\t") .. "\n")
end

-- One partition's letters, some at a time.
local function replay_partition(letters, partition, args, tally)
  while tally.left > 0 do
    local chosen, set, exit = choose(letters, partition, args, tally)
    if not chosen then return nil, set, exit end
    if args.dry then
      for _, letter in ipairs(chosen) do print_sent(partition, letter) end
      tally.sent = tally.sent + #chosen
    else
      local ok, message, code = letters:send(partition, chosen, function(letter, at)
        if at.error then
          tally.failed = tally.failed + 1
          log.error("dead letter not replayed", { partition = partition.id, offset = letter.offset, code = at.error })
        else
          tally.sent = tally.sent + 1
          print_sent(partition, letter, at)
        end
      end)
      if not ok then return nil, message, code end
    end
    for offset in pairs(#chosen < 1000 and set or {}) do
      tally.failed = tally.failed + 1
      log.error("no such dead letter", { partition = partition.id, offset = offset })
    end
    if #chosen < 1000 then return true end
    partition.low = chosen[#chosen].offset + 1 -- for the next look
  end
  return true
end

local function replay(letters, args)
  local tally = { sent = 0, before = 0, failed = 0, left = args.limit or math.huge }
  for _, at in ipairs(args.places) do
    if not letters:find(at.partition) then
      tally.failed = tally.failed + 1
      log.error("no such dead letter", { partition = at.partition, offset = at.offset })
    end
  end
  local ok, message, exit = true, nil, nil
  for _, partition in ipairs(letters.partitions) do
    ok, message, exit = replay_partition(letters, partition, args, tally)
    if not ok then break end
  end
  log.info(args.dry and "dry run: nothing was sent" or "replayed", { sent = tally.sent,
    replayed_before = tally.before, failed = tally.failed })
  if not ok then return nil, message, exit end
  return tally.failed > 0 and PROBLEMS or 0
end

local actions = { list = list, show = show, replay = replay }

function command.run(args, ctx)
  local settings, problems = environment.client(ctx.environ)
  if not settings then
    for _, line in ipairs(environment.lines(problems)) do log.error(line) end
    return CONFIGURATION
  end
  for _, secret in ipairs(settings.secrets) do log.secret(secret) end
  local letters, message, exit = dlq.open { topic = args.topic, layers = settings.kafka }
  if not letters then
    log.error(message, { brokers = settings.brokers })
    return exit
  end
  local code
  code, message, exit = actions[args.action](letters, args)
  letters:close()
  if code then return code end
  log.error(message)
  return exit
end

return command
