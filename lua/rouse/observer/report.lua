--- A status document as text for people: per route its jobs, what was decided and why, and its partitions (pure).
local arrayspec = require "rouse.arrayspec"
local explain = require "rouse.wake.explain"
local reasons = require "rouse.wake.reasons"

local report = {}

local FEW <const> = 12 -- quiet partitions of a job up to which each has a line of its own

--- A duration in the two units that matter.
---@param seconds number
---@return string
function report.duration(seconds)
  if seconds < 9.95 then
    return ("%.1f s"):format(math.max(0, seconds))
  elseif seconds < 120 then
    return ("%.0f s"):format(seconds)
  elseif seconds < 7200 then
    return ("%d min"):format(seconds // 60)
  elseif seconds < 172800 then
    return ("%d h %d min"):format(seconds // 3600, seconds % 3600 // 60)
  end
  return ("%d d %d h"):format(seconds // 86400, seconds % 86400 // 3600)
end

local duration = report.duration

local function counted(count, noun)
  return ("%d %s%s"):format(count, noun, count == 1 and "" or "s")
end

local WIDTH <const> = 100

-- Words on as many lines as they need; a word that is too long keeps its line.
local function wrap(add, indent, text)
  local line = indent
  for word in text:gmatch("%S+") do
    if #line > #indent and #line + 1 + #word > WIDTH then
      add("%s", line)
      line = indent
    end
    line = line .. (#line > #indent and " " or "") .. word
  end
  if #line > #indent then
    add("%s", line)
  end
end

-- ---- the observer ----

local function reloads(add, document)
  local state = document.reload
  if state.generation > 1 then
    add("generation %d, reloaded %s ago", state.generation, duration(document.now - state.loaded_at))
  end
  if state.error then
    wrap(add, "", ("! the files were refused %s ago, nothing is changed: %s"):format(
      duration(document.now - state.error.at), state.error.message))
  end
  for _, what in ipairs(state.waiting) do
    add("! %s changed: that takes a new start", what)
  end
end

local function head(add, document)
  add("rouse %s on %s (pid %d), up %s%s", document.rouse, document.host, document.pid, duration(document.uptime),
    document.ready and "" or ", not ready: " .. document.reason)
  reloads(add, document)
  local kafka = document.kafka
  add("Kafka %s%s", kafka.brokers or "?", kafka.reachable and "" or
    (" is not reachable%s"):format(kafka.reason and ": " .. kafka.reason or ""))
  for _, target in ipairs(document.targets) do
    add("target %s: %d%s runs, %s", target.id, target.runs, target.limit and " of " .. target.limit or "",
      target.listed and "listed " .. duration(target.listed) .. " ago" or "not listed yet")
  end
  if document.claims then
    add("claims records in group %s", document.claims.group)
  end
end

-- ---- a job ----

-- What the decision rests on; the active instances are in the job's line.
local function inputs(decision)
  local list = {}
  for name, value in pairs(decision.inputs) do
    if name ~= "active" then
      list[#list + 1] = ("%s=%s"):format(name, type(value) == "table" and arrayspec.format(value)
        or math.type(value) == "float" and ("%.4g"):format(value) or tostring(value))
    end
  end
  table.sort(list)
  return #list > 0 and ("(%s)"):format(table.concat(list, ", ")) or ""
end

local function decision(add, unit)
  local decided = unit.decision
  if not decided then
    add("    nothing is decided yet")
    return
  end
  if unit.woken and decided.code ~= "woken" then
    wrap(add, "    ", ("last woken %s ago: run %s; %s"):format(duration(unit.woken.age), unit.woken.inputs.name,
      unit.woken.reason or "no reason given"))
  end
  local why = explain.CODES[decided.code]
  add("    %s for %s%s", decided.code, duration(decided.age), why and ": " .. why or "")
  local reason = decided.reason ~= reasons[decided.code] and decided.reason or "" -- the line above says it
  wrap(add, "      ", reason .. " " .. inputs(decided))
end

local PHASES <const> = {
  waiting = "the list of runs", listing = "the list of runs", reading = "the group's offsets",
  refreshing = "the group's commits",
}

local function listens(parts)
  for _, part in ipairs(parts) do
    if part.armed then
      return true
    end
  end
  return false
end

local function waits(add, unit)
  local text
  if unit.phase == "submitting" then
    text = "the answer to the submit of " .. unit.submitting
  elseif unit.phase == "asking" then
    text = ("whether the run %s exists"):format(unit.submitting)
  elseif PHASES[unit.phase] then
    text = PHASES[unit.phase]
  elseif unit.due then
    text = ("its next look in %s%s"):format(duration(unit.due), listens(unit.parts) and ", or a record" or "")
  else
    text = #unit.parts == 0 and "its topics" or "records"
  end
  add("    waits for %s", text)
  if unit.wait_left then
    add("    the rule is asked again in %s, or on a record", duration(unit.wait_left))
  end
  if unit.backoff_left then
    add("    no submit for another %s: %s failed", duration(unit.backoff_left),
      counted(unit.submit_failures or 0, "submit"))
  end
  if unit.unread then
    add("    offsets could not be read: %s", unit.unread)
  end
  if unit.renew_failures then
    add("    the quiet group's offsets could not be renewed (%s), tried again in %s", unit.renew_failure,
      duration(unit.renew_left or 0))
  end
end

local function runs(add, unit)
  for _, run in ipairs(unit.runs) do
    add("    run %s: %s%s, %s, %s %s", run.name, run.status, run.age and " for " .. duration(run.age) or "",
      counted(run.active, "instance"), run.assign == "index" and "partitions" or "indices",
      #run.indices > 0 and arrayspec.format(run.indices) or "none")
  end
end

-- ---- its partitions ----

local DETAILS = {}

function DETAILS.quiet(part)
  return part.armed and "quiet, rings at " .. part.armed or "quiet"
end

function DETAILS.covered(part)
  return "covered" .. (part.proof and part.work and (", seen a record at %d"):format(part.proof) or "")
end

function DETAILS.held(part)
  return ("held%s%s%s"):format(part.attempt and part.attempt > 1 and ", attempt " .. part.attempt or "",
    part.retry_left and " in " .. duration(part.retry_left) or "", part.armed and ", rings at " .. part.armed or "")
end

function DETAILS.owed(part)
  return ("owed from %d"):format(part.owed_from)
end

local function state(part)
  local text = DETAILS[part.state] and DETAILS[part.state](part) or part.state
  for _, flag in ipairs { "served", "out_of_range", "foreign" } do
    text = text .. (part[flag] and ", " .. flag:gsub("_", " ") or "")
  end
  return text .. (part.error and (" (%s)"):format(part.error) or "")
end

local function shown(value)
  return value and ("%d"):format(value) or "-"
end

local LAG <const> = { "COMMIT", "START", "END", "LAG" }
local CLAIMS <const> = { "CLAIMED", "OWED FROM", "END" }

local function cells(unit, part)
  if unit.mode == "claims" then
    return { shown(part.claimed_to), shown(part.owed_from), shown(part.end_offset) }
  end
  return { shown(part.committed), shown(part.start), shown(part.end_offset), shown(part.lag) }
end

-- Quiet partitions of a topic in one line, where they are many.
local function collapse(parts, all)
  local quiet, rest = {}, {}
  for _, part in ipairs(parts) do
    if part.state == "quiet" and not part.error then
      quiet[#quiet + 1] = part
    else
      rest[#rest + 1] = part
    end
  end
  if all or #quiet <= FEW then
    return parts, {}
  end
  local by_topic, topics = {}, {}
  for _, part in ipairs(quiet) do
    local list = by_topic[part.topic]
    if not list then
      list = { topic = part.topic }
      by_topic[part.topic] = list
      topics[#topics + 1] = list
    end
    list[#list + 1] = part.partition
  end
  return rest, topics
end

local function partitions(add, unit, topics, all)
  local mine, width = {}, 9
  for _, part in ipairs(unit.parts) do
    if topics[part.topic] or part.foreign then
      mine[#mine + 1] = part
      width = math.max(width, math.min(40, #part.topic + 1 + #tostring(part.partition)))
    end
  end
  local rows, quiet = collapse(mine, all)
  local row = "    %-" .. width .. "s"
  local titles = unit.mode == "claims" and CLAIMS or LAG
  if #rows > 0 then
    local line = row:format("PARTITION")
    for _, title in ipairs(titles) do
      line = line .. ("  %11s"):format(title)
    end
    add("%s   STATE", line)
  end
  for _, part in ipairs(rows) do
    local line = row:format(part.topic .. "/" .. part.partition)
    for _, cell in ipairs(cells(unit, part)) do
      line = line .. ("  %11s"):format(cell)
    end
    add("%s   %s", line, state(part))
  end
  for _, list in ipairs(quiet) do
    add("    %s: %s quiet: %s", list.topic, counted(#list, "partition"), arrayspec.format(list))
  end
end

-- ---- routes ----

local function route_lines(add, route, units, all)
  add("")
  add("%s", route.why or route.topic)
  if route.problem then
    add("  ! %s", route.problem)
  end
  local topics = {}
  for _, topic in ipairs(route.topics) do
    topics[topic.name] = true
  end
  for _, id in ipairs(route.units) do
    local unit = units[id]
    if unit then
      add("  %s: %s active, %s on %s%s%s", unit.job, counted(unit.active, "instance"),
        unit.assign == "index" and "by index" or "by group", unit.target,
        unit.max_instances and ", at most " .. unit.max_instances or "",
        (unit.dedup_window or 0) > 0 and ", dedup window " .. duration(unit.dedup_window) or "")
      decision(add, unit)
      waits(add, unit)
      runs(add, unit)
      partitions(add, unit, topics, all)
    end
  end
end

--- Lines of text about a status document.
---@param document table from rouse.observer.status, decoded
---@param options { all: boolean? }? all: a line for each quiet partition too
---@return string[]
function report.lines(document, options)
  local lines, units = {}, {}
  local function add(form, ...)
    lines[#lines + 1] = form:format(...)
  end
  for _, unit in ipairs(document.units) do
    units[unit.id] = unit
  end
  head(add, document)
  for _, route in ipairs(document.routes) do
    route_lines(add, route, units, options and options.all)
  end
  return lines
end

return report
