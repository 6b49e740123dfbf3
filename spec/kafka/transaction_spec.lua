-- Exactly once, where it can be seen: a real broker, read by somebody who reads committed records only.
require "spec.helper"
local copies = require "spec.kafka.copies"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local committed, consume, expect_once = copies.committed, copies.consume, copies.expect_once
local index, script, system = copies.index, copies.script, copies.system

describe("a transactional consumer", function()
  it("commits what it produces with its offsets", support.scoped(function(scope)
    local sut = system(scope, 1, 500)
    local consumer = consume(scope, sut, script(scope, sut.out), index(0))
    assert.equal(0, (consumer:finish(60)))
    expect_once(scope, sut.out, 1, 500)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("commits what batches produce, in its group", support.scoped(function(scope)
    local sut = system(scope, 2, 300)
    local path = scope:file("batches", ([[
      return {
        consume = { transactional = true, batch = 7 },
        handle_batch = function(records, ctx)
          for _, record in ipairs(records) do
            ctx.produce { topic = "%s", partition = record.partition, value = record.partition .. "/" .. record.offset }
          end
          if ctx.attempt == 1 and records[1].offset > 100 and records[1].offset < 150 then return "retry", "later" end
          return "done"
        end,
      }]]):format(sut.out))
    local consumer = consume(scope, sut, path)
    assert.equal(0, (consumer:finish(60)))
    expect_once(scope, sut.out, 2, 300)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  -- What a run has done when it is killed is random; the seed is told with a failure.
  local SLOW = "require 'rouse.task'.sleep(0.001) log.info('at', { offset = record.offset })"

  local function progress(consumer, count)
    support.wait(count .. " records of " .. consumer.name, 40, function()
      return consumer:ended() or select(2, consumer:text():gsub('"offset":', "")) >= count
    end)
  end

  it("copies each record once however often it is killed, by index", support.scoped(function(scope)
    local sut = system(scope, 2, 2000)
    local path = script(scope, sut.out, { body = SLOW })
    local seed = os.time()
    local random = require "rouse.sim.random".new(seed)
    local tasks = {}
    for number = 0, 1 do
      tasks[number] = task.spawn(function()
        for round = 1, 5 do
          local consumer = consume(scope, sut, path, index(number, "run-" .. round))
          progress(consumer, random:int(1, 400))
          consumer.child:kill("KILL")
          consumer:finish()
        end
        local last = consume(scope, sut, path, index(number, "run-last"))
        assert.equal(0, (last:finish(60)))
        return true
      end)
    end
    for number = 0, 1 do assert(tasks[number]:join(90)) end
    local ok, why = pcall(expect_once, scope, sut.out, 2, 2000)
    assert(ok, ("seed %d: %s"):format(seed, tostring(why)))
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("copies each record once when members of its group are killed and stopped", support.scoped(function(scope)
    local sut = system(scope, 3, 1200)
    local path = script(scope, sut.out, { body = SLOW })
    local env = { ROUSE_KAFKA = "security.protocol=plaintext;session.timeout.ms=6000;heartbeat.interval.ms=500",
      IDLE_TIMEOUT = "60" }
    local first, second, third = consume(scope, sut, path, env), consume(scope, sut, path, env),
      consume(scope, sut, path, env)
    local stop = scope:feed { topic = sut.topic, partitions = sut.partitions, count = 100 }
    progress(first, 50)
    progress(second, 80)
    progress(third, 20)
    first.child:kill("KILL")
    second.child:kill("STOP") -- a member that does not know that it is none any more
    local count = 1200 + stop()
    support.wait("the third to do it all", 60, function() return scope:left(sut.group, sut.topic) == 0 end)
    expect_once(scope, sut.out, 3, count)
    second.child:kill("CONT")
    support.wait("the second to hear of it", 30, function()
      return second:ended() or second:text():find("partitions lost", 1, true)
    end)
    assert.equal(0, (third:terminate()))
    assert.equal(0, (second:terminate()))
    expect_once(scope, sut.out, 3, count)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("finds the record whose output the broker refuses, and writes it down in its place", support.scoped(function(scope)
    local sut = system(scope, 1, 90)
    local dead = scope:topic { partitions = 1, prefix = "dead" }
    local small = scope:topic { partitions = 1, prefix = "small", properties = "max.message.bytes=2000" }
    local body = [[
      if record.offset == 17 or record.offset == 60 then
        ctx.produce { topic = "]] .. small .. [[", value = ("x"):rep(3000) }
      end]]
    local how = { body = body, consume = "retry = { first = 0.01, max = 0.01, tries = 2 }" }
    local parked = consume(scope, sut, script(scope, sut.out, how), index(0))
    assert.equal(65, (parked:finish(60)))
    expect_once(scope, sut.out, 1, 17)
    how.consume = how.consume .. (", dead = %q"):format(dead)
    local consumer = consume(scope, sut, script(scope, sut.out, how), index(0, "run-2"))
    assert.equal(0, (consumer:finish(60)))
    local times, all = committed(scope, sut.out)
    assert.equal(88, all)
    assert.is_nil(times["0/17"])
    local text = scope:run("kcat", "-C", "-e", "-q", "-b", support.brokers, "-t", dead, "-f", "%h\n")
    for _, offset in ipairs { 17, 60 } do
      assert.truthy(text:find("__connect.errors.offset=" .. offset, 1, true), text)
    end
    assert.equal(2, select(2, text:gsub("\n", "")))
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  it("lets its dead letters be sent back once, in a transaction each", support.scoped(function(scope)
    local sut = system(scope, 2, 20)
    local dead = scope:topic { partitions = 1, prefix = "dead" }
    local env = support.kafka "sasl"
    local how = { consume = ("dead = %q"):format(dead), body = [[
      if record.offset % 5 == 0 then return "dead", "every fifth" end]] }
    for number = 0, 1 do
      assert.equal(0, (consume(scope, sut, script(scope, sut.out, how), index(number)):finish(60)))
    end
    local function dlq(...) -- without the log
      return (scope:run({ env = env }, support.rouse, "dlq", ...):gsub("{[^\n]*\n", ""))
    end
    assert.equal(8, select(2, dlq("list", dead, "--pending"):gsub("every fifth", "")))
    assert.equal(1, select(2, dlq("replay", dead, "0/0"):gsub("\n", "")))
    local sent = dlq("replay", dead, "--reason", "fifth")
    assert.equal(7, select(2, sent:gsub("\n", "")), sent)
    assert.equal("", dlq("replay", dead))
    for _, row in ipairs((select(2, scope:left(sut.group, sut.topic)))) do assert.equal(24, row.end_offset) end
    local text = scope:run("kcat", "-C", "-e", "-q", "-b", support.brokers, "-t", sut.topic, "-p", "0", "-o", "20",
      "-f", "%s|%h\n")
    assert.equal("record 1|\nrecord 6|\nrecord 11|\nrecord 16|\n", text)
    assert.equal("", dlq("list", dead, "--pending"))
  end))

  it("gives its index up where somebody joins, and goes on in the group", support.scoped(function(scope)
    local sut = system(scope, 1, 2000)
    local env = support.merge(index(0), { IDLE_TIMEOUT = "5" })
    local consumer = consume(scope, sut, script(scope, sut.out, { body = SLOW }), env)
    progress(consumer, 300)
    local stop = scope:feed { topic = sut.topic, partitions = { 0 }, count = 100 }
    local other = scope:spawn {
      command = { "kcat", "-b", support.brokers, "-G", sut.group, "-X", "auto.offset.reset=earliest",
        "-X", "session.timeout.ms=6000", "-f", "%p/%o\n", "-u", "-c", "400", sut.topic },
      name = "kcat",
    }
    assert.equal(0, (other:finish(60)))
    local count = 2000 + stop()
    assert.equal(0, (consumer:finish(60)))
    assert.truthy(consumer:text():find("partition given up, joining the group", 1, true), consumer:text())
    local times, all = committed(scope, sut.out)
    local text = "\n" .. other:text()
    for offset = 0, count - 1 do
      local id = "0/" .. offset
      assert.is_true((times[id] or 0) <= 1, id)
      assert.is_truthy(times[id] or text:find("\n" .. id .. "\n", 1, true), id .. " was lost")
    end
    assert.is_true(all >= count - 400)
    assert.equal(0, (scope:left(sut.group, sut.topic)))
  end))

  local slow = os.getenv "KAFKA_SLOW" == "1" and it or function(name) pending(name .. " (KAFKA_SLOW=1)") end
  slow("goes on after the broker was restarted", support.scoped(function(scope)
    local sut = system(scope, 1, 1000)
    local consumer = consume(scope, sut, script(scope, sut.out, { body = SLOW }), index(0))
    progress(consumer, 300)
    scope:restart_broker()
    assert.equal(0, (consumer:finish(90)))
    expect_once(scope, sut.out, 1, 1000)
  end, 180))
end)
