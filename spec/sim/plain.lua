-- The same exploration without what makes it quick: every move is made in a whole world, nothing is left out because it can
-- as well happen later, and worlds that count as one have to lead to the same worlds.
local explore = require "rouse.sim.explore"
local matters = require "rouse.sim.matters"
local moves = require "rouse.sim.moves"
local parts = require "rouse.sim.parts"
local state = require "rouse.sim.state"
local world = require "rouse.sim.world"

local plain = {}

--- A world as texts of its parts, and as the number it has in the exploration: observers count as a set.
function plain.pack(w, count)
  local clock = w.clock
  local shared, observers = parts.split(w, count)
  local texts, sum = { state.pack(shared, clock - world.CLOCK) }, matters.of_shared(shared, clock)
  for id, part in ipairs(observers) do
    texts[id + 1] = state.pack(part, clock - world.CLOCK)
    sum = sum + (matters.of_observer(part, clock) * 0x9E3779B97F4A7C15 ~ 0x55) * 0xBF58476D1CE4E5B9
  end
  return sum, texts
end

local function unpack(texts, base)
  local observers = {}
  for i = 2, #texts do
    observers[i - 1] = state.unpack(texts[i])
  end
  return parts.join(state.unpack(texts[1]), observers, {}, base)
end

local function add_times(w, count, list)
  local all = moves.pending(w.queue, w.clock)
  if all.messages > 0 or not moves.patient(w) then
    return
  end
  for id = 0, count do
    id = id > 0 and id or nil
    for _, item in ipairs(w.queue) do
      if item.id == id and item.at == w.clock + all.later then
        list[#list + 1] = function(copy) moves.time(copy, id) end
        break
      end
    end
  end
end

local function choices(w, count)
  local list, request = {}, moves.pending(w.queue, w.clock).request
  for id = 1, count do
    for _, move in ipairs(moves.of_observer(w, id)) do
      list[#list + 1] = move.act
    end
    if request and #list > 0 then -- one request after the other
      return list
    end
  end
  for _, more in ipairs { moves.of_services(w), moves.of_records(w) } do
    for _, move in ipairs(more) do
      list[#list + 1] = move.act
    end
  end
  add_times(w, count, list)
  return list
end

-- The worlds after a world: by number, and the violation of one of them.
local function after(texts, base, count)
  local list, violation = {}, nil
  for i, act in ipairs(choices(unpack(texts, base), count)) do
    local w = unpack(texts, base)
    act(w)
    moves.settle(w)
    violation = violation or w.violation
    local number, packed = plain.pack(w, count)
    list[i] = { number = number, texts = packed }
  end
  return list, violation
end

local function same(one, two)
  local counts = {}
  for _, it in ipairs(one) do
    counts[it.number] = 1
  end
  for _, it in ipairs(two) do
    if not counts[it.number] then
      return false
    end
    counts[it.number] = 2
  end
  for _, count in pairs(counts) do
    if count == 1 then
      return false
    end
  end
  return true
end

--- Explores a world. `different`: worlds that counted as one already known and led elsewhere.
---@return { states: integer, different: integer, violation: table? }
function plain.run(small)
  local base, first = explore.start(small), explore.start(small)
  moves.settle(first)
  local number, texts = plain.pack(first, small.observers)
  local known, stack, result = {}, { { number = number, texts = texts } }, { states = 0, different = 0 }
  while #stack > 0 and not result.violation do
    local it = table.remove(stack)
    local list, violation = after(it.texts, base, small.observers)
    result.violation = violation
    if not known[it.number] then
      known[it.number], result.states = list, result.states + 1
      table.move(list, 1, #list, #stack + 1, stack)
    elseif not same(known[it.number], list) then
      result.different = result.different + 1
    end
  end
  return result
end

return plain
