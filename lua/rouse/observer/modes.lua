--- How each route is observed, and why (pure). A group that is known, from kafkadata or from the job's own definition, means
--- lag mode; no group, a script with on_record, or OBSERVER_CONSUMER_GROUP means claims mode.
local modes = {}

--- The group of a job on a route, and where it comes from.
local function group_of(job, definition)
  if job.group then
    return job.group, "from kafkadata"
  end
  local declared = definition and definition.env and definition.env.CONSUMER_GROUP
  if declared and declared ~= "" then
    return declared, "from job " .. job.name
  end
  return nil
end

local function describe(job, definition, settings)
  local group, source = group_of(job, definition)
  if settings.on_record then
    return "claims", nil, "claims mode, the script has on_record"
  elseif settings.claims_group then
    return "claims", nil, "claims mode, OBSERVER_CONSUMER_GROUP is " .. settings.claims_group
  elseif group then
    return "lag", group, ("lag mode, group %s %s"):format(group, source)
  end
  return "claims", nil, ("claims mode, no group is known for job %s"):format(job.name)
end

--- Why index assignment cannot be used for a unit, or nil.
local function against_index(unit, jobs_of_group)
  local topic = next(unit.topics)
  if unit.mode == "claims" then
    return "claims mode"
  elseif unit.pattern or (topic and next(unit.topics, topic)) then
    return "the job has several topics"
  elseif jobs_of_group[unit.group] > 1 then
    return "the group has several jobs"
  end
  return nil
end

--- Units for the wake engine.
---@param routes table[] as rouse.config.kafkadata returns them; `topics` of a pattern route are those it matches now
---@param definitions table<string, { env: table<string, string> }> job → definition as the target tells it
---@param settings { claims_group: string?, on_record: boolean, target: string }
---@return table[] units
---@return string[] lines one per route: its mode and why
---@return string[][] members per route the ids of its units
function modes.units(routes, definitions, settings)
  local units, by_id, lines, members, jobs_of_group = {}, {}, {}, {}, {}
  for _, route in ipairs(routes) do
    local reasons, told, ids = {}, {}, {}
    for _, job in ipairs(route.jobs) do
      local definition = definitions[job.name]
      local mode, group, why = describe(job, definition, settings)
      local id = job.name .. "/" .. (group or "claims")
      local unit = by_id[id]
      if not unit then
        unit = {
          id = id, job = job.name, group = group, mode = mode, target = settings.target_of(job),
          topics = {}, spec = job,
          assign = job.assign or (definition and definition.env and definition.env.ROUSE_ASSIGN) or "group",
        }
        by_id[id] = unit
        units[#units + 1] = unit
        if group then
          jobs_of_group[group] = (jobs_of_group[group] or 0) + 1
        end
      end
      ids[#ids + 1] = id
      unit.pattern = unit.pattern or route.pattern
      for _, topic in ipairs(route.pattern and (route.topics or {}) or { route.topic }) do
        unit.topics[topic] = { reset = route.reset or "earliest" }
      end
      if not told[why] then
        told[why] = true
        reasons[#reasons + 1] = why
      end
    end
    lines[#lines + 1] = ("%s: %s"):format(route.topic, table.concat(reasons, "; "))
    members[#members + 1] = ids
  end
  for _, unit in ipairs(units) do
    if unit.assign == "index" and against_index(unit, jobs_of_group) then
      unit.assign = "group"
    end
  end
  return units, lines, members
end

return modes
