--- The demo's play: start everything, produce bursts, tell what happens, wait until all is consumed, sum up.
local json = require "rouse.json"
local kafka = require "rouse.kafka"
local process = require "rouse.process"
local session = require "rouse.mock.session"
local summary = require "rouse.demo.summary"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local demo = {}

local IDLE = 3 -- seconds without records after which a consumer exits
local PATIENCE = 25 -- seconds to wait for the consumers at the end
local SAMPLE = 0.1

--- When (share of the time given), where and how many.
local BURSTS = {
  { at = 0.00, topic = "payments", records = 400 },
  { at = 0.12, topic = "shipping", records = 150 },
  { at = 0.45, topic = "payments", records = 100, partitions = 2 },
  { at = 0.80, topic = "payments", records = 300 },
  { at = 0.82, topic = "shipping", records = 300 },
}

local Demo = { __name = "rouse.demo" }
Demo.__index = Demo

--- Prints one line of the play.
function Demo:tell(text, important)
  local time = ("%5.1f s"):format(task.monotonic() - self.started)
  if self.colour then
    time = "\27[2m" .. time .. "\27[0m"
    text = important and "\27[1m" .. text .. "\27[0m" or text
  end
  sys.write(1, time .. "  " .. text .. "\n")
end

--- Follows the observer's log: its decisions are part of the play.
function Demo:follow(child)
  local rest = ""
  while true do
    local chunk = child:read { stream = "stderr" }
    if not chunk then
      return
    end
    rest = rest .. chunk
    for line in rest:gmatch("([^\n]*)\n") do
      local entry = json.decode(line)
      if self.verbose then
        sys.write(2, line .. "\n")
      elseif entry and entry.message then
        self:tell("observer: " .. entry.message, entry.message:find("^woke"))
      end
    end
    rest = rest:match("[^\n]*$")
  end
end

function Demo:start_observer()
  local executable = self.environ.ROUSE_EXECUTABLE or sys.executable()
  local child, message, code = process.spawn {
    command = { executable, "observer" }, env = self.mock:environ(self.environ), stdout = "null", stderr = "pipe",
  }
  if not child then
    return nil, message, code
  end
  self.observer = child
  self.follower = task.spawn(function() self:follow(child) end)
  return true
end

--- Sends a burst; remembers when its first record was in the log.
function Demo:burst(burst)
  local partitions = burst.partitions
  for _, topic in ipairs(self.mock.topics) do
    partitions = partitions or (topic.name == burst.topic and topic.partitions)
  end
  -- Told first: the observer is often quicker than the last acknowledgement.
  self:tell(("%d records on %s"):format(burst.records, burst.topic))
  local first
  for i = 1, burst.records do
    local record = { topic = burst.topic, partition = i % partitions, key = "k" .. i, value = "record " .. i,
      timeout = 10 }
    if i == 1 then
      local ok, message, code = self.producer:produce(record)
      if not ok then
        return nil, message, code
      end
      first = task.monotonic()
    else
      self.producer:send(record)
    end
  end
  local ok, message, code = self.producer:flush { timeout = 20 }
  if not ok then
    return nil, message, code
  end
  self.bursts[#self.bursts + 1] = { topic = burst.topic, first = first, records = burst.records }
  return true
end

--- Watches the runs: tells when one ends, and samples how many instances are alive.
function Demo:watch()
  local told = {}
  while true do
    local active = 0
    for _, run in ipairs(self.mock.codeengine:runs()) do
      active = active + (run.requested or 0) + (run.pending or 0) + (run.running or 0)
      if (run.status == "completed" or run.status == "failed") and not told[run.name] then
        told[run.name] = true
        self:tell(("%s %s: the consumers drained their partitions and left"):format(run.name, run.status))
      end
    end
    self.samples[#self.samples + 1] = active
    self.active = active
    task.sleep(SAMPLE)
  end
end

--- Records not committed by their group, all topics together.
function Demo:left_behind()
  local left = 0
  for _, topic in ipairs(self.mock.topics) do
    local partitions = {}
    for p = 0, topic.partitions - 1 do
      partitions[#partitions + 1] = { topic = topic.name, partition = p }
    end
    local commits, message, code = self.admin:group_offsets {
      group = topic.name .. "-group", partitions = partitions, timeout = 5,
    }
    local ends = commits and self.admin:offsets { partitions = partitions, at = "end", timeout = 5 }
    if not ends then
      return nil, message, code
    end
    for i, item in ipairs(ends) do
      left = left + (item.offset or 0) - (commits[i].offset or 0)
    end
  end
  return left
end

--- Waits until everything is consumed and every consumer has left, or patience ends.
function Demo:finish()
  local deadline = task.monotonic() + PATIENCE
  local left = self:left_behind()
  while (left ~= 0 or self.active > 0) and task.monotonic() < deadline do
    task.sleep(SAMPLE)
    left = self:left_behind() or left
  end
  return left
end

function Demo:play()
  local from = task.monotonic()
  for _, burst in ipairs(BURSTS) do
    task.sleep(math.max(0, from + burst.at * self.seconds - task.monotonic()))
    local ok, message, code = self:burst(burst)
    if not ok then
      return nil, message, code
    end
  end
  local left = self:finish()
  summary.print {
    bursts = self.bursts, submits = self.mock.codeengine:counters().submits, samples = self.samples,
    left = left, seconds = task.monotonic() - from, topics = self.mock.topics,
  }
  return left
end

function Demo:open()
  local message, code
  self.mock, message, code = session.start {
    environ = self.environ, idle_timeout = IDLE, quiet = not self.verbose,
  }
  if not self.mock then
    return nil, message, code
  end
  local properties = { ["bootstrap.servers"] = self.mock.kafka:bootstrap_servers() }
  self.producer, message, code = kafka.producer { properties = properties }
  if self.producer then
    self.admin, message, code = kafka.admin { properties = properties }
  end
  if not self.admin then
    return nil, message, code
  end
  self:tell("a mock Kafka (payments: 4 partitions, shipping: 3) and a mock Code Engine")
  return self:start_observer()
end

function Demo:close()
  if self.observer then
    self.observer:close()
  end
  if self.mock then
    self.mock:close()
  end
  for _, handle in ipairs { self.producer or false, self.admin or false } do
    if handle then
      handle:close()
    end
  end
end

--- Plays the demo.
---@param options { environ: table<string, string>, seconds: number, verbose: boolean?, colour: boolean? }
---@return integer|nil left records left behind, string? message, string? code
function demo.run(options)
  local self <close> = setmetatable({
    environ = options.environ, seconds = options.seconds, verbose = options.verbose, colour = options.colour,
    started = task.monotonic(), bursts = {}, samples = {}, active = 0,
  }, { __index = Demo, __close = Demo.close })
  local ok, message, code = self:open()
  if not ok then
    return nil, message, code
  end
  task.spawn(function() self:watch() end)
  return self:play()
end

return demo
