--- Claims mode: the observer is a member of a group of its own, claims every record and asks the script which jobs it wakes. The
--- group's commit never passes a record that is still owed to a job; the wake engine says how far that is.
local log = require "rouse.log"
local places = require "rouse.places"
local task = require "rouse.task"
local verdict = require "rouse.verdict"

local Claims = { __name = "rouse.claims" }
Claims.__index = Claims

local claims = {}

local COMMIT_EVERY = 1 -- seconds between commits of what is done
local LOOKS <const> = 10 -- for where partitions begin and end, a second apart: a leader that is gone has a follower by then

---@class rouse.ClaimsOptions
---@field consumer table a rouse.kafka consumer with the observer's group
---@field group string
---@field offsets rouse.Offsets for end and low offsets where the group has no commit
---@field routes table<string, table> topic → route
---@field on_record (fun(record: table, ctx: table): any)? the script's function
---@field emit fun(event: table) events for the engine
---@field fault fun(event: table) handle-wide errors

---@param options rouse.ClaimsOptions
function claims.new(options)
  options.done, options.dirty = {}, false
  return setmetatable(options, Claims)
end

--- Every job of the record's route.
local function jobs_of(route)
  local wakes = {}
  for i, job in ipairs(route.jobs) do
    wakes[i] = { job = job.name }
  end
  return wakes
end

--- What the script says about a record, checked; an error there wakes every job of the route, so that nothing is forgotten.
function Claims:ask(route, record)
  local ok, answer, code = task.guard(function()
    return table.pack(verdict.wakes(self.on_record(record, { now = task.now() }), self.jobs))
  end)
  local where = { topic = record.topic, partition = record.partition, offset = record.offset }
  if not ok then
    where.reason, where.code = answer, code
    log.error("on_record failed: every job of the route is woken", where)
    return jobs_of(route)
  end
  local wakes = answer[1]
  if not wakes then
    where.reason = answer[2]
    log.error("on_record failed: every job of the route is woken", where)
    return jobs_of(route)
  end
  return wakes
end

function Claims:records(list)
  local runs, order = {}, {}
  for _, record in ipairs(list) do
    local route = self.route_of(record.topic)
    if self.on_record and route then
      self.emit { kind = "claimed", topic = record.topic, partition = record.partition, offset = record.offset,
        wakes = self:ask(route, record) }
    else -- without a script only the ends of each partition's stretch matter
      local name = record.topic .. "/" .. record.partition
      local run = runs[name]
      if not run then
        run = { kind = "claimed", topic = record.topic, partition = record.partition, offset = record.offset,
          wakes = route and jobs_of(route) or {} }
        runs[name], order[#order + 1] = run, run
      end
      run.last = record.offset
    end
  end
  for _, run in ipairs(order) do
    self.emit(run)
  end
end

-- Adds where partitions begin and end to `known`; returns those of which it cannot be read now, each with its error.
local function look(offsets, partitions, known)
  local list, _, code = offsets:bounds(partitions)
  local missing = {}
  for i, part in ipairs(partitions) do
    local bounds = list and list[i] or { error = code }
    if bounds.low and bounds.end_offset then
      places.set(known, part, bounds)
    else
      missing[#missing + 1] = { topic = part.topic, partition = part.partition, error = bounds.error }
    end
  end
  return missing
end

--- Where partitions begin and end, by place, and those of which that cannot be read for a while.
---@param partitions rouse.partition[]
---@return table known, rouse.partition[] missing
function Claims:bounds(partitions)
  local known, missing, looks = {}, partitions, 0
  while #missing > 0 and looks < LOOKS do
    if looks > 0 then
      task.sleep(1)
    end
    looks, missing = looks + 1, look(self.offsets, missing, known)
  end
  return known, missing
end

--- The commits of partitions; nil while one of them cannot be read: without it the partition would start elsewhere.
function Claims:committed(partitions)
  local list, message, code = self.consumer:committed(partitions, { timeout = 30 })
  for _, item in ipairs(list or {}) do
    code = code or item.error
  end
  if code then
    log.error("the claims group's offsets cannot be read", { reason = message, code = code })
    return nil
  end
  return list
end

--- Partitions without a commit start at the end; what the topic holds already wakes each mapped job once. Where that stays
--- unknown while others are known, all of it is read.
function Claims:assign(event)
  local list, fresh = self:committed(event.partitions), {}
  for _, item in ipairs(list or {}) do
    if not item.offset then
      fresh[#fresh + 1] = { topic = item.topic, partition = item.partition }
    end
  end
  local known, missing = self:bounds(fresh)
  local nothing = not list or #missing > 0 and #missing == #list
  for _, part in ipairs(missing) do
    log.warn(nothing and "the partition's end cannot be read: nothing is claimed yet"
      or "the partition's end cannot be read: its records are claimed from the beginning",
      { topic = part.topic, partition = part.partition, code = part.error })
  end
  if nothing then
    return false
  end
  for _, part in ipairs(fresh) do
    local at = places.get(known, part)
    if at and at.low < at.end_offset then
      local route = self.route_of(part.topic)
      self.emit { kind = "claimed", topic = part.topic, partition = part.partition, offset = at.low,
        last = at.end_offset - 1, wakes = route and jobs_of(route) or {} }
    end
  end
  local positions = {}
  for i, item in ipairs(list) do
    local at = places.get(known, item)
    positions[i] = { topic = item.topic, partition = item.partition,
      offset = item.offset or at and at.end_offset or "beginning" }
  end
  local method = event.protocol == "COOPERATIVE" and "incremental_assign" or "assign"
  local ok, why = self.consumer[method](self.consumer, positions)
  if not ok then
    log.error("claims: assignment failed", { reason = why })
  end
  return true
end

function Claims:revoke(event)
  if not event.lost then
    self:commit()
  end
  for _, item in ipairs(event.partitions) do
    self.done[item.topic .. "/" .. item.partition] = nil
    self.emit { kind = "released", topic = item.topic, partition = item.partition }
  end
  if event.protocol == "COOPERATIVE" then
    self.consumer:incremental_unassign(event.partitions)
  else
    self.consumer:assign {}
  end
end

--- The engine says: everything before `offset` is done on this partition.
function Claims:set_done(topic, partition, offset)
  self.done[topic .. "/" .. partition] = { topic = topic, partition = partition, offset = offset }
  self.dirty = true
end

function Claims:commit()
  if not self.dirty then
    return
  end
  self.dirty = false
  local list = {}
  for _, item in pairs(self.done) do
    list[#list + 1] = item
  end
  local ok, message, code = self.consumer:commit(list, { timeout = 10 })
  if not ok then
    self.dirty = true
    log.warn("claims: commit failed, tried again", { reason = message, code = code })
  end
end

--- Serves the group until the consumer is closed.
function Claims:run()
  local next_commit = task.monotonic() + COMMIT_EVERY
  while true do
    local event, _, code = self.consumer:poll { max = 1000, timeout = COMMIT_EVERY }
    if event and event.kind == "records" then
      self:records(event.records)
    elseif event and event.kind == "assign" then
      while not self:assign(event) do
        task.sleep(1)
      end
    elseif event and event.kind == "revoke" then
      self:revoke(event)
    elseif event and event.kind == "error" then
      self.fault(event)
    elseif not event and code ~= "TIMEDOUT" then
      return
    end
    if task.monotonic() >= next_commit then
      self:commit()
      next_commit = task.monotonic() + COMMIT_EVERY
    end
  end
end

return claims
