--- What a script decides, as the engine asks for it: its rule under its limits, and how offsets are renewed.
local rouse = require "rouse"
local renewal = require "rouse.wake.renewal"
local script_file = require "rouse.script"
local task = require "rouse.task"
local verdicts = require "rouse.verdict"

local rules = {}

--- The packaged observer's decision, for scripts without one.
local function packaged_rule()
  local source, name = rouse.embedded("scripts/observer.lua")
  return assert(script_file.load(nil, { source = source, name = name })).table.decide
end

--- The script's rule; a failure is a message, never an error here.
---@param script table
---@return fun(job: table, ctx: table): table|nil, string?
function rules.decide(script)
  local rule = script.decide or packaged_rule()
  return function(job, ctx)
    local ok, answer, code = task.guard(function()
      return table.pack(verdicts.check(rule(job, ctx))) -- its answer is code of the user's too: metamethods
    end)
    if not ok then
      return nil, ("%s (%s)"):format(answer, code)
    end
    return answer[1], answer[2]
  end
end

--- How often offsets of quiet groups are renewed: the script's choice.
---@param script table
---@return { first: number, every: number }|nil
function rules.renewal(script)
  return renewal.choice(script.observe.renew_offsets)
end

return rules
