--- A transactional consumer killed in the middle of its commit, at exact points of what it says to the broker (killer.c).
--- Whatever got through, the next owner leaves each record's copy there once.
require "spec.helper"
local copies = require "spec.kafka.copies"
local support = require "spec.kafka.support"
local task = require "rouse.task"

local BEFORE <const>, AFTER <const> = 40, 20
local TXN_OFFSET_COMMIT <const>, END_TXN <const> = 28, 26

-- visible: how many copies a reader of committed records sees before somebody else takes over, where that is certain.
local WINDOWS = {
  { "before its offsets are sent", api = TXN_OFFSET_COMMIT, when = "before", visible = 0 },
  { "with its offsets in the transaction", api = TXN_OFFSET_COMMIT, when = "answered", visible = 0 },
  { "before EndTxn is sent", api = END_TXN, when = "before", visible = 0 },
  { "with EndTxn on its way", api = END_TXN, when = "sent" },
  { "with the answer to EndTxn unread", api = END_TXN, when = "answered", visible = BEFORE },
}

local function killer(window)
  local preloaded = support.environ().LD_PRELOAD
  return { KILL_API = tostring(window.api), KILL_WHEN = window.when,
    LD_PRELOAD = (preloaded and preloaded .. ":" or "") .. assert(os.getenv "KAFKA_KILLER") }
end

local OWNERS = {
  index = function(run) return copies.index(0, run) end,
  group = function() -- a member that was killed is waited for
    return { ROUSE_KAFKA = "security.protocol=plaintext;session.timeout.ms=6000;heartbeat.interval.ms=500" }
  end,
}

local function play(scope, window, owner)
  local sut = copies.system(scope, 1, BEFORE)
  local path = copies.script(scope, sut.out)
  local first = copies.consume(scope, sut, path, support.merge(owner "run-1", killer(window)))
  local code, signal = first:finish(60)
  assert.equal("KILL", signal, ("%s: %s\n%s"):format(window[1], code, first:text()))
  if window.visible then
    support.wait(("%d copies to be seen, killed %s"):format(window.visible, window[1]), 30, function()
      return select(2, copies.committed(scope, sut.out)) == window.visible
    end)
  end
  scope:produce { topic = sut.topic, partitions = { 0 }, count = AFTER }
  local second = copies.consume(scope, sut, path, owner "run-2")
  assert.equal(0, (second:finish(40)), window[1])
  local ok, why = pcall(copies.expect_once, scope, sut.out, 1, BEFORE + AFTER)
  assert(ok, ("killed %s: %s"):format(window[1], tostring(why)))
  assert.equal(0, (scope:left(sut.group, sut.topic)), window[1])
  return true
end

describe("a transactional consumer that is killed while it commits", function()
  for how, owner in pairs(OWNERS) do
    it("leaves each copy to be there once, by " .. how, support.scoped(function(scope)
      local players = {}
      for i, window in ipairs(WINDOWS) do players[i] = task.spawn(play, scope, window, owner) end
      for _, player in ipairs(players) do assert(player:join()) end
    end))
  end
end)
