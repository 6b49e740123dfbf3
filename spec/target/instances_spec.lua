require "spec.helper"
local instances = require "rouse.target.instances"

describe("the instances of a run", function()
  it("start as requested and make the run pending", function()
    local all = instances.new { 0, 3, 7 }
    assert.same({ status = "pending", requested = 3, pending = 0, running = 0, succeeded = 0,
      failed = 0, unknown = 0, succeeded_indices = {}, failed_indices = {} }, all:describe {})
  end)

  it("make it running from the first start to the last end", function()
    local all = instances.new { 0, 3 }
    all:set(0, "pending", 1)
    assert.equal("pending", all:status())
    all:set(0, "running", 2)
    assert.equal("running", all:status())
    all:set(0, "succeeded", 3)
    assert.equal("running", all:status())
    all:set(3, "running", 4)
    all:set(3, "succeeded", 9)
    assert.same({ "completed", 9 }, { all:status() })
  end)

  it("make it failed when all have ended and one failed", function()
    local all = instances.new { 0, 3 }
    all:set(3, "failed", 5, { reason = "OOMKilled" })
    assert.equal("running", all:status())
    all:set(0, "succeeded", 4)
    assert.same({ "failed", 5 }, { all:status() })
    local shown = all:describe {}
    assert.same({ 0 }, shown.succeeded_indices)
    assert.same({ 3 }, shown.failed_indices)
  end)

  it("do not come back to life", function()
    local all = instances.new { 0 }
    assert.is_true(all:set(0, "succeeded", 4))
    assert.is_false(all:set(0, "running", 5))
    assert.is_false(all:set(1, "running", 5))
    assert.equal("succeeded", all:status_of(0))
    assert.is_nil(all:status_of(1))
  end)

  it("count each in one bucket, unknown too", function()
    local all = instances.new { 0, 1, 2, 3, 4, 5 }
    for index, status in ipairs { "pending", "running", "succeeded", "failed", "unknown" } do
      all:set(index, status, index)
    end
    assert.same({ requested = { 0 }, pending = { 1 }, running = { 2 }, succeeded = { 3 },
      failed = { 4 }, unknown = { 5 } }, all:buckets())
    assert.equal("running", all:status())
  end)

  it("refuse a status that is none", function()
    assert.has_error(function() instances.new { 0 }:set(0, "asleep", 1) end, "no such status")
  end)
end)
