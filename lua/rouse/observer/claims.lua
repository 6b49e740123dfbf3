--- Claims mode: the observer is a member of a group of its own, claims every record and asks the script which jobs it wakes. The
--- group's commit never passes a record that is still owed to a job; the wake engine says how far that is.
local log = require "rouse.log"
local task = require "rouse.task"
local verdict = require "rouse.verdict"

local Claims = { __name = "rouse.claims" }
Claims.__index = Claims

local claims = {}

local COMMIT_EVERY = 1 -- seconds between commits of what is done

---@class rouse.ClaimsOptions
---@field consumer table a rouse.kafka consumer with the observer's group
---@field group string
---@field admin table for end and low offsets where the group has no commit
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

--- Partitions without a commit start at the end; what the topic holds already wakes each mapped job once.
function Claims:assign(event)
  local list, message, code = self.consumer:committed(event.partitions, { timeout = 30 })
  local fresh = {}
  for _, item in ipairs(list or {}) do
    if not item.offset then
      fresh[#fresh + 1] = { topic = item.topic, partition = item.partition }
    end
  end
  local ends = #fresh > 0 and self.admin:offsets { partitions = fresh, at = "end", timeout = 30 } or {}
  local lows = #fresh > 0 and self.admin:offsets { partitions = fresh, at = "beginning", timeout = 30 } or {}
  if not (list and ends and lows) then
    log.error("the claims group's offsets cannot be read", { reason = message, code = code })
    return false
  end
  local at = {}
  for i, item in ipairs(ends) do
    local low = lows[i] and lows[i].offset
    at[item.topic .. "/" .. item.partition] = item.offset
    if item.offset and low and low < item.offset then
      local route = self.route_of(item.topic)
      self.emit { kind = "claimed", topic = item.topic, partition = item.partition, offset = low,
        last = item.offset - 1, wakes = route and jobs_of(route) or {} }
    end
  end
  local positions = {}
  for i, item in ipairs(list) do
    local offset = item.offset or at[item.topic .. "/" .. item.partition]
    positions[i] = { topic = item.topic, partition = item.partition, offset = offset }
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
