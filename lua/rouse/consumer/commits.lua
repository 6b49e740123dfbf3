-- When and what a session commits. Methods of rouse.consumer.session.

local faults = require "rouse.consumer.faults"

-- Answers of the broker are waited for this long before the next try.
local TIMEOUT <const> = 10

---@class rouse.consumer.Session
local methods = {}

---What is finished and not committed: {topic=, partition=, offset=}.
---@return table[]
function methods:dirty()
  local list = {}
  for _, part in ipairs(self:each()) do
    local position = part:position()
    if position and position ~= part.committed then
      list[#list + 1] = { topic = part.topic, partition = part.partition, offset = position,
        part = part }
    end
  end
  return list
end

---Commits what is finished. Handlers go on meanwhile; two commits never overlap.
---@param timeout number|nil
---@return true|nil
---@return string|nil message
---@return string|nil code
function methods:commit(timeout)
  timeout = timeout or TIMEOUT
  while self.committing do
    self.committing:wait(timeout)
  end
  if self.given_up or self.joining then return nil, "partition given up", "TAKEN" end
  local list = self:dirty()
  if #list == 0 then return true end
  local done = self.task.event()
  self.committing = done
  local ok, answer, message, code, part = xpcall(self.commit_list, debug.traceback, self, list, timeout)
  self.committing = nil
  done:set()
  if not ok then error(answer, 0) end
  if answer then
    self:alive()
    return true
  end
  local kind = faults.kind(code)
  if kind == "group" or code == "LOST" then
    self:say("commit " .. code, "commit refused, the group is rebalancing", {}, "info")
  elseif kind == "credentials" or kind == "authorization" then
    self:refused(code, message)
  elseif code == "TAKEN" or code == "REFUSED" then
    self:lose_index(part, message, code)
  else
    self:say("commit " .. tostring(code), "commit failed, trying again", { reason = message })
  end
  return nil, message, code
end

function methods:commit_list(list, timeout)
  if self.committer then
    for _, item in ipairs(list) do
      local ok, message, code = self.committer(item, timeout)
      if not ok then return nil, message, code, item.part end
      item.part.committed = item.offset
    end
    return true
  end
  local offsets = {}
  for i, item in ipairs(list) do
    offsets[i] = { topic = item.topic, partition = item.partition, offset = item.offset }
  end
  local answer, message, code = self.consumer:commit(offsets, { timeout = timeout })
  if not answer then return nil, message, code end
  local failed
  for i, item in ipairs(list) do
    local result = answer[i]
    -- A deleted topic takes its commits with it.
    if result and result.error and faults.kind(result.error) ~= "topic" then
      failed = result.error
    else
      item.part.committed = item.offset
    end
  end
  if failed then return nil, failed, failed end
  return true
end

---Commits every interval until cancelled.
function methods:commit_loop()
  while true do
    self.task.sleep(self.settings.commit_interval)
    if #self:dirty() > 0 then self:commit() end
  end
end

return methods
