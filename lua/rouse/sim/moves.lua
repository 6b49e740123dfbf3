--- What can happen next in a small world, and what it makes of it: requests and answers in any order, records, exits, a crash and
--- an API fault at any point. Time passes only while no message is under way; what is answered late is a fault.
---
--- A move is { label =, act = function(w) }: it may be made in any world made of the same parts.
local consumer = require "rouse.sim.consumer"
local ledger = require "rouse.sim.ledger"
local matters = require "rouse.sim.matters"
local steps = require "rouse.sim.steps"

local moves = {}

local FAULTS <const> = {
  submit = { "refused", "dropped", "lost", "slow" }, list = { "unavailable", "slow" }, read_commits = { "timeout" },
  get = { "unavailable" }, renew_read = { "timeout" }, renew_write = { "refused", "lost", "slow" },
}
local OPS <const> = { submit = "submit", list = "list", read_commits = "read", get = "get", renew_read = "renew_read",
  renew_write = "renew" }
local OLD <const> = 1000 -- seconds: beyond all that anybody looks back
local WAITS <const> = 3 -- times that time passes while an instance does nothing

-- Requests are served in the moment they are sent; only answers (and rings, and what the API shows) travel. That loses no
-- behaviour: an observer does nothing between a request of its and the service's look at it that this look could see, and what
-- others do in between they could as well have done before the step that sent it. Commits are read before ends: a record that
-- comes between the two could as well have come before both, a commit as well after both. So it is with fetches and starts.
local REQUESTS <const> = {
  fetch = true, list = true, read_commits = true, read_ends = true, submit = true, get = true, remove = true,
  commit = true, alter = true, begin = true, renew_read = true, renew_write = true,
}

-- A message may be overtaken by others. A timer that is due is one, too.
local function is_message(w, item)
  return item.at <= w.clock
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

-- Answers after which an observer may have nothing to ask for.
local LAST <const> = { read = true, submitted = true, got = true, renewed = true }

--- What can happen to an observer: messages for it, each with the ways it may go wrong, and its end or its start. A request that
--- waits to be served comes alone.
---@return { label: string, kind: string, act: fun(w: table) }[]
function moves.of_observer(w, id)
  local list, only = {}, request(w)
  local function add(kind, label, act, last)
    list[#list + 1] = { kind = kind, label = label, act = act, last = last }
  end
  for i, item in ipairs(w.queue) do
    if item.id == id and is_message(w, item) and (not only or i == only) then
      add("message", item.kind, function(copy)
        copy:step(table.remove(copy.queue, i))
      end, LAST[item.kind] or item.failed)
      for _, how in ipairs(faults_of(w, item)) do
        add("fault", item.kind .. " " .. how, function(copy)
          copy.left.faults = copy.left.faults - 1
          copy.faults[OPS[item.kind]] = { { op = item.kind, how = how, delay = 20, which = 0 } }
          copy:step(table.remove(copy.queue, i))
        end)
      end
    end
  end
  if only then
    return list
  elseif not w.observers[id].alive then
    add("boot", "boot", function(copy) steps.perform.boot(copy, { observer = id }) end)
  elseif w.left.crashes > 0 then
    add("crash", "crash", function(copy)
      copy.left.crashes = copy.left.crashes - 1
      steps.perform.crash(copy, { observer = id })
    end)
  end
  return list
end

local function of_instance(w, r, run, index, inst, add)
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

--- What can happen beside the observers: what the API shows, instances that work, leave or end.
function moves.of_services(w)
  local list = {}
  local function add(label, act)
    list[#list + 1] = { label = label, act = act }
  end
  for i, item in ipairs(w.queue) do
    if not item.id and is_message(w, item) then
      add(item.kind, function(copy)
        copy:step(table.remove(copy.queue, i))
      end)
    end
  end
  for r, run in ipairs(w.project.runs) do
    for index, inst in pairs(run.instances) do
      if inst.state == "running" then
        of_instance(w, r, run, index, inst, add)
      end
    end
  end
  return list
end

--- Records that can come, and what they are to an observer: its parked fetch is answered.
function moves.of_records(w)
  local list = {}
  for partition = 0, w.left.records > 0 and w.cluster.topics.t.count - 1 or -1 do
    list[#list + 1] = { label = "a record on " .. partition, act = function(copy)
      copy.left.records = copy.left.records - 1
      steps.perform.produce(copy, { topic = "t", partition = partition })
    end, rings = function(copy)
      copy:kick("t", partition)
    end }
  end
  return list
end

--- Time passes until the first of what is planned for `id` (nil: for nobody).
function moves.time(w, id)
  local first
  for i, item in ipairs(w.queue) do
    if item.id == id and (not first or item.at < w.queue[first].at) then
      first = i
    end
  end
  for _, run in ipairs(w.project.runs) do
    for _, inst in pairs(run.instances) do
      inst.waits = inst.state == "running" and (inst.waits or 0) + 1 or nil
    end
  end
  w:step(table.remove(w.queue, first))
end

--- What a queue has: whether a request waits to be served, how many messages are under way, and seconds to what comes later.
function moves.pending(queue, clock)
  local told = { request = false, messages = 0, later = math.huge }
  for _, item in ipairs(queue) do
    if item.at > clock then
      told.later = math.min(told.later, item.at - clock)
    else
      told.request = told.request or REQUESTS[item.kind] or false
      told.messages = told.messages + 1
    end
  end
  return told
end

--- Whether time may pass as far as the instances are concerned.
function moves.patient(w)
  for _, run in ipairs(w.project.runs) do
    for _, inst in pairs(run.instances) do
      if inst.state == "running" and (inst.waits or 0) >= WAITS then
        return false
      end
    end
  end
  return true
end

-- Timers that nobody waits for any more are no part of the state.
local function is_stale(w, item)
  local o = item.id and w.observers[item.id]
  return o and (not o.alive or o.life ~= item.life or (item.kind == "timer" and o.call ~= item.call))
    and item.kind ~= "submit" and item.kind ~= "late" and item.kind ~= "remove"
    and item.kind ~= "renew_write"
end

--- After a move: requests are served, and what nobody needs any more is no part of the state. Tells whether nothing but arms of
--- the doorbell was asked for.
---@return boolean quiet
function moves.settle(w)
  local quiet = serve(w)
  for i = #w.queue, 1, -1 do
    local item = w.queue[i]
    if is_stale(w, item) then
      table.remove(w.queue, i)
      local o = w.observers[item.id]
      o.planned = o.planned ~= item.call and o.planned or nil
    end
  end
  for id, o in ipairs(w.observers) do
    if not o.alive and o.engine then -- a process that is gone, and all that was noted of it: the next one begins anew
      o.engine, o.doorbell, o.fetches, o.counts = nil, nil, { quick = {}, patient = {} }, {}
      o.renewals, o.unsent = nil, nil
      w.oracle.bounds:gone(id)
      w.oracle.ledgers[id] = ledger.new {}
    elseif o.engine then -- runs are never old enough to be removed or forgotten
      o.engine.forget_at = w.clock + OLD
      for name in pairs(o.engine.rested) do
        o.engine.rested[name] = w.clock
      end
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
      local shown = run.shown
      if shown.completed_at and matters.is_passed(shown, function(topic, partition)
        return w.cluster:committed(run.group, topic, partition)
      end) then
        shown.completed_at = w:time() - OLD
      end
      run.over = w.clock
      run.starts, run.moved, run.tried, run.nature = nil, nil, nil, nil
    end
  end
  w.faults, w.submits, w.project.history = {}, {}, {}
  w.oracle.bounds:forget(w)
  w.oracle:after(w)
  return quiet
end

return moves
