--- Every interleaving of a small world (rouse.sim.moves), until no new state appears. A state is the numbers of its parts: the
--- shared one, and those of its one or two observers, in any order. What comes of a move is worked out once for the parts that it
--- concerns (rouse.sim.outcomes); after that a step is a look into a table.
local moves = require "rouse.sim.moves"
local outcomes = require "rouse.sim.outcomes"
local routes = require "rouse.config.routes"
local world = require "rouse.sim.world"

local explore = {}

---@class rouse.sim.Small
---@field partitions integer
---@field records integer
---@field observers integer one or two
---@field assign "index"|"group"
---@field crashes integer
---@field faults integer
---@field exits integer instances that end at any point, with or without having consumed
---@field renewals boolean? whether an observer renews the offsets as soon as there are some, once

--- The world in which an exploration begins.
---@param small rouse.sim.Small
function explore.start(small)
  local w = world.new {
    seed = 1, observers = small.observers, topics = { t = small.partitions }, jobs = { j = {} },
    routes = routes.from_table {
      t = { jobs = { { name = "j", group = "g", assign = small.assign, idle_timeout = 10 } } },
    },
    latency = { 0, 0 }, fetch_delay = 0, status_delay = { 0, 0 }, start_delay = { 0, 0 }, patience = false,
    refresh = false, by_hand = true, jitter = function() return 0.5 end,
    renew = small.renewals and { first = 0, every = math.huge } or nil,
  }
  w.left = { records = small.records, crashes = small.crashes, faults = small.faults, exits = small.exits }
  w.violation = nil
  return w
end

local BITS <const> = outcomes.BITS
local MASK <const> = (1 << BITS) - 1

local function key_of(shared, one, two)
  if one > two then
    one, two = two, one
  end
  return shared << 2 * BITS | one << BITS | two
end

-- ---- what can happen next ----

-- Time passes only while nothing is under way.
local function time(known, shared, one, two, emit)
  local told, all = known.observers.told, known.shared.told[shared]
  local first, second = told[one], told[two]
  if not all.patient or all.messages + first.messages + (second and second.messages or 0) > 0 then
    return
  end
  local later = second and second.later or math.huge
  local seconds = math.min(all.later, first.later, later)
  if seconds == math.huge then
    return
  end
  local saw, seen = all.waiting and first.seen or 0, all.waiting and second and second.seen or 0
  if all.later == seconds then
    emit(known:pass(shared, nil, { saw, seen }, seconds), known:aged(one, seconds), known:aged(two, seconds))
  end
  if first.later == seconds then
    local move = known:pass(shared, one, { seen }, seconds)
    emit(move, move.own, known:aged(two, seconds), 1)
  end
  if later == seconds and one ~= two then
    local move = known:pass(shared, two, { saw }, seconds)
    emit(move, known:aged(one, seconds), move.own, 2)
  end
end

local NOTHING <const> = {}

--- Everything that can happen next in a state. emit gets the outcome, the observers after it, and whose move it is.
---@param known table from rouse.sim.outcomes
---@param reduced boolean leave out what can as well happen later
local function expand(known, key, reduced, emit)
  local shared, one, two = key >> 2 * BITS, key >> BITS & MASK, key & MASK
  if one == 0 then
    one, two = two, 0
  end
  local told, waiting = known.observers.told, known.shared.told[shared].waiting
  local saw, seen = waiting and told[one].seen or 0, waiting and two > 0 and told[two].seen or 0
  -- A request that waits to be served is served before anything else happens.
  local request = told[one].request and 1 or two > 0 and told[two].request and 2
  local first = request ~= 2 and known:of_observer(shared, one, seen) or NOTHING
  local second = two > 0 and request ~= 1 and one ~= two and known:of_observer(shared, two, saw) or NOTHING
  local private = reduced and not request and (first.private and first or second.private and second)
  for i = 1, #first do
    local move = first[i]
    if not private or move == private.private or move == private.crash then
      emit(move, move.own, two, 1)
    end
  end
  for i = 1, #second do
    local move = second[i]
    if not private or move == private.private or move == private.crash then
      emit(move, one, move.own, 2)
    end
  end
  if request or private then
    return
  end
  for _, move in ipairs(known:beside(moves.of_services, shared, saw, seen)) do
    emit(move, one, two)
  end
  for _, move in ipairs(known:beside(moves.of_records, shared, saw, seen)) do
    emit(move, known:rung(move, one), known:rung(move, two))
  end
  time(known, shared, one, two, emit)
end

-- ---- the search ----

-- What was told in a move, at its time since the beginning, by the observer that it was about.
local function retell(lines, move, elapsed, name)
  for _, line in ipairs(move.trace) do
    local at, text = line:match("^ *(%S+)  (.*)$")
    lines[#lines + 1] = ("%10.3f  %s"):format(at + elapsed, (text:gsub("^observer 1", "observer " .. (name or 1), 1)))
  end
end

--- How a state was reached, for people: the moves that led there, made again with a trace.
local function replay(known, path, reduced)
  local lines, elapsed, names = {}, 0, { 1, 2 }
  known:forget(true)
  for i, key in ipairs(path) do
    local done, swapped
    expand(known, key, reduced, function(move, one, two, whose)
      local after = path[i + 1]
      if not done and (after and key_of(move.shared, one, two) == after or not after and move.violation) then
        local name = whose and names[whose]
        done, swapped = true, two > 0 and one > two
        lines[#lines + 1] = ("-- %s%s"):format(move.label, name and (", observer %d"):format(name) or "")
        retell(lines, move, elapsed, name)
        elapsed = elapsed + move.seconds
      end
    end)
    if swapped then
      names[1], names[2] = names[2], names[1]
    end
  end
  return lines
end

--- Explores a small world.
---@param small rouse.sim.Small
---@param how { seconds: number?, unreduced: boolean? }?
---@return { states: integer, steps: integer, complete: boolean, violation: table?, trace: string[]? }
function explore.run(small, how)
  local seconds, reduced = how and how.seconds or math.huge, not (how and how.unreduced)
  local known, w = outcomes.new(explore.start(small)), explore.start(small)
  moves.settle(w)
  local shared, one, two = known:keep(w, small.observers)
  local key = key_of(shared, one, two or 0)
  local from, stack, size = { [key] = 0 }, { key }, 1
  local result, began = { states = 1, steps = 0, complete = true }, os.clock()
  local function emit(move, first, second)
    local after = key_of(move.shared, first, second)
    result.steps = result.steps + 1
    result.violation = result.violation or move.violation
    if not from[after] then
      from[after] = key
      result.states, size = result.states + 1, size + 1
      stack[size] = after
    end
  end
  while size > 0 do
    key, stack[size] = stack[size], nil
    size = size - 1
    expand(known, key, reduced, emit)
    if result.violation then
      local path = {}
      while key ~= 0 do
        table.insert(path, 1, key)
        key = from[key]
      end
      result.trace, result.complete = replay(known, path, reduced), false
      break
    elseif os.clock() - began > seconds then
      result.complete = size == 0
      break
    end
  end
  return result
end

return explore
