require "spec.helper"
local topics = require "rouse.observer.topics"

describe("topics.leader", function()
  local cluster = topics.cluster { topics = {
    ordered = { partitions = { { id = 0, leader = 1 }, { id = 1, leader = 2 }, { id = 2 } } },
    mixed = { partitions = { { id = 2, leader = 3 }, { id = 0, leader = 1 }, { id = 1, leader = 2 } } },
    broken = { error = "LEADER_NOT_AVAILABLE", partitions = {} },
  } }

  it("tells who leads a partition, in whatever order the brokers tell them", function()
    assert.same({ 1, 2 }, { topics.leader(cluster, "ordered", 0), topics.leader(cluster, "ordered", 1) })
    assert.same({ 1, 2, 3 }, { topics.leader(cluster, "mixed", 0), topics.leader(cluster, "mixed", 1),
      topics.leader(cluster, "mixed", 2) })
  end)

  it("knows nobody where nobody leads or nothing is known", function()
    assert.is_nil(topics.leader(cluster, "ordered", 2))
    assert.is_nil(topics.leader(cluster, "ordered", 3))
    assert.is_nil(topics.leader(cluster, "broken", 0))
    assert.is_nil(topics.leader(cluster, "elsewhere", 0))
    assert.is_nil(topics.leader(nil, "ordered", 0))
  end)
end)
