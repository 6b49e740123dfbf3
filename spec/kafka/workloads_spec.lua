-- Hard workloads on a real broker: the observer as a process of its own, its runs in a mock Code Engine. A spec that says
-- "not woken" rings a bell first, a topic beside the others whose wake shows that the observer has seen all before it.
require "spec.helper"
local refusals = require "rouse.observer.refusals"
local support = require "spec.kafka.support"
local system = require "spec.kafka.system"
local task = require "rouse.task"

local SECONDS = 90

local function scoped(fn, seconds)
  return support.scoped(fn, seconds or SECONDS)
end

local function transaction(transact, records, last)
  transact("begin")
  for i = 1, records do
    transact("put record " .. i)
  end
  transact("flush")
  if last then
    transact(last)
  end
end

-- Numbers that are the same in every run, from `seed` on.
local function random(seed)
  return function(most)
    seed = (seed * 6364136223846793005 + 1442695040888963407) & math.maxinteger
    return (seed >> 24) % most
  end
end

describe("records that nobody may consume", function()
  it("wake nobody while their transactions are open or aborted, one does when it is committed", scoped(function(scope)
    local orders = { partitions = 2 }
    local sut = system.new(scope, { routes = { orders = orders } })
    sut:observe()
    sut:bell()
    local transact, other = scope:transactor(orders.topic, 0), scope:transactor(orders.topic, 1)
    for _ = 1, 3 do
      transaction(transact, 3, "abort")
    end
    transaction(other, 2)
    sut:bell()
    assert.same({}, sut:submits(orders))
    -- Nor when an observer starts and finds them.
    sut:stop()
    sut:observe()
    sut:bell()
    assert.same({}, sut:submits(orders))
    transaction(transact, 1, "commit")
    assert.equal("0", sut:woken(orders, 1).indices)
    other("commit")
    assert.equal("1", sut:woken(orders, 2).indices)
    support.wait("all handled and the runs ended", 30, function()
      return sut:handled(orders) == 3 and sut:ended(orders)
    end)
    sut:bell()
    assert.equal(2, #sut:submits(orders))
    sut:stop()
  end))

  it("wake nobody: markers, a compacted tail, records that have expired", scoped(function(scope)
    local routes = {
      markers = { consumers = false },
      compacted = { consumers = false, properties =
        "cleanup.policy=compact,segment.ms=100,min.cleanable.dirty.ratio=0.01,delete.retention.ms=0" },
      expired = { consumers = false, properties = "retention.ms=200,segment.ms=100" },
      unread = { consumers = false, properties = "retention.ms=200,segment.ms=100" },
    }
    local sut = system.new(scope, { routes = routes })

    local markers = scope:transactor(routes.markers.topic, 0)
    transaction(markers, 1, "commit")
    transaction(markers, 1, "abort")
    sut:commit(routes.markers, 0, 1) -- the one record is done, what follows is none

    sut:produce(routes.expired, { 0 }, 5)
    sut:produce(routes.unread, { 0 }, 5)
    sut:commit(routes.expired, 0, 2)

    -- Five records of one key, deleted by a tombstone; segments are closed by aborted transactions.
    local compacted = scope:transactor(routes.compacted.topic, 0)
    compacted("key a")
    transaction(compacted, 5, "commit")
    sut:commit(routes.compacted, 0, 2)
    scope:run("kcat", "-P", "-Z", "-K:", "-b", scope.brokers, "-t", routes.compacted.topic, "-p", "0", "-l",
      scope:file("tombstone", "a:\n"))
    support.wait("the tail to be compacted", 60, function()
      transaction(compacted, 1, "abort")
      return scope:run("kcat", "-C", "-q", "-e", "-b", scope.brokers, "-t", routes.compacted.topic, "-p", "0", "-o", "2",
        "-X", "isolation.level=read_committed", "-f", "%o\n") == ""
    end)
    support.wait("retention", 60, function()
      return sut:offset(routes.expired, 0, "beginning") == 5
        and sut:offset(routes.unread, 0, "beginning") == 5
    end)

    sut:observe()
    sut:bell()
    for name, route in pairs(routes) do
      assert.equal(name == "bell" and 2 or 0, #sut:submits(route), name)
    end
    -- And it is not deaf there.
    for name, route in pairs(routes) do
      if name ~= "bell" and name ~= "compacted" then
        sut:keep(route) -- a record that may expire before anybody has looked proves nothing
        sut:woken(route, 1)
      end
    end
    transaction(compacted, 1, "commit")
    sut:woken(routes.compacted, 1)
    sut:stop()
  end))
end)

describe("a topic that changes", function()
  it("is consumed from its start when the commit lies beyond its end", scoped(function(scope)
    local orders, shipping = {}, {}
    local sut = system.new(scope, { routes = { orders = orders, shipping = shipping } })
    sut:commit(orders, 0, 1000)
    sut:produce(orders, { 0 }, 3)
    sut:observe()
    sut:woken(orders, 1)
    sut:settled(orders)
    assert.equal(3, sut:handled(orders))

    -- The same while it is watched: deleted, created again, and the old commit put back.
    sut:produce(shipping, { 0 }, 5)
    sut:settled(shipping)
    local before = #sut:submits(shipping)
    scope:recreate(shipping.topic, 1)
    sut:commit(shipping, 0, 5)
    sut:produce(shipping, { 0 }, 2)
    sut:woken(shipping, before + 1)
    sut:settled(shipping)
    assert.equal(7, sut:handled(shipping))
    sut:stop()
  end))

  it("is watched on partitions that it got later", scoped(function(scope)
    local orders = { partitions = 2 }
    local sut = system.new(scope, { routes = { orders = orders },
      script = "return { observe = { refresh = 0.5 } }" })
    sut:observe()
    sut:bell()
    scope:grow(orders.topic, 4)
    sut:produce(orders, { 3 }, 2)
    assert.equal("3", sut:woken(orders, 1).indices)
    sut:settled(orders)
    sut:produce(orders, { 2 }, 2)
    sut:woken(orders, 2)
    assert.same({ 2, 3 }, sut:indices(orders))
    sut:settled(orders)
    sut:stop()
  end))

  it("is left when it is deleted, and watched again when there is one of that name", scoped(function(scope)
    local orders = { partitions = 2 }
    local sut = system.new(scope, { routes = { orders = orders },
      script = "return { observe = { refresh = 0.5 } }" })
    local parts = sut:asked(orders)
    sut:observe()
    sut:produce(orders, { 0 }, 2)
    sut:woken(orders, 1)
    sut:settled(orders)
    assert.equal(2, #parts())
    scope:delete(orders.topic)
    local told = orders.topic .. ": the topic was deleted"
    support.wait("the observer to say so", 30, function() return sut.observer:text():find(told, 1, true) end)
    support.wait("nothing to be known of it", 30, function() return #parts() == 0 end)
    scope:create(orders.topic, 2)
    sut:produce(orders, { 1 }, 2)
    assert.equal("1", sut:woken(orders, 2).indices)
    sut:settled(orders)
    assert.equal(4, sut:handled(orders))
    assert.equal(1, select(2, sut.observer:text():gsub(told:gsub("%p", "%%%0"), "")))
    sut:stop()
  end))
end)

describe("a topic that may not be read", function()
  it("is told, holds up no other, and is watched again when it may", scoped(function(scope)
    scope:broker("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
      .. "allow.everyone.if.no.acl.found=true")
    local orders, grown = { partitions = 2, consumers = false }, { consumers = false }
    local sut = system.new(scope, { routes = { orders = orders, grown = grown },
      script = "return { observe = { refresh = 1 } }" })
    local parts = sut:asked(grown)
    local function told(text, count)
      local line = (orders.topic .. ": " .. text):gsub("%p", "%%%0")
      local _, seen = sut.observer:text():gsub(line, "")
      assert.is_true(seen <= count, ("'%s' is said %d times"):format(text, seen))
      return seen == count
    end
    -- Waits for a look at the topics that begins from here on.
    local function looked()
      local count = #parts() + 1
      scope:grow(grown.topic, count)
      support.wait("a look at the topics", 30, function() return #parts() == count end)
    end
    local REFUSED <const>, AGAIN <const> = "the broker refuses the doorbell", "the doorbell may read the topic again"
    sut:observe()
    sut:bell()
    scope:permit("deny", orders.topic)
    support.wait("the observer to say so", 30, function() return told(REFUSED, 1) end)
    sut:produce(orders, { 0 })
    -- The first look from now on arms it again, if none has yet; one that comes so much later judges that.
    looked()
    local since = task.monotonic()
    support.wait("refusals to be judged", 60, function() return task.monotonic() - since > refusals.SILENCE end)
    looked()
    sut:bell()
    assert.same({}, sut:submits(orders))
    assert.is_true(told(AGAIN, 0))
    scope:permit("allow", orders.topic)
    assert.equal("0", sut:woken(orders, 1).indices)
    support.wait("the observer to say so", 30, function() return told(AGAIN, 1) end)
    sut:stop()
  end))
end)

-- What goes wrong, and how.
local FAULTS = {
  { "creates that answer 500", function(mock) mock:faults { status = { status = 500, count = 2, on = "create" } } end },
  { "IAM that answers 503", function(mock)
    mock:faults { iam_down = 2 }
    mock:expire_tokens()
  end },
  { "a token that was revoked", function(mock) mock:expire_tokens() end },
  { "an answer that was lost after the run was created", function(mock) mock:faults { drop_after_create = 1 } end },
  { "an API that asks for patience", function(mock)
    mock:faults { throttle = { count = 1, retry_after = 2, on = "create" } }
  end },
}

describe("an API that fails", function()
  it("delays wakes and doubles none", scoped(function(scope)
    local orders = { partitions = #FAULTS }
    local sut = system.new(scope, { routes = { orders = orders } })
    sut:observe()
    sut:bell()
    for i, fault in ipairs(FAULTS) do
      fault[2](sut.mock)
      sut:produce(orders, { i - 1 })
      assert.equal(tostring(i - 1), sut:woken(orders, i).indices, fault[1])
      assert.same({}, (sut.mock.switches:show()), fault[1] .. ": it did not strike as often as it should")
    end
    sut:settled(orders)
    assert.same({ 0, 1, 2, 3, 4 }, sut:indices(orders))
    assert.equal(#FAULTS, sut:handled(orders))
    sut:stop()
  end))
end)

describe("an observer that is killed at any time", function()
  it("leaves nothing behind", scoped(function(scope)
    local orders = { partitions = 4 }
    local sut = system.new(scope, { routes = { orders = orders } })
    local draw, produced = random(20240416), 0
    for _ = 1, 10 do
      sut:observe()
      local partition = draw(4)
      local before = draw(400) / 1000
      task.sleep(before)
      sut:produce(orders, { partition }, 2)
      produced = produced + 2
      task.sleep(draw(400) / 1000 * (1 - before))
      sut:kill()
    end
    sut:observe()
    sut:settled(orders)
    assert.is_true(sut:handled(orders) >= produced)
    sut:stop()
  end))
end)

describe("a record that comes when its consumer leaves", function()
  for _, assign in ipairs { "index", "group" } do
    it("is consumed: " .. assign, scoped(function(scope)
      local orders = { assign = assign }
      local sut = system.new(scope, { routes = { orders = orders } })
      sut:observe()
      local function handled(count)
        support.wait(("record %d"):format(count), 30, function() return sut:handled(orders) >= count end)
      end
      sut:produce(orders)
      handled(1)
      for round, offset in ipairs { -0.2, -0.1, 0, 0.05, 0.1, 0.2 } do
        task.sleep(1 + offset)
        sut:produce(orders)
        handled(round + 1)
      end
      sut:settled(orders)
      assert.equal(7, sut:handled(orders))
      sut:stop()
    end))
  end
end)

-- Slower than all the others together, so only where KAFKA_SLOW=1 asks for it.
local slow = os.getenv "KAFKA_SLOW" == "1" and it or function(name) pending(name .. " (KAFKA_SLOW=1)") end

describe("offsets of quiet groups", function()
  slow("outlive the broker's retention #slow", scoped(function(scope)
    scope:broker "offsets.retention.minutes=1\noffsets.retention.check.interval.ms=1000"
    local joined, assigned = { assign = "group" }, { partitions = 2 }
    local sut = system.new(scope, { routes = { joined = joined, assigned = assigned },
      script = "return { observe = { renew_offsets = 20 } }" })
    sut:observe()
    sut:produce(joined, { 0 }, 3)
    sut:produce(assigned, { 0, 1 }, 2)
    sut:settled(joined)
    sut:settled(assigned)
    local control, quiet = support.name "control", task.monotonic()
    sut:commit(joined, 0, 1, control)
    assert.equal(1, sut:committed(joined, 0, control))
    support.wait("the commits of a group that nobody renews to go", 100, function()
      return sut:committed(joined, 0, control) == nil
    end)
    support.wait("90 s of quiet", 100, function() return task.monotonic() - quiet > 90 end)
    assert.equal(3, sut:committed(joined, 0))
    assert.equal(2, sut:committed(assigned, 0))
    assert.equal(2, sut:committed(assigned, 1))
    sut:stop()
  end, 240))
end)

-- Waits once, so that the commit of whoever serves the group moves before anything is submitted: that is how the observer
-- learns of them. From then on it waits by itself.
local PATIENT = [[
local verdict = require "rouse.verdict"
local asked = {}
return {
  observe = {},
  decide = function(job)
    if not asked[job.name] and job.name:find("^orders") then
      asked[job.name] = true
      return verdict.wait { seconds = 3, reason = "somebody may be there" }
    end
    return verdict.wake {}
  end,
}
]]

describe("a group that somebody else is known to serve", function()
  it("gets no run while that lives, and one when it has left", scoped(function(scope)
    local orders = { assign = "group" }
    local sut = system.new(scope, { routes = { orders = orders }, script = PATIENT })
    local other = scope:spawn { name = "somebody else", command = { support.rouse, "consumer" },
      env = support.merge(support.kafka "plaintext", { CONSUMER_GROUP = orders.group, KAFKA_TOPIC = orders.topic,
        IDLE_TIMEOUT = "600" }) }
    local function consumed(count)
      support.wait(("commit %d of somebody else"):format(count), 30, function()
        return sut:committed(orders, 0) == count
      end)
    end
    local function told(code, count)
      support.wait(("decision %s, %d times"):format(code, count), 20, function()
        local _, n = sut.observer:text():gsub(orders.job:gsub("%-", "%%-") .. ": " .. code, "")
        return n >= count
      end)
    end
    sut:produce(orders)
    consumed(1)
    sut.env.ROUSE_LOG_LEVEL = "debug"
    sut:observe()
    told("no_work", 1)
    sut:produce(orders)
    told("no_work", 2) -- the rule's wait is over, the commit has moved meanwhile
    for i = 3, 5 do
      sut:produce(orders)
      told("served", 1)
      consumed(i)
      sut:bell()
      assert.same({}, sut:submits(orders), "record " .. i)
    end
    told("no_work", 3) -- and nor was it woken later for those
    assert.same({}, sut:submits(orders))
    assert.is_false(other:ended())
    other:terminate()
    sut:produce(orders)
    sut:woken(orders, 1)
    sut:settled(orders)
    assert.equal(1, sut:handled(orders))
    sut:stop()
  end))
end)
