--- Faults at the start. Code Engine starts a daemon that fails again at once and for ever, so a daemon does not: it waits ten
--- minutes, saying every minute what is wrong, and ends then.
local log = require "rouse.log"
local task = require "rouse.task"

local hold = {}

local MINUTES <const>, MINUTE <const> = 10, 60
local SIGNALLED <const> = { INT = 130, TERM = 143 }

--- Reports a fault; returns the exit code when it is time to end.
---@param how { job_mode: string?, code: integer, message: string|string[], fields: table?, signals: table?, log: table? }
---signals: what ends the waiting early; without it the task has to be cancelled
---@return integer exit code
function hold.fault(how)
  local messages = type(how.message) == "table" and how.message or { how.message }
  for _ = 1, MINUTES do
    for _, message in ipairs(messages) do
      local out = how.log or log
      out.error(message, how.fields)
    end
    if how.job_mode ~= "daemon" then
      break
    elseif how.signals then
      local code = SIGNALLED[how.signals:wait(MINUTE)]
      if code then
        return code
      end
    else
      task.sleep(MINUTE)
    end
  end
  return how.code
end

return hold
