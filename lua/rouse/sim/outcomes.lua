--- What comes of the moves of a small world (rouse.sim.moves), worked out once for the parts that they concern, in a world made
--- of those (rouse.sim.parts). Parts are known by number; those that differ in nothing that matters (rouse.sim.matters) are one.
local matters = require "rouse.sim.matters"
local moves = require "rouse.sim.moves"
local parts = require "rouse.sim.parts"
local state = require "rouse.sim.state"
local world = require "rouse.sim.world"

local Outcomes = { __name = "rouse.sim.outcomes" }
Outcomes.__index = Outcomes

local outcomes = {}

outcomes.BITS = 21 -- of a part's number

local BITS <const> = outcomes.BITS
local CLOCK <const> = world.CLOCK -- now, in every part that is kept

local function store()
  return { ids = {}, texts = {}, told = {} }
end

---@param base table the world in which it begins, which is not changed
function outcomes.new(base)
  local self = setmetatable({ base = base, observers = store(), shared = store(), sights = {} }, Outcomes)
  self:forget()
  return self
end

--- Forgets what came of moves: they are made anew, with a trace if wanted.
function Outcomes:forget(traced)
  self.traced, self.of, self.ends, self.besides, self.times, self.ages = traced, {}, {}, {}, {}, {}
end

-- ---- parts by number ----

local function keep(kept, hash, part, clock, tell)
  local id = kept.ids[hash]
  if not id then
    id = #kept.texts + 1
    assert(id < 1 << BITS, "too many parts")
    kept.ids[hash], kept.told[id] = id, tell(part, clock)
    kept.texts[id] = state.pack(part, clock - CLOCK)
  end
  return id
end

-- What others see of an observer, by number; 0: nothing.
function Outcomes:sight(part, clock)
  local notes, words = {}, {}
  for unit, since in pairs(parts.seen(part)) do
    notes[unit] = since - (clock - CLOCK)
    words[#words + 1] = ("%s %.3f"):format(unit, notes[unit])
  end
  if #words == 0 then
    return 0
  end
  table.sort(words)
  local name, sights = table.concat(words, "\n"), self.sights
  if not sights[name] then
    assert(#sights < 1000, "too many sights")
    sights[#sights + 1], sights[name] = notes, #sights + 1
  end
  return sights[name]
end

function Outcomes:keep_observer(part, clock)
  return keep(self.observers, matters.of_observer(part, clock), part, clock, function()
    local told = moves.pending(part.queue, clock)
    told.seen, told.armed = self:sight(part, clock), next(part.o.fetches.quick) ~= nil
    return told
  end)
end

function Outcomes:keep_shared(part, clock)
  return keep(self.shared, matters.of_shared(part, clock), part, clock, function()
    local told = moves.pending(part.queue, clock)
    told.patient, told.waiting = moves.patient(part), part.oracle:waiting()
    return told
  end)
end

--- The parts of a world, which is none afterwards.
---@return integer shared, integer? one, integer? two
function Outcomes:keep(w, count)
  local clock = w.clock
  local shared, observers = parts.split(w, count)
  return self:keep_shared(shared, clock), observers[1] and self:keep_observer(observers[1], clock),
    observers[2] and self:keep_observer(observers[2], clock)
end

-- ---- moves ----

local function join(self, shared, own, sights)
  local mine, others = {}, {}
  if own then
    mine[1] = state.unpack(self.observers.texts[own])
  end
  for i, sight in ipairs(sights) do
    others[i] = self.sights[sight] or {}
  end
  local w = parts.join(state.unpack(self.shared.texts[shared]), mine, others, self.base)
  w.trace = self.traced and {} or nil
  return w
end

---@class rouse.sim.Outcome
---@field label string
---@field shared integer the parts after it
---@field own integer?
---@field quiet boolean whether the observer asked for nothing but the doorbell
---@field seconds number that passed
---@field violation table?
---@field trace string[]?

local function perform(self, w, own, label, act)
  act(w)
  local result = { label = label, quiet = moves.settle(w), trace = w.trace, violation = w.violation }
  result.seconds = w.clock - CLOCK
  result.shared, result.own = self:keep(w, own and 1 or 0)
  return result
end

local function work_out(self, shared, own, sight)
  local list, sights, told = {}, { sight }, self.observers.told[own]
  local w = join(self, shared, own, sights)
  local alone = told.messages == 1 and (w.left.records == 0 or not told.armed)
  local options = moves.of_observer(w, 1)
  for i, move in ipairs(options) do
    local crash = move.kind == "crash"
    -- Whatever an observer was like, it is gone then.
    list[i] = crash and self.ends[shared] or
      perform(self, i == #options and w or join(self, shared, own, sights), own, move.label, move.act)
    if alone and move.last and list[i].quiet then
      list.private = list[i]
    elseif crash then
      list.crash, self.ends[shared] = list[i], list[i]
    end
  end
  return list
end

--- What an observer can do. `private`: its only message, if that changes nothing but the observer, and no other can come before:
--- whatever else happens can as well happen after it. `crash`: its end.
---@param shared integer
---@param own integer
---@param sight integer what is seen of the other observer
function Outcomes:of_observer(shared, own, sight)
  local key = sight << 2 * BITS | shared << BITS | own
  local known = self.of[key]
  if not known then
    known = work_out(self, shared, own, sight)
    self.of[key] = known
  end
  return known
end

local function within(list, name)
  local inner = list[name]
  if not inner then
    inner = {}
    list[name] = inner
  end
  return inner
end

--- What happens beside the observers.
---@param of function moves.of_services or moves.of_records
---@param saw integer what is seen of the observers
---@param seen integer
function Outcomes:beside(of, shared, saw, seen)
  local list, key = within(self.besides, of), shared << 20 | saw << 10 | seen
  if not list[key] then
    local sights, made = { saw, seen }, {}
    for i, move in ipairs(of(join(self, shared, nil, sights))) do
      made[i] = perform(self, join(self, shared, nil, sights), nil, move.label, move.act)
      made[i].rings, made[i].rung = move.rings, {}
    end
    list[key] = made
  end
  return list[key]
end

--- An observer after a record has come.
function Outcomes:rung(record, own)
  if own == 0 or not self.observers.told[own].armed then
    return own
  end
  if not record.rung[own] then
    record.rung[own] = perform(self, join(self, record.shared, own, {}), own, "", record.rings).own
  end
  return record.rung[own]
end

--- Time passes until what comes next for an observer, or for nobody.
---@param own integer?
---@param sights integer[] what is seen of the others
function Outcomes:pass(shared, own, sights, seconds)
  local list = within(self.times, seconds)
  local key = (sights[1] << 10 | (sights[2] or 0)) << 2 * BITS | shared << BITS | (own or 0)
  if not list[key] then
    list[key] = perform(self, join(self, shared, own, sights), own, "time", function(w)
      moves.time(w, own and 1 or nil)
    end)
  end
  return list[key]
end

--- An observer a while later.
function Outcomes:aged(own, seconds)
  local list = within(self.ages, seconds)
  list[own] = list[own] or own == 0 and 0
    or self:keep_observer(state.unpack(self.observers.texts[own]), CLOCK + seconds)
  return list[own]
end

return outcomes
