--- Low and end offsets for everybody who asks at about the same time, in one question to each leader: what is asked of it while
--- a question is out goes with the next. Who asks alone does not wait.
---
--- No leader waits for another. Once one has answered, the others get a moment more, each as much as it needed the last time;
--- what is missing then is unknown for now, and `back` is called when it has come after all. For a leader that has let that
--- moment pass nobody waits until it has answered, and no question is sent to it beside the one that it owes.
local places = require "rouse.places"
local task = require "rouse.task"

local Offsets = { __name = "rouse.offsets" }
Offsets.__index = Offsets

local offsets = {}

offsets.HOLD = 0.2 -- seconds that a question waits for one that is out, at most
offsets.PATIENCE = 0.5 -- seconds that a leader gets after another has answered, at least
local BESIDE <const> = 2 -- questions to one leader that may be out at the same time

-- Of a broker that did not answer; others are about a partition.
local AWAY <const> = { _TIMED_OUT = true, TIMEDOUT = true, _TRANSPORT = true }

---@class rouse.OffsetsOptions
---@field admin table the query handle
---@field timeout number seconds for each question
---@field leader fun(topic: string, partition: integer): integer|nil who leads a partition, as far as is known
---@field behind (fun())? called when a leader has kept somebody waiting in vain
---@field back (fun())? called when the answer has come that somebody did not wait for

---@class rouse.Offsets
---@field lanes table<string, table<any, table>> low or end, and whether ill → leader → the questions of that kind
---@field ill table<string, table<integer, boolean>> whose last answer was an error: asked apart from their leader's others
---@field made table a queue of questions to send

---@param options rouse.OffsetsOptions
---@return rouse.Offsets
function offsets.new(options)
  return setmetatable({ admin = options.admin, timeout = options.timeout, leader = options.leader, ill = {},
    lanes = { beginning = {}, ["end"] = {}, ill_beginning = {}, ill_end = {} },
    behind = options.behind or function() end, back = options.back or function() end, made = task.queue() }, Offsets)
end

local ILL <const> = { beginning = "ill_beginning", ["end"] = "ill_end" }

--- Adds a partition to the question to its leader that has not been sent yet.
function Offsets:join(at, part)
  local leader = self.leader(part.topic, part.partition) or -1
  local lanes = self.lanes[places.get(self.ill, part) and ILL[at] or at]
  local lane = lanes[leader]
  if not lane then
    lane = { out = 0, ended = task.event(), took = 0 }
    lanes[leader] = lane
  end
  local question = lane.next
  if not question then
    question = { at = at, lane = lane, partitions = {}, known = {}, answers = {}, waiting = {} }
    lane.next = question
    self.made:put(question)
  end
  if not places.get(question.known, part) then
    places.set(question.known, part, true)
    table.insert(question.partitions, part)
  end
  return question
end

--- Waits until a question may be sent: until none is out in its lane, or for a moment.
local function turn(lane)
  local deadline = task.monotonic() + offsets.HOLD
  while lane.out > 0 do
    local may = lane.out < BESIDE and not lane.behind
    lane.ended:clear()
    if not lane.ended:wait(may and math.max(0, deadline - task.monotonic()) or nil) then
      return
    end
  end
end

--- Takes the answer of a question into what is known of its leader. Where some of its partitions have moved to one that is away,
--- the answer tells nothing of the time that this leader needs.
function Offsets:learn(question, list, seconds)
  local some, away = false, false
  for _, item in ipairs(list or {}) do
    places.set(question.answers, item, item)
    if item.error or places.get(self.ill, item) then
      places.set(self.ill, item, item.error and true or nil)
    end
    some, away = some or not item.error, away or AWAY[item.error] or false
    question.heard = question.heard or not AWAY[item.error]
  end
  local lane = question.lane
  if some and not away then
    lane.took, lane.behind = seconds, nil
  end
  if some and question.left then
    self.back()
  end
end

--- Sends a question and shares its answer; never raises, or those who wait would wait for ever.
function Offsets:send(question)
  local lane = question.lane
  turn(lane)
  lane.next, lane.out = nil, lane.out + 1
  local sent = task.monotonic()
  local called, list, message, code = pcall(self.admin.offsets, self.admin,
    { partitions = question.partitions, at = question.at, timeout = self.timeout })
  if not called then
    list, message, code = nil, tostring(list), "BUG"
  end
  lane.out = lane.out - 1
  lane.ended:set()
  question.ended, question.message, question.code = true, message, code
  self:learn(question, list, task.monotonic() - sent)
  for bell in pairs(question.waiting) do
    bell:set()
  end
end

--- Sends what is asked, until its task is cancelled: who asks may leave before the answer.
function Offsets:run()
  while true do
    task.spawn(self.send, self, self.made:get())
  end
end

--- Seconds that who has an answer since `answered` still waits for the questions that are out; nil: for ever.
local function patience(open, answered)
  if not answered then
    return nil
  end
  local left = 0
  for question in pairs(open) do
    local lane = question.lane
    local seconds = lane.behind and 0 or math.max(offsets.PATIENCE, 2 * lane.took)
    left = math.max(left, answered + seconds - task.monotonic())
  end
  return left
end

--- Waits for the answers to some questions, for none longer than the others are worth.
function Offsets:await(questions)
  local bell, open, answered = task.event(), {}, nil
  for question in pairs(questions) do
    open[question], question.waiting[bell] = true, true
  end
  repeat
    bell:clear()
    for question in pairs(open) do
      if question.ended then
        open[question] = nil
        answered = answered or question.heard and task.monotonic()
      end
    end
  until not next(open) or not bell:wait(patience(open, answered))
  for question in pairs(open) do
    question.waiting[bell], question.left = nil, true
    local fresh = not question.lane.behind
    question.lane.behind = task.monotonic()
    if fresh then
      self.behind()
    end
  end
end

--- Whether somebody was left without an answer lately.
function Offsets:lagging()
  for _, lanes in pairs(self.lanes) do
    for _, lane in pairs(lanes) do
      if lane.behind and task.monotonic() - lane.behind <= 2 * self.timeout then
        return true
      end
    end
  end
  return false
end

--- Asks for the low or end offsets of partitions.
---@param at "beginning"|"end"
---@param partitions rouse.partition[]
---@return rouse.partition[]|nil list in the order of `partitions`, string? message, string? code
function Offsets:ask(at, partitions)
  local asked, questions, list = {}, {}, {}
  for i, part in ipairs(partitions) do
    asked[i] = self:join(at, part)
    questions[asked[i]] = true
  end
  self:await(questions)
  local failed, some
  for question in pairs(questions) do
    local whole = question.ended and not next(question.answers)
    failed, some = whole and question or failed, some or not whole
  end
  if failed and not some then
    return nil, failed.message, failed.code
  end
  for i, part in ipairs(partitions) do
    local question = asked[i]
    list[i] = places.get(question.answers, part) or { topic = part.topic, partition = part.partition,
      error = question.code or "_TIMED_OUT" }
  end
  return list
end

--- Asks where partitions begin and end, both at the same time.
---@param partitions rouse.partition[]
---@return { topic: string, partition: integer, low: integer?, end_offset: integer?, error: string? }[]|nil list in the
--- order of `partitions`, string? message, string? code
function Offsets:bounds(partitions)
  local low = task.spawn(self.ask, self, "beginning", partitions)
  local ends, message, code = self:ask("end", partitions)
  local lows, low_message, low_code = low:join()
  if not ends or not lows then
    return nil, message or low_message, code or low_code
  end
  local list = {}
  for i, part in ipairs(partitions) do
    list[i] = { topic = part.topic, partition = part.partition, low = lows[i].offset, end_offset = ends[i].offset,
      error = lows[i].error or ends[i].error }
  end
  return list
end

return offsets
