--- The group of claims mode: joined when a route needs it, left when none does any more.
local claims = require "rouse.observer.claims"
local kafka = require "rouse.kafka"
local log = require "rouse.log"
local properties = require "rouse.config.properties"
local task = require "rouse.task"

local group = {}

--- The topics (and patterns) whose records are claimed, and the jobs that records may wake.
local function wanted(observer, units)
  local names, jobs, claimed, seen = {}, {}, {}, {}
  for _, unit in ipairs(units) do
    jobs[unit.job] = true
    claimed[unit.job] = claimed[unit.job] or unit.mode == "claims"
  end
  for _, route in ipairs(observer.routes) do
    for _, job in ipairs(route.jobs) do
      if claimed[job.name] and not seen[route.topic] then
        seen[route.topic] = true
        names[#names + 1] = route.topic
      end
    end
  end
  return names, jobs
end

local function open(observer, names, jobs)
  local name = observer.settings.claims_group or "observer-group"
  local consumer, message = kafka.consumer {
    properties = properties.resolve("claims", observer.settings.kafka, { ["group.id"] = name }),
  }
  if not consumer then
    return nil, message
  end
  observer.claims = claims.new {
    consumer = consumer, group = name, offsets = observer.offsets, jobs = jobs, on_record = observer.script.on_record,
    route_of = function(topic) return observer:route_of(topic) end,
    emit = function(event) observer:emit(event) end, fault = function(event) observer:fault(event) end,
  }
  observer.claims.topics = table.concat(names, ",")
  log.info(("claiming records in group %s"):format(name), { topics = observer.claims.topics })
  local ok
  ok, message = consumer:subscribe(names)
  return ok, message
end

--- Serves the group in a task of the caller's.
function group.start(observer)
  if observer.claims then
    local own = observer.claims
    own.server = task.spawn(function() own:run() end)
  end
end

--- Commits what is done and leaves.
---@param own table from rouse.observer.claims
function group.leave(own)
  if own.server then
    own.server:cancel()
  end
  own:commit()
  own.consumer:close { timeout = 5 }
end

--- Opens the group when a route needs it; it is not served yet.
---@param observer table
---@param units table[]
---@return true|nil, string? message
function group.open(observer, units)
  local names, jobs = wanted(observer, units)
  if #names == 0 then
    return true
  end
  return open(observer, names, jobs)
end

--- After a reload: other topics, another on_record, or no group any more.
---@param observer table
---@param units table[]
function group.adopt(observer, units)
  local names, jobs = wanted(observer, units)
  local own = observer.claims
  if #names == 0 then
    observer.claims = nil
    if own then
      log.info(("leaving group %s: no route needs it any more"):format(own.group))
      task.spawn(group.leave, own)
    end
    return
  elseif not own then
    local ok, message = open(observer, names, jobs)
    if ok then
      group.start(observer)
    else
      log.error("records cannot be claimed: " .. tostring(message))
    end
    return
  end
  own.jobs, own.on_record = jobs, observer.script.on_record
  local topics = table.concat(names, ",")
  if topics ~= own.topics then
    own.topics = topics
    log.info(("claiming records in group %s"):format(own.group), { topics = topics })
    own.consumer:subscribe(names)
  end
end

return group
