--- Every interleaving of a small world: requests and answers in any order, records, exits, a crash and an API fault at any point,
--- until no new state appears. Time passes only while no message is under way; what is answered late is a fault.
local consumer = require "rouse.sim.consumer"
local routes = require "rouse.config.routes"
local state = require "rouse.sim.state"
local steps = require "rouse.sim.steps"
local world = require "rouse.sim.world"

local explore = {}

local FAULTS <const> = {
  submit = { "refused", "dropped", "lost", "slow" }, list = { "unavailable", "slow" }, read_commits = { "timeout" },
  get = { "unavailable" },
}
local OPS <const> = { submit = "submit", list = "list", read_commits = "read", get = "get" }
local WAITS <const> = 3 -- times that time passes while an instance does nothing

---@class rouse.sim.Small
---@field partitions integer
---@field records integer
---@field observers integer
---@field assign "index"|"group"
---@field crashes integer
---@field faults integer
---@field exits integer instances that end at any point, with or without having consumed

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
  }
  w.left = { records = small.records, crashes = small.crashes, faults = small.faults, exits = small.exits }
  w.violation = nil
  return w
end

-- Requests are served in the moment they are sent; only answers (and rings, and what the API shows) travel. That loses no
-- behaviour: an observer does nothing between a request of its and the service's look at it that this look could see, and what
-- others do in between they could as well have done before the step that sent it. Commits are read before ends: a record that
-- comes between the two could as well have come before both, a commit as well after both. So it is with fetches and starts.
local REQUESTS <const> = {
  fetch = true, list = true, read_commits = true, read_ends = true, submit = true, get = true, remove = true,
  commit = true, alter = true, begin = true,
}

-- Whether an item is a message: it may be overtaken by others.
local function is_message(w, item)
  return item.at <= w.clock and item.kind ~= "timer"
end

local function faults_of(w, item)
  return w.left.faults > 0 and FAULTS[item.kind] or {}
end

-- The first request that waits to be served.
local function request(w)
  for i, item in ipairs(w.queue) do
    if REQUESTS[item.kind] and is_message(w, item) then
      return i, item
    end
  end
end

-- Serves requests; at one that may go wrong the worlds part. Tells whether all were arms of the doorbell, if any.
local function serve(w)
  local i, item = request(w)
  local only_arms = true
  while i and #faults_of(w, item) == 0 do
    only_arms = only_arms and item.kind == "fetch"
    w:step(table.remove(w.queue, i))
    i, item = request(w)
  end
  return only_arms and not i
end

-- The observer's only message that it can get before it acts, by its place in the queue: nothing else is under way for it, and
-- no record can ring.
local function only_message(w, o)
  local found
  for i, item in ipairs(w.queue) do
    if item.id == o.id and is_message(w, item) then
      if found then
        return nil
      end
      found = i
    end
  end
  return found and (w.left.records == 0 or not (next(o.fetches.quick) or next(o.fetches.patient))) and found
end

-- Answers after which an observer may have nothing to ask for.
local LAST <const> = { read = true, submitted = true, got = true }

-- A message that changes nothing but the observer that gets it: whatever else happens can as well happen after it. Then only it
-- is looked at, and the observer's crash before it. Returns its place, the observer, and the world after it.
local function private(w)
  for id, o in ipairs(w.observers) do
    local i = o.alive and only_message(w, o)
    if i and (LAST[w.queue[i].kind] or w.queue[i].failed) then
      local copy = state.copy(w)
      copy:step(table.remove(copy.queue, i))
      if serve(copy) then
        return i, id, copy
      end
    end
  end
end

--- Everything that can happen next: { label, function that makes it happen, the world after it if that is known }.
local function choices(w)
  local list, busy = {}, false
  local function add(label, act, after)
    list[#list + 1] = { label = label, act = act, after = after }
  end
  local only, whose, after = request(w), nil, nil
  if not only then
    only, whose, after = private(w)
  end
  for i, item in ipairs(w.queue) do
    if is_message(w, item) and i == (only or i) then
      busy = true
      add(item.kind, function(copy)
        copy:step(table.remove(copy.queue, i))
      end, after)
      for _, how in ipairs(faults_of(w, item)) do
        add(item.kind .. " " .. how, function(copy)
          copy.left.faults = copy.left.faults - 1
          copy.faults[OPS[item.kind]] = { { op = item.kind, how = how, delay = 20, which = 0 } }
          copy:step(table.remove(copy.queue, i))
        end)
      end
    end
  end
  if only then
    if whose and w.left.crashes > 0 then
      add("crash", function(copy)
        copy.left.crashes = copy.left.crashes - 1
        steps.perform.crash(copy, { observer = whose })
      end)
    end
    return list
  end
  local waiting = 0
  for r, run in ipairs(w.project.runs) do
    for index, inst in pairs(run.instances) do
      if inst.state == "running" then
        waiting = math.max(waiting, inst.waits or 0)
        local work = consumer.has_work(w, run, inst)
        add(("%s %d %s"):format(run.name, index, work and "works" or "leaves"), function(copy)
          local its = copy.project.runs[r]
          if work then
            consumer.work(copy, its, its.instances[index])
          else
            consumer.finish(copy, its, its.instances[index], true)
          end
        end)
        if w.left.exits > 0 then
          add(("%s %d ends"):format(run.name, index), function(copy)
            copy.left.exits = copy.left.exits - 1
            local its = copy.project.runs[r]
            consumer.finish(copy, its, its.instances[index], false)
          end)
        end
      end
    end
  end
  if w.left.records > 0 then
    for partition = 0, w.cluster.topics.t.count - 1 do
      add("a record on " .. partition, function(copy)
        copy.left.records = copy.left.records - 1
        steps.perform.produce(copy, { topic = "t", partition = partition })
      end)
    end
  end
  for id, o in ipairs(w.observers) do
    if o.alive and w.left.crashes > 0 then
      add("crash", function(copy)
        copy.left.crashes = copy.left.crashes - 1
        steps.perform.crash(copy, { observer = id })
      end)
    elseif not o.alive then
      add("boot", function(copy) steps.perform.boot(copy, { observer = id }) end)
    end
  end
  if not busy and waiting < WAITS then
    local first
    for i, item in ipairs(w.queue) do
      local o = item.id and w.observers[item.id]
      local stale = item.kind == "timer" and (not o.alive or o.life ~= item.life or o.call ~= item.call)
      if not stale and (not first or item.at < w.queue[first].at) then
        first = i
      end
    end
    if first then
      add("time", function(copy)
        for _, run in ipairs(copy.project.runs) do
          for _, inst in pairs(run.instances) do
            inst.waits = inst.state == "running" and (inst.waits or 0) + 1 or nil
          end
        end
        copy:step(table.remove(copy.queue, first))
      end)
    end
  end
  return list
end

-- Timers that nobody waits for any more are no part of the state.
local function tidy(w)
  serve(w)
  for i = #w.queue, 1, -1 do
    local item = w.queue[i]
    local o = item.id and w.observers[item.id]
    if o and (not o.alive or o.life ~= item.life or (item.kind == "timer" and o.call ~= item.call))
      and item.kind ~= "submit" and item.kind ~= "late" and item.kind ~= "remove" then
      table.remove(w.queue, i)
    end
  end
  for _, o in ipairs(w.observers) do
    if not o.alive and o.engine then -- a process that is gone
      o.engine, o.doorbell, o.fetches = nil, nil, { quick = {}, patient = {} }
    end
  end
  for _, run in ipairs(w.project.runs) do
    for _, inst in pairs(run.instances) do
      inst.idle_since, inst.committed_at = nil, nil
      if inst.state == "ended" then
        inst.pos, inst.unsaved, inst.waits, inst.took = nil, nil, nil, nil
      end
    end
    if run.live == 0 then
      run.starts, run.moved, run.tried, run.nature = nil, nil, nil, nil
    end
  end
  w.faults, w.submits, w.project.history = {}, {}, {}
  w.oracle.bounds:forget(w)
end

--- How a state was reached, for people: the same choices again, with a trace.
local function replay(small, path)
  local chosen = {}
  while path do
    table.insert(chosen, 1, path.choice)
    path = path.from
  end
  local w = explore.start(small)
  tidy(w)
  w.trace = {}
  for _, number in ipairs(chosen) do
    local choice = choices(w)[number]
    w:say("-- %s", choice.label)
    choice.act(w)
    tidy(w)
    w.oracle:after(w)
  end
  return w.trace
end

--- Explores a small world.
---@param small rouse.sim.Small
---@param how { most: integer?, seconds: number?, tell: fun(states: integer, waiting: integer)? }?
---@return { states: integer, steps: integer, complete: boolean, violation: table?, trace: string[]? }
function explore.run(small, how)
  how = how or {}
  local first = explore.start(small)
  tidy(first)
  local seen, stack = { [state.hash(first)] = true }, { first }
  local result = { states = 1, steps = 0, complete = true }
  local began = os.clock()
  while #stack > 0 do
    local w = table.remove(stack)
    local list, path = choices(w), w.path
    for number, choice in ipairs(list) do
      local copy = choice.after or number == #list and w or state.copy(w) -- the last one may have this world itself
      if not choice.after then
        choice.act(copy)
      end
      copy.path = { choice = number, from = path }
      tidy(copy)
      copy.oracle:after(copy)
      result.steps = result.steps + 1
      if copy.violation then
        result.violation, result.trace, result.complete = copy.violation, replay(small, copy.path), false
        return result
      end
      local hash = state.hash(copy)
      if not seen[hash] then
        seen[hash] = true
        result.states = result.states + 1
        stack[#stack + 1] = copy
      end
    end
    if result.states >= (how.most or math.huge) or os.clock() - began > (how.seconds or math.huge) then
      result.complete = #stack == 0
      break
    end
    if how.tell and result.states % 5000 < 5 then
      how.tell(result.states, #stack)
    end
  end
  return result
end

return explore
