--- The run list of a target (pure): taking it in, and keeping it below the target's quota.
local coverage = require "rouse.wake.coverage"
local naming = require "rouse.wake.naming"
local watch = require "rouse.wake.watch"

local runs = {}

local KEEP = 240 -- seconds that finished runs stay listed: twice the age of facts that a submit may rest on

local function remove(engine, target_name, run)
  local asked = engine.removed[run.name]
  if asked and engine.clock - asked < KEEP then
    return
  end
  engine.removed[run.name] = engine.clock
  engine:effect { kind = "remove", target = target_name, name = run.name }
end

--- Jobs of the target's units, and the newest run number of each.
local function own_runs(engine, target, target_name)
  local jobs, newest = {}, {}
  for _, unit in ipairs(engine.units) do
    if unit.target == target_name then
      jobs[unit.job] = true
    end
  end
  for _, run in ipairs(target.runs) do
    local number = jobs[run.job] and naming.number(run.job, run.name)
    if number and number > (newest[run.job] or 0) then
      newest[run.job] = number
    end
  end
  return jobs, newest
end

local function rested(engine, run)
  return coverage.finished(run) and engine.clock - (engine.rested[run.name] or engine.clock) > KEEP
end

--- Removes finished runs of ours, never the newest of a job and never before everybody who may rest on them has read again.
function runs.clean(engine, target, target_name)
  local jobs, newest = own_runs(engine, target, target_name)
  for _, run in ipairs(target.runs) do
    local number = jobs[run.job] and naming.number(run.job, run.name)
    if number and number < newest[run.job] and rested(engine, run) then
      remove(engine, target_name, run)
    end
  end
end

--- The quota is full and nothing else can be removed: the newest finished run of a job without work goes, with a warning.
function runs.free(engine, target, target_name)
  local jobs, newest = own_runs(engine, target, target_name)
  local busy = {}
  for _, unit in ipairs(engine.units) do
    for _, part in ipairs(unit.parts) do
      busy[unit.job] = busy[unit.job] or part.work or unit.phase == "submitting" or nil
    end
  end
  for _, run in ipairs(target.runs) do
    local number = jobs[run.job] and naming.number(run.job, run.name)
    if number == newest[run.job] and number and not busy[run.job] and rested(engine, run) then
      engine:effect { kind = "note", unit = run.job, job = run.job, code = "quota_removed",
        fields = { name = run.name, reason = "the newest run of a quiet job is removed to make room" } }
      remove(engine, target_name, run)
    end
  end
end

-- Runs that the target keeps beside those asked for: finished ones are removed only after a while.
local HEADROOM = 5

--- Whether the target can take one more run; makes room where it can.
function runs.has_room(engine, unit)
  local quota, target = engine.quota[unit.target], engine.targets[unit.target]
  if not quota or #target.runs < quota - HEADROOM then
    return true
  end
  local left = 0
  for _, run in ipairs(target.runs) do
    left = left + (engine.removed[run.name] and 0 or 1)
  end
  if left >= quota - HEADROOM then
    runs.free(engine, target, unit.target)
  end
  return false
end

--- When a run was created, on the monotonic clock, as it looked when the run was first seen. The name of a run that vanished may
--- come again.
function runs.date(self, run)
  if not coverage.finished(run) then
    self.ended[run.name], self.rested[run.name], self.last_alive[run.name] = nil, nil, self.clock
  end
  if not self.created[run.name] then
    self.created[run.name] = self.clock - (run.created_at and math.max(0, self.now - run.created_at) or 0)
  end
end

--- The list as read, and the runs accepted since it was sent, which it may not show yet.
function runs.take(self, target, event)
  local listed = {}
  for _, run in ipairs(event.runs) do
    listed[run.name] = run
  end
  for _, run in ipairs(target.runs) do
    if not listed[run.name] and run.accepted and run.accepted >= event.sent then
      event.runs[#event.runs + 1] = run
      listed[run.name] = run
    elseif not listed[run.name] then
      if not self.ended[run.name] then -- vanished: ended as far as anybody can tell
        self.ended[run.name] = self.clock
        watch.ended(self, run.job)
      end
    end
  end
  target.runs, target.sent, target.listed = event.runs, event.sent, listed
  for _, run in ipairs(target.runs) do
    runs.date(self, run)
    if coverage.finished(run) then
      -- How long a run is kept counts from here: a clock on the wall that jumps must not shorten it.
      self.rested[run.name] = self.rested[run.name] or self.clock
      if not self.ended[run.name] then
        local age = run.completed_at and math.max(0, self.now - run.completed_at) or 0
        -- By a clock on the wall that is fast it ended before it was last seen alive.
        self.ended[run.name] = math.max(self.clock - age, self.last_alive[run.name] or -math.huge)
        watch.ended(self, run.job)
      end
    end
  end
  for name in pairs(self.created) do
    if not listed[name] then
      self.created[name], self.rested[name], self.last_alive[name] = nil, nil, nil
    end
  end
  runs.forget(self)
  runs.clean(self, target, event.target)
end

--- Whether the name of a run still means something to anybody.
local function known(self, name)
  for _, target in pairs(self.targets) do
    if target.listed and target.listed[name] then
      return true
    end
  end
  for _, unit in ipairs(self.units) do
    for _, part in ipairs(unit.parts) do
      if part.tried and part.tried.name == name then
        return true
      end
    end
  end
  return false
end

--- Ends and removals of runs that are gone are forgotten after a while, or they would add up for as long as an observer lives.
function runs.forget(self)
  if self.clock < self.forget_at then
    return
  end
  self.forget_at = self.clock + KEEP
  for _, memory in ipairs { self.ended, self.removed } do
    for name, at in pairs(memory) do
      if self.clock - at > KEEP and not known(self, name) then
        memory[name] = nil
      end
    end
  end
end

return runs
