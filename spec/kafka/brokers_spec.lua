-- A cluster of two real brokers that loses the second, and gets it back: who is woken meanwhile.
require "spec.helper"
local kafka = require "rouse.kafka"
local support = require "spec.kafka.support"
local system = require "spec.kafka.system"
local task = require "rouse.task"

-- Makes the topic of the groups' offsets while there is only the first broker, which keeps it.
local function offsets_topic(scope)
  local admin <close> = assert(kafka.admin { properties = { ["bootstrap.servers"] = scope.brokers } })
  local topic = scope:topic { partitions = 1 }
  support.wait("a commit", 30, function()
    local list = admin:alter_group_offsets { group = support.name "group", timeout = 10,
      partitions = { { topic = topic, partition = 0, offset = 0 } } }
    return list and not list[1].error
  end)
end

-- The partitions of a topic by the broker that leads them.
local function led(sut, route)
  local by = {}
  local metadata = assert(sut.admin:metadata { topics = { route.topic }, timeout = 10 })
  for _, partition in ipairs(metadata.topics[route.topic].partitions) do
    by[partition.leader] = by[partition.leader] or {}
    table.insert(by[partition.leader], partition.id)
  end
  return by
end

describe("a cluster of two brokers", function()
  it("is watched on while the second hangs, or is dead, and when it is back", support.scoped(function(scope)
    local first = scope:broker "leader.imbalance.check.interval.seconds=1\nleader.imbalance.per.broker.percentage=0"
    local address = scope.brokers
    offsets_topic(scope)
    local second = scope:broker("", first)
    local orders = { partitions = 12, consumers = false }
    local moved = { partitions = 4, consumers = false, properties = "replicas=2" }
    local sut = system.new(scope, { routes = { orders = orders, moved = moved } })
    scope.brokers = address -- for producers: none of them has to find out which one is away
    local function second_leads(route, count)
      support.wait("the second broker to lead what it should", 60, function()
        return #(led(sut, route)[2] or {}) == count
      end)
    end
    second_leads(orders, 6)
    second_leads(moved, 2) -- a broker that has just come may not be in sync yet
    local ours, theirs, moving = led(sut, orders)[1], led(sut, orders)[2], led(sut, moved)[2]
    local parts = sut:asked(orders)
    sut:observe()
    sut:bell()
    support.wait("all to be watched", 30, function()
      local known, armed = parts(), 0
      for _, part in ipairs(known) do armed = armed + (part.armed and 1 or 0) end
      return armed == 12
    end)
    local runs = { [orders] = 0, [moved] = 0 }
    local function wakes(route, partition, what)
      sut:produce(route, { partition })
      local produced = task.monotonic()
      runs[route] = runs[route] + 1
      assert.equal(tostring(partition), sut:woken(route, runs[route], 60).indices, what)
      if os.getenv "FIGURES" then print(("%s: woken after %.2f s"):format(what, task.monotonic() - produced)) end
    end
    wakes(orders, table.remove(ours), "all well")
    for _, how in ipairs { { "hang", "resume" }, { "kill", "start" } } do
      scope:stop_broker(second, how[1])
      wakes(orders, table.remove(ours), how[1] .. ", the first broker's")
      wakes(orders, table.remove(ours), how[1] .. ", the first broker's again")
      wakes(moved, table.remove(moving), how[1] .. ", what the first broker took over")
      scope:stop_broker(second, how[2])
      wakes(orders, table.remove(theirs), how[2] .. ", the second broker's")
      second_leads(moved, 2)
    end
    sut:stop()
  end, 180))
end)
