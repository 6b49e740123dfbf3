--- A small world in parts: what all share (logs, commits, runs and their instances, what the oracle knows of the truth), and what
--- belongs to one observer (itself, what the oracle notes of it, what is under way for it). A step of an observer reads and
--- changes the shared part and its own; so what comes of a step is worked out once for each pair of those, whatever the other
--- observers are like. An observer's number is only a name: alone in a world it is the first.
local parts = {}

-- The same in every state.
local CONSTANT <const> = { "config", "routes", "definitions", "units", "wall" }

-- What the oracle's bounds note of an observer, per unit.
local NOTES <const> = { "failures_of", "reads_of", "flying_of" }

local HANDLES <const> = { "quick", "patient" }

-- Other observers, where one steps: whoever looks at more of them than this fails.
local STRANGER <const> = setmetatable({ alive = true, engine = false }, { __index = function(_, name)
  error("a step of one observer looks at another's " .. tostring(name))
end })

local function notes_of(bounds, id)
  local notes = {}
  for _, name in ipairs(NOTES) do
    notes[name] = {}
    for unit, mine in pairs(bounds.units) do
      notes[name][unit], mine[name][id] = mine[name][id], nil
    end
  end
  return notes
end

--- Takes a world apart; it is none any more.
---@param w table
---@param count integer observers that are not strangers
---@return table shared
---@return table[] observers
function parts.split(w, count)
  local oracle, observers, rest = w.oracle, {}, {}
  for id = 1, count do
    local o = w.observers[id]
    for _, handle in ipairs(HANDLES) do
      if o.doorbell and o.doorbell[handle] then
        o.doorbell[handle].world, o.doorbell[handle].observer = nil, nil
      end
    end
    o.noise = nil
    observers[id] = { o = o, ledger = oracle.ledgers[id], lists = oracle.bounds.lists[id], queue = {},
      notes = notes_of(oracle.bounds, id) }
  end
  for _, item in ipairs(w.queue) do
    local own = item.id and observers[item.id]
    table.insert(own and own.queue or rest, item)
    if own then
      item.id = 1
    end
  end
  for _, mine in pairs(oracle.bounds.units) do -- the notes of others are theirs
    mine.flying_of = {}
  end
  for _, part in ipairs(observers) do
    part.o.id = 1
  end
  for _, name in ipairs(CONSTANT) do
    w[name] = nil
  end
  w.queue, w.observers, oracle.ledgers, oracle.bounds.lists, w.trace = rest, nil, nil, nil, nil
  return w, observers
end

--- Makes a world of its parts, which are in it from then on.
---@param shared table
---@param observers table[]
---@param others table[] the notes of further observers, of which nothing else is known
---@param base table a world, for what is the same in all
---@return table world
function parts.join(shared, observers, others, base)
  local w, bounds = shared, shared.oracle.bounds
  for _, name in ipairs(CONSTANT) do
    w[name] = base[name]
  end
  w.observers, w.oracle.ledgers, bounds.lists = {}, {}, {}
  for id, part in ipairs(observers) do
    local o = part.o
    o.id, o.noise = id, w.noise
    for _, handle in ipairs(HANDLES) do
      if o.doorbell and o.doorbell[handle] then
        o.doorbell[handle].world, o.doorbell[handle].observer = w, o
      end
    end
    w.observers[id], w.oracle.ledgers[id], bounds.lists[id] = o, part.ledger, part.lists
    for _, item in ipairs(part.queue) do
      item.id = id
      w.queue[#w.queue + 1] = item
    end
  end
  for id = #observers + 1, #observers > 0 and #observers + #others or 0 do
    w.observers[id] = STRANGER -- where nobody steps, nobody is asked
  end
  for unit, mine in pairs(bounds.units) do
    for _, name in ipairs(NOTES) do
      for id, part in ipairs(observers) do
        mine[name][id] = part.notes[name][unit]
      end
    end
    for i, notes in ipairs(others) do
      mine.flying_of[#observers + i] = notes[unit]
    end
  end
  return w
end

--- What others see of an observer: since when its submits are under way, per unit.
function parts.seen(part)
  return part.notes.flying_of
end

return parts
