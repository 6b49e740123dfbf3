--- Faults in the middle of a drain: processes that are killed, a coordinator that goes, handlers that fail or are slow, dead
--- letters that nobody takes. What was handled is written down by the handlers and compared with what is committed.
local assert = require "luassert"
local ledger = require "spec.kafka.ledger"
local random = require "rouse.sim.random"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local SEED = tonumber(os.getenv "SEED") or 20240607

-- A rest of 10 ms every so many records.
local function every(records)
  return ("if record.offset %% %d == 0 then task.sleep(0.01) end\n"):format(records)
end

local function expect_exit(code, process, seconds)
  local exit, signal = process:finish(seconds or 60)
  assert.equal(code, exit or signal, ledger.said(process))
end

describe("a drain of 100,000 records", function()
  it("loses none and repeats no committed one where processes are killed: index #kill", support.scoped(function(scope)
    local sut = ledger.new(scope, { partitions = 4, count = 25000, handle = every(250) })
    local kills, players = 0, {}
    -- Each index has its own kills, all of them at once.
    for index = 0, 3 do
      players[index + 1] = task.spawn(function()
        local dice = random.new(SEED, "index " .. index)
        for _ = 1, 3 do
          local process = sut:index(index)
          support.wait("the first record", 30, function() return ledger.progress(process) > 0 or process:ended() end)
          task.sleep(dice:between(0, 1.2))
          if process:ended() then break end -- there was little left
          process.child:kill("KILL")
          process:finish()
          kills = kills + 1
          sut:mark()
        end
        expect_exit(0, sut:index(index))
        return true
      end)
    end
    for _, player in ipairs(players) do assert(player:join()) end
    assert.is_true(kills >= 8, kills .. " kills with seed " .. SEED)
    sut:expect_order()
    sut:expect_drained(4)
  end))

  it("loses none and repeats no committed one where processes are killed: group #kill", support.scoped(function(scope)
    local sut = ledger.new(scope, { partitions = 4, count = 25000, handle = every(50),
      env = { ROUSE_KAFKA = "security.protocol=plaintext;session.timeout.ms=6000;heartbeat.interval.ms=500",
        IDLE_TIMEOUT = "2" } })
    local dice, members = random.new(SEED, "group"), { sut:consume(), sut:consume() }
    for _, member in ipairs(members) do ledger.wait(member, 1) end
    task.sleep(dice:between(0, 2))
    local victim = dice:int(1, 2)
    members[victim].child:kill("KILL")
    members[victim]:finish()
    sut:mark()
    members[victim] = sut:consume()
    support.wait("the new member's first record", 30, function() return ledger.progress(members[victim]) > 0 end)
    sut:mark()
    for _, member in ipairs(members) do expect_exit(0, member) end
    sut:expect_drained(3)
  end))
end)

-- A record of partition 1 that cannot be handled.
local function poison(offset)
  return ("if record.partition == 1 and record.offset == %d then error 'poison' end\n"):format(offset)
end
local POISON = poison(500)
local QUICK = "retry = { first = 0.02, max = 0.05, tries = 3 }"

-- The offsets that a topic's letters say they come from; their key, value and other headers are left to other specs.
local function letters(scope, topic)
  local list = {}
  for offset in scope:run("kcat", "-C", "-q", "-e", "-b", scope.brokers, "-t", topic, "-o", "beginning", "-f",
      "%h\n"):gmatch("__connect%.errors%.offset=(%d+)") do
    table.insert(list, math.tointeger(offset))
  end
  return list
end

describe("a record that cannot be handled", function()
  it("parks its partition, and the others go on", support.scoped(function(scope)
    local sut = ledger.new(scope, { partitions = 4, count = 1000, handle = POISON, consume = QUICK })
    for _ = 1, 2 do
      local process = sut:consume()
      expect_exit(65, process)
      assert.same({ [0] = 1000, 500, 1000, 1000 }, sut:mark().committed)
      assert.truthy(ledger.text(process.file):find('"message":"partition parked".-"partition":1,"offset":500'))
    end
    local _, count = sut:times()
    assert.equal(3500, count)
  end))

  it("becomes one dead letter, and everything is committed", support.scoped(function(scope)
    local dead = scope:topic { partitions = 1, prefix = "dead" }
    local sut = ledger.new(scope, { partitions = 4, count = 1000, handle = POISON,
      consume = ('dead = "%s", %s'):format(dead, QUICK) })
    expect_exit(0, sut:consume())
    assert.same({ 500 }, letters(scope, dead))
    sut.dead["1/500"] = true
    assert.same({ [0] = 1000, 1000, 1000, 1000 }, sut:mark().committed)
    local _, count = sut:times()
    assert.equal(3999, count)
  end))

  it("has its letter before it is committed, also where the process is killed #kill", support.scoped(function(scope)
    local count, dead = 8000, scope:topic { partitions = 1, prefix = "dead" }
    -- Letters that are on their way for so long that a commit comes by meanwhile.
    local sut = ledger.new(scope, { partitions = 1, count = count, consume = ('dead = "%s"'):format(dead),
      handle = "if record.offset % 7 == 0 then return 'dead', 'a seventh' end\n",
      env = { ROUSE_KAFKA = "security.protocol=plaintext;linger.ms=700" } })
    for offset = 0, count - 1, 7 do sut.dead["0/" .. offset] = true end
    -- How many of those below the commit have no letter.
    local function missing(committed)
      local found, none = {}, 0
      for _, offset in ipairs(letters(scope, dead)) do found[offset] = true end
      for offset = 0, committed - 1, 7 do none = none + (found[offset] and 0 or 1) end
      return none
    end
    local dice, kills, before = random.new(SEED, "letters"), 0, 0
    for _ = 1, 3 do
      local process = sut:index(0)
      support.wait("a commit", 30, function() return sut:committed()[0] > before or process:ended() end)
      task.sleep(dice:between(0, 0.3))
      if process:ended() then break end
      process.child:kill("KILL")
      process:finish()
      kills = kills + 1
      before = sut:mark().committed[0]
      assert.equal(0, missing(before))
    end
    assert.is_true(kills >= 2, kills .. " kills with seed " .. SEED)
    expect_exit(0, sut:index(0))
    assert.equal(count, sut:mark().committed[0])
    assert.equal(0, missing(count))
    sut:expect_order()
  end))

  it("is not passed while its dead letter topic takes no such record", support.scoped(function(scope)
    local dead = scope:topic { partitions = 1, prefix = "dead", properties = "max.message.bytes=60" }
    local sut = ledger.new(scope, { partitions = 4, count = 1000, handle = POISON,
      consume = ('dead = "%s", %s'):format(dead, QUICK) })
    local process = sut:consume()
    expect_exit(65, process)
    assert.truthy(ledger.text(process.file):find('"message":"dead letter not written".-"offset":500'))
    assert.same({ [0] = 1000, 500, 1000, 1000 }, sut:mark().committed)
    -- The cause is gone: the same record, one letter, and all that was behind it.
    scope:recreate(dead, 1)
    expect_exit(0, sut:consume())
    assert.same({ 500 }, letters(scope, dead))
    sut.dead["1/500"] = true
    assert.same({ [0] = 1000, 1000, 1000, 1000 }, sut:mark().committed)
    sut:expect_order()
  end))
end)

describe("a handler", function()
  it("that fails for one record in ten finishes all of them, in order", support.scoped(function(scope)
    local sut = ledger.new(scope, { partitions = 4, count = 2500,
      consume = "retry = { first = 0.001, max = 0.02, tries = 50 }",
      -- Sometimes an error, sometimes an answer, sometimes after a wait; by record and attempt, so that a seed repeats it.
      handle = ([[
        local dice = (record.partition * 7919 + record.offset * 31 + ctx.attempt * 104729 + %d) * 2654435761 >> 13
        if dice %% 10 == 0 then
          if dice // 10 %% 3 == 0 then error "thrown" end
          if dice // 10 %% 3 == 1 then task.sleep(0.001) end
          return "retry", "asked for"
        end]]):format(SEED) })
    local process = sut:consume()
    expect_exit(0, process)
    local _, failures = ledger.text(process.file):gsub('"message":"handler ', "")
    assert.is_true(failures > 700 and failures < 1300, failures .. " failures")
    sut:expect_order()
    assert.equal(0, sut:expect_drained(1))
  end))

  it("that is slower than max.poll.interval.ms keeps its partitions", support.scoped(function(scope)
    local sut = ledger.new(scope, { partitions = 2, count = 1000,
      handle = "if record.partition == 0 and record.offset == 500 then task.sleep(8) end",
      env = { ROUSE_KAFKA = "security.protocol=plaintext;session.timeout.ms=6000;max.poll.interval.ms=6000" } })
    local process = sut:consume()
    support.wait("the other partition while the handler is busy", 30, function()
      local committed = sut:committed()
      assert.is_true(committed[0] <= 500)
      return committed[1] == 1000 and committed[0] == 500
    end)
    sut:mark()
    expect_exit(0, process)
    assert.equal(0, sut:expect_drained(1))
    local _, assignments = ledger.text(process.file):gsub("partitions assigned", "")
    assert.equal(1, assignments)
    assert.is_nil(ledger.text(process.file):find("_MAX_POLL_EXCEEDED", 1, true))
  end))
end)

-- A name for a group whose coordinator is a given broker: Kafka takes the hash of Java's String.
local function group_of(scope, broker)
  local kafka = require "rouse.kafka"
  local admin <close> = assert(kafka.admin { properties = { ["bootstrap.servers"] = scope.brokers } })
  local topic = support.wait("the offsets topic", 30, function()
    local found = assert(admin:metadata { topics = { "__consumer_offsets" }, timeout = 10 }).topics["__consumer_offsets"]
    return found and not found.error and found
  end)
  for _ = 1, 100 do
    local name, hash = support.name "group", 0
    for i = 1, #name do
      hash = (hash * 31 + name:byte(i)) & 0xFFFFFFFF
    end
    hash = (hash < 0x80000000 and hash or 0x100000000 - hash) % #topic.partitions
    for _, partition in ipairs(topic.partitions) do
      if partition.id == hash and partition.leader == broker then
        return name
      end
    end
  end
  error("no group has broker " .. broker .. " as its coordinator")
end

describe("a cluster of two brokers that loses the second", function()
  it("has another coordinator, and a writer of dead letters when it is back", support.scoped(function(scope)
    local properties = "offsets.topic.replication.factor=2\ndefault.replication.factor=2"
    local first = scope:broker(properties)
    local second = scope:broker(properties, first)
    local dead = scope:topic { partitions = 1, prefix = "dead", properties = "min.insync.replicas=2" }
    -- Makes the offsets topic.
    expect_exit(0, ledger.new(scope, { partitions = 1, count = 1 }):consume())
    local group = ledger.new(scope, { partitions = 4, count = 5000, consume = ('dead = "%s", %s'):format(dead, QUICK),
      handle = ("if record.partition ~= 1 or record.offset < 2000 then %s end\n"):format(every(10)) .. poison(2000) })
    local index = ledger.new(scope, { partitions = 1, count = 5000, handle = every(10) })
    group.group, index.group = group_of(scope, 2), group_of(scope, 2)
    local member, indexed = group:consume(), index:index(0)
    ledger.wait(member, 100)
    ledger.wait(indexed, 100)
    scope:stop_broker(second, "kill")
    -- All that is not behind the dead letter.
    ledger.wait(member, 17000, 60)
    expect_exit(0, indexed)
    support.wait("the commits", 30, function()
      local committed = group:committed()
      return committed[0] == 5000 and committed[2] == 5000 and committed[3] == 5000
    end)
    assert.equal(2000, group:mark().committed[1])
    assert.same({}, letters(scope, dead))
    scope:start_broker(second)
    expect_exit(0, member)
    group.dead["1/2000"] = true
    assert.same({ [0] = 5000, 5000, 5000, 5000 }, group:mark().committed)
    assert.same({ 2000 }, letters(scope, dead))
    group:expect_order()
    index:expect_order()
    index:expect_drained(1)
  end, 180))
end)
