-- What the design rests on and the mock cluster cannot show: transactions, honest groups, commits by non-members.
require "spec.helper"
local kafka = require "rouse.kafka"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local function properties(group, more)
  return support.merge({
    ["bootstrap.servers"] = support.brokers, ["group.id"] = group, ["enable.auto.commit"] = "false",
    ["enable.auto.offset.store"] = "false",
  }, more)
end

local function open_consumer(scope, group, more)
  local consumer = assert(kafka.consumer { properties = properties(group, more) })
  scope:defer(function() consumer:close { timeout = 10 } end)
  return consumer
end

local function open_admin(scope, more)
  local admin = assert(kafka.admin {
    properties = support.merge({ ["bootstrap.servers"] = support.brokers }, more),
  })
  scope:defer(function() admin:close { timeout = 5 } end)
  return admin
end

-- Answers rebalances as a consumer must, until stop(): events of one consumer, in order.
local function member(scope, group, topic, more)
  local self = { events = {}, records = 0, assigned = {} }
  self.consumer = open_consumer(scope, group, more)
  self.consumer:subscribe { topic }
  self.task = task.spawn(function()
    while not self.stopping do
      local event = self.consumer:poll { timeout = 0.2 }
      if event and event.kind == "assign" then
        table.insert(self.events, event)
        if event.protocol == "COOPERATIVE" then
          self.consumer:incremental_assign(event.partitions)
        else
          self.consumer:assign(event.partitions)
        end
      elseif event and event.kind == "revoke" then
        table.insert(self.events, event)
        if event.protocol == "COOPERATIVE" then
          self.consumer:incremental_unassign(event.partitions)
        else
          self.consumer:assign {}
        end
      elseif event and event.kind == "records" then
        self.records = self.records + #event.records
      end
      self.assigned = self.consumer:assignment()
    end
  end)
  function self.stop()
    self.stopping = true
    self.task:join(5)
    assert(self.consumer:close { timeout = 10 })
  end
  return self
end

local function commit_error(consumer, topic, partition, offset)
  local list, _, code = consumer:commit({ { topic = topic, partition = partition, offset = offset } }, { timeout = 20 })
  if not list then
    return code
  end
  return list[1].error
end

describe("the doorbell", function()
  it("rings for committed records only", support.scoped(function(scope)
    local topic = scope:topic { partitions = 1 }
    local bell = open_consumer(scope, support.name "bell", {
      ["isolation.level"] = "read_committed", ["auto.offset.reset"] = "error", ["fetch.wait.max.ms"] = "250",
    })
    bell:incremental_assign { { topic = topic, partition = 0, offset = 0 } }
    local function ring(timeout)
      local event, _, code = bell:poll { timeout = timeout }
      return event, code
    end
    local transaction = scope:transactor(topic, 0)
    transaction "begin"
    transaction "put open"
    transaction "flush"
    assert.same({ nil, "TIMEDOUT" }, { ring(1) })
    transaction "abort"
    assert.same({ nil, "TIMEDOUT" }, { ring(1) })
    transaction "begin"
    transaction "put visible"
    transaction "commit"
    local event = ring(10)
    assert.equal("records", event and event.kind)
    -- One record and one marker of the aborted transaction lie before it.
    assert.equal(2, event.records[1].offset)
    assert.equal("visible", event.records[1].value)
    -- Re-armed at the end, the marker of the commit does not ring either.
    bell:incremental_unassign { { topic = topic, partition = 0 } }
    bell:incremental_assign { { topic = topic, partition = 0, offset = 3 } }
    assert.same({ nil, "TIMEDOUT" }, { ring(1) })
    scope:produce { topic = topic, partitions = { 0 } }
    event = ring(10)
    assert.equal(4, event and event.records[1].offset)
  end))

  it("rings when its offset is not in the topic", support.scoped(function(scope)
    local topic = scope:topic { partitions = 1 }
    scope:produce { topic = topic, partitions = { 0 }, count = 5 }
    local bell = open_consumer(scope, support.name "bell", {
      ["auto.offset.reset"] = "error", ["fetch.wait.max.ms"] = "250",
    })
    bell:incremental_assign { { topic = topic, partition = 0, offset = 50 } }
    local event = bell:poll { timeout = 20 }
    assert.equal("error", event and event.kind)
    assert.equal("_AUTO_OFFSET_RESET", event.code)
    assert.equal(topic, event.topic)
    assert.equal(0, event.partition)
  end))
end)

describe("offsets", function()
  it("tell the consumable end and the beginning of many partitions in one call", support.scoped(function(scope)
    local topic = scope:topic { partitions = 3 }
    scope:produce { topic = topic, partitions = { 0, 2 }, count = 7 }
    local transaction = scope:transactor(topic, 1)
    transaction "begin"
    transaction "put open"
    transaction "flush"
    local list = {}
    for partition = 0, 2 do
      list[partition + 1] = { topic = topic, partition = partition }
    end
    local function ends(level)
      local admin = open_admin(scope, { ["isolation.level"] = level })
      local answer = assert(admin:offsets { partitions = list, at = "end", timeout = 10 })
      return { answer[1].offset, answer[2].offset, answer[3].offset }
    end
    assert.same({ 7, 0, 7 }, ends "read_committed")
    assert.same({ 7, 1, 7 }, ends "read_uncommitted")
    transaction "abort"
    local admin = open_admin(scope)
    local low = assert(admin:offsets { partitions = list, at = "beginning", timeout = 10 })
    assert.same({ 0, 0, 0 }, { low[1].offset, low[2].offset, low[3].offset })
  end))
end)

describe("a non-member's commit", function()
  it("is refused while the group has a member, and accepted before and after", support.scoped(function(scope)
    local topic, group = scope:topic { partitions = 2 }, support.name "group"
    local outsider = open_consumer(scope, group)
    assert.is_nil(commit_error(outsider, topic, 0, 0))
    local insider = member(scope, group, topic)
    support.wait("the assignment", 30, function() return #insider.assigned == 2 end)
    assert.equal("UNKNOWN_MEMBER_ID", commit_error(outsider, topic, 0, 0))
    insider.stop()
    support.wait("the commit to be accepted again", 20, function()
      return commit_error(outsider, topic, 0, 0) == nil
    end)
  end))
end)

describe("a group", function()
  for _, case in ipairs { { strategy = "range", protocol = "EAGER" },
                          { strategy = "cooperative-sticky", protocol = "COOPERATIVE" } } do
    it("shares its partitions among members: " .. case.strategy, support.scoped(function(scope)
      local topic, group = scope:topic { partitions = 4 }, support.name "group"
      local more = { ["partition.assignment.strategy"] = case.strategy }
      local first = member(scope, group, topic, more)
      support.wait("the first assignment", 30, function() return #first.assigned == 4 end)
      assert.equal("assign", first.events[1].kind)
      assert.equal(case.protocol, first.events[1].protocol)
      local second = member(scope, group, topic, more)
      support.wait("an even share", 30, function() return #first.assigned == 2 and #second.assigned == 2 end)
      local revoked
      for _, event in ipairs(first.events) do
        revoked = revoked or event.kind == "revoke" and event
      end
      assert.is_false(revoked.lost)
      assert.equal(case.protocol == "EAGER" and 4 or 2, #revoked.partitions)
      second.stop()
      support.wait("everything again", 30, function() return #first.assigned == 4 end)
      first.stop()
    end))
  end

  it("is described with its state and members", support.scoped(function(scope)
    local topic, group = scope:topic { partitions = 1 }, support.name "group"
    local admin = open_admin(scope)
    local function describe_group()
      local groups = assert(admin:describe_groups { groups = { group }, timeout = 10 })
      return groups[group]
    end
    local only = member(scope, group, topic)
    support.wait("the assignment", 30, function() return #only.assigned == 1 end)
    local described = describe_group()
    assert.is_nil(described.error)
    assert.equal("stable", described.state:lower())
    assert.equal(1, #described.members)
    only.stop()
    support.wait("an empty group", 20, function() return #describe_group().members == 0 end)
    assert.equal("empty", describe_group().state:lower())
  end))

  it("has offsets that an administrator reads and sets", support.scoped(function(scope)
    local topic, group = scope:topic { partitions = 2 }, support.name "group"
    local admin = open_admin(scope)
    local asked = { { topic = topic, partition = 0 }, { topic = topic, partition = 1 } }
    local before = assert(admin:group_offsets { group = group, partitions = asked, timeout = 10 })
    assert.is_nil(before[1].offset)
    assert.is_nil(before[1].error)
    local altered = assert(admin:alter_group_offsets {
      group = group, partitions = { { topic = topic, partition = 1, offset = 42 } }, timeout = 20,
    })
    assert.is_nil(altered[1].error)
    local after = assert(admin:group_offsets { group = group, partitions = asked, timeout = 10 })
    assert.is_nil(after[1].offset)
    assert.equal(42, after[2].offset)
  end))
end)

describe("metadata", function()
  it("shows partitions that were added", support.scoped(function(scope)
    local topic = scope:topic { partitions = 2 }
    local admin = open_admin(scope)
    local function partitions()
      local found = assert(admin:metadata { topics = { topic }, timeout = 10 })
      return #found.topics[topic].partitions
    end
    assert.equal(2, partitions())
    scope:grow(topic, 5)
    support.wait("five partitions", 20, function() return partitions() == 5 end)
  end))

  it("does not create a topic that is not there", support.scoped(function(scope)
    local admin, name = open_admin(scope), support.name "absent"
    for _ = 1, 2 do
      local found = assert(admin:metadata { topics = { name }, timeout = 10 })
      assert.equal("UNKNOWN_TOPIC_OR_PART", found.topics[name].error)
    end
  end))
end)

describe("an idle consumer", function()
  it("stays silent while the broker restarts, and then gets records", support.scoped(function(scope)
    local topic, group = scope:topic { partitions = 1 }, support.name "group"
    local only = member(scope, group, topic, { ["auto.offset.reset"] = "earliest" })
    support.wait("the assignment", 30, function() return #only.assigned == 1 end)
    scope:restart_broker()
    scope:produce { topic = topic, partitions = { 0 }, count = 3 }
    support.wait("three records", 60, function() return only.records == 3 end)
    only.stop()
  end))
end)
