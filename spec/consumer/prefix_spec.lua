require "spec.helper"
local prefix = require "rouse.consumer.prefix"

describe("consumer.prefix", function()
  it("has no position before anything is finished", function()
    local p = prefix.new()
    p:open(5)
    assert.is_nil(p.position)
    assert.equal(1, p:pending())
  end)

  it("moves past records that are finished in order", function()
    local p = prefix.new()
    p:advance(7)
    assert.equal(8, p.position)
    p:advance(12)
    assert.equal(13, p.position)
  end)

  it("stays before a record whose outcome is unknown", function()
    local p = prefix.new()
    for offset = 10, 14 do p:open(offset) end
    p:finish(10)
    p:finish(12)
    p:finish(13)
    assert.equal(11, p.position)
    assert.equal(4, p:pending())
    p:finish(11)
    assert.equal(14, p.position)
    p:finish(14)
    assert.equal(15, p.position)
    assert.equal(0, p:pending())
  end)

  it("passes gaps of compaction and markers", function()
    local p = prefix.new()
    p:open(3)
    p:open(9)
    p:finish(9)
    assert.is_nil(p.position)
    p:finish(3)
    assert.equal(10, p.position)
  end)

  it("stays before an open record however far those after it are", function()
    local p = prefix.new()
    p:advance(2)
    p:open(3)
    p:advance(5)
    p:advance(6)
    p:open(9)
    p:open(10)
    p:advance(12)
    assert.equal(3, p.position)
    p:finish(9)
    assert.equal(3, p.position)
    p:finish(3)
    assert.equal(10, p.position)
    p:finish(10)
    assert.equal(13, p.position)
    assert.equal(0, p:pending())
    p:advance(13)
    assert.equal(14, p.position)
    assert.is_nil(next(p.after))
  end)

  it("refuses offsets that fall", function()
    local p = prefix.new()
    p:open(1)
    assert.has_error(function() p:open(1) end, "offsets must rise")
    assert.has_error(function() p:advance(1) end, "offsets must rise")
    p:advance(4)
    assert.has_error(function() p:open(4) end, "offsets must rise")
  end)

  it("never passes an unfinished record in any order of finishing", function()
    math.randomseed(20240229)
    for _ = 1, 200 do
      local p, offsets, unfinished = prefix.new(), {}, {}
      local offset = math.random(0, 5)
      for i = 1, 30 do
        offsets[i] = offset
        unfinished[offset] = true
        p:open(offset)
        offset = offset + math.random(1, 3)
      end
      local order = { table.unpack(offsets) }
      for i = #order, 2, -1 do
        local j = math.random(i)
        order[i], order[j] = order[j], order[i]
      end
      for _, finished in ipairs(order) do
        p:finish(finished)
        unfinished[finished] = nil
        local position
        for _, o in ipairs(offsets) do
          if unfinished[o] then break end
          position = o + 1
        end
        assert.equal(position, p.position)
      end
      assert.equal(0, p:pending())
      assert.is_nil(next(p.finished))
      assert.is_nil(next(p.offsets))
    end
  end)
end)
