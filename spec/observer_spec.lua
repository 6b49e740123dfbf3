require "spec.helper"
local observer = require "rouse.observer"
local session = require "rouse.mock.session"
local task = require "rouse.task"
local verdict = require "rouse.verdict"
local with_observer = require "spec.observer.world"

local function default_decide()
  return verdict.wake { reason = "records wait" }
end

describe("observer", function()
  it("submits one run for a burst, with the partitions that have work as its indices", function()
    with_observer({}, function(w)
      w:wait("the doorbell", function() return w.mock.codeengine:counters().requests end)
      w:produce("payments", 1, 3)
      local submit = w:submits(1)[1]
      assert.equal("payments-consumer", submit.job)
      assert.equal("1", submit.indices)
      assert.equal("payments-group", submit.env.CONSUMER_GROUP)
      assert.equal("index", submit.env.ROUSE_ASSIGN)
    end)
  end)

  it("wakes for a backlog that was there before it started", function()
    with_observer({ before = function(w) w:produce("payments", 0, 2) w:produce("payments", 3, 2) end }, function(w)
      w:wait("both partitions", function()
        local text = {}
        for _, submit in ipairs(w:submits(1)) do text[#text + 1] = submit.indices end
        text = table.concat(text, ",")
        return text:find("0") and text:find("3")
      end)
    end)
  end)

  it("sees what was left when a run ends: the exit race", function()
    with_observer({}, function(w)
      w:produce("payments", 0, 2)
      local submit = w:submits(1)[1]
      w:commit("payments", 0, 1) -- it handled one record and left
      w.mock.codeengine:finish(submit.name)
      assert.equal("0", w:submits(2)[2].indices)
    end)
  end)

  it("does not submit again for what a run is consuming", function()
    with_observer({}, function(w)
      w:produce("payments", 0)
      w:submits(1)
      w:produce("payments", 0)
      w:produce("shipping", 2)
      local submits = w:submits(2)
      assert.equal("shipping-consumer", submits[2].job)
      assert.equal(2, #submits)
    end)
  end)

  it("survives an answer that was lost after the run was created", function()
    with_observer({ before = function(w) w.mock.codeengine:faults { drop_after_create = 1 } end }, function(w)
      w:produce("payments", 0)
      w:submits(1)
      w:produce("shipping", 0)
      assert.equal(2, #w:submits(2))
    end)
  end)

  it("tries again when the API fails", function()
    with_observer({ before = function(w)
      w.mock.codeengine:faults { status = { status = 503, on = "create", count = 2 } }
    end }, function(w)
      w:produce("payments", 2)
      assert.equal("2", w:submits(1)[1].indices)
    end)
  end)

  it("claims records in a group of its own where no group is known, and wakes a job for each partition", function()
    with_observer({ env = { OBSERVER_CONSUMER_GROUP = "watchers" }, topics = { { name = "payments", partitions = 4 } },
      before = function(w) w:produce("payments", 0) end }, function(w)
      local submit = w:submits(1)[1]
      assert.equal("0-3", submit.indices)
      w:wait("the commit", function()
        local list = assert(w.admin:group_offsets { group = "watchers", timeout = 30,
          partitions = { { topic = "payments", partition = 0 } } })
        return list[1].offset == 1
      end)
    end)
  end)

  it("asks on_record which job a record wakes", function()
    local script = { observe = {}, decide = default_decide, on_record = function(record)
      return record.value == "v2" and { job = "payments-consumer", env = { FOUND = "v2" } } or nil
    end }
    with_observer({ script = script, topics = { { name = "payments", partitions = 1 } } }, function(w)
      -- The group of the claims joins in 3 s on the mock; what it finds at its start wakes, so wait for the join first.
      w:wait("the claims group", function()
        w:produce("payments", 0, 2)
        task.sleep(0.2)
        return w.mock.codeengine:counters().submits[1]
      end)
      assert.equal("payments-consumer", w:submits(1)[1].job)
    end)
  end)

  it("is refused with what is missing, all at once", function()
    task.run(function()
      assert.equal(78, observer.run { script = { observe = {} }, env = {} })
    end)
  end)

  it("ends with 77 when IAM refuses the key", function()
    task.run(function()
      local mock = assert(session.start { environ = {}, execute = false, quiet = true })
      local env = mock:environ {}
      env.IAM_API_KEY = "not-the-key"
      assert.equal(77, observer.run { script = { observe = {}, decide = default_decide }, env = env })
      mock:close()
    end)
  end)
end)
