require "spec.helper"
local collector = require "rouse.consumer.collector"

-- Whether a look has taken what nobody holds: the table `make` returns.
local function probe(make)
  return setmetatable({ make() }, { __mode = "v" })
end

describe("the consumer's collector", function()
  local before

  before_each(function()
    before = collectgarbage "incremental"
    collectgarbage()
  end)

  after_each(function()
    collectgarbage "restart"
    collectgarbage(before)
  end)

  -- Nothing is collected but by it.
  local function new()
    local own = collector.new()
    collectgarbage "stop"
    return own
  end

  it("looks when records of some size have come, and not before", function()
    local own = new()
    local seen = probe(function() return {} end)
    own:note(100, 1000)
    own:tidy()
    assert.is_not_nil(seen[1])
    own:note(100, 250 * 1024)
    own:tidy()
    assert.is_nil(seen[1])
    seen = probe(function() return {} end)
    own:tidy()
    assert.is_not_nil(seen[1])
    own:note(3000, 0)
    own:tidy()
    assert.is_nil(seen[1])
  end)

  it("finds what grew old before it died when the memory has doubled", function()
    local own = new()
    local box = { held = {} }
    for _ = 1, 4 do -- now it is old
      own:note(0, 1 << 20)
      own:tidy()
    end
    local seen = setmetatable({ box.held }, { __mode = "v" })
    box.held = nil
    own:note(0, 1 << 20)
    own:tidy()
    assert.is_not_nil(seen[1])
    local full = ("y"):rep((own.floor * 1024 + (2 << 20)) // 1)
    own:note(0, 1 << 20)
    own:tidy()
    assert.is_nil(seen[1])
    assert.is_true(#full > 0)
  end)
end)
