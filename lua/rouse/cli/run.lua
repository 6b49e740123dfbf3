--- rouse run SCRIPT [ARGUMENT...]: an observer, a consumer or a free-form agent, by what the script returns.
local hold = require "rouse.hold"
local log = require "rouse.log"
local script = require "rouse.script"
local sources = require "rouse.observer.sources"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local run = {}

local CONFIGURATION, FAILED = 78, 1

function run.setup(command)
  command:argument("script", "The script (a Lua file that returns a table or a function).")
  command:argument("arguments", "The script's own arguments (ctx.args of a free-form agent)."):args("*")
  command:usage("Usage: rouse run [-h] SCRIPT [ARGUMENT ...]")
end

--- A free-form agent is the main task; it ends with 0, or with 1 when it fails.
local function agent(loaded, args)
  local ok, value, message = task.guard(loaded.fn, { args = args, now = task.now() })
  if not ok then
    log.error(value, { code = message })
    return FAILED
  elseif value == nil and message ~= nil then
    log.error(tostring(message))
    return FAILED
  end
  return 0
end

--- A consumer has nothing to reload: the next run reads what is there then.
local function without_hup(signals)
  return {
    wait = function(_, timeout)
      local deadline = timeout and task.monotonic() + timeout
      while true do
        local name, message, code = signals:wait(deadline and math.max(0, deadline - task.monotonic()))
        if name ~= "HUP" then
          return name, message, code
        end
        log.info("SIGHUP has no effect on a consumer")
      end
    end,
  }
end

--- Loads a script and runs it; one that does not load is a configuration error with its file and line.
---@param load fun(read: fun(path: string): string?, string?): rouse.Script?, string? loads it, reading files through `read`
---@param ctx { environ: table<string, string> }
---@param args string[]?
---@return integer exit code
function run.with(load, ctx, args)
  local files = sources.new()
  local loaded, message = load(files.reader)
  if not loaded then
    local signals <close> = sys.signals { "TERM", "INT" }
    return hold.fault { job_mode = ctx.environ.JOB_MODE, code = CONFIGURATION, message = message, signals = signals }
  elseif loaded.kind == "agent" then
    return agent(loaded, args or {})
  end
  local signals <close> = sys.signals { "TERM", "INT", "HUP" }
  local runtime = require("rouse." .. loaded.kind)
  local collector
  if loaded.kind == "consumer" then
    collector = require("rouse.consumer.collector").new()
  else
    -- An observer rests, and what a burst once took it keeps: collect early (the default waits until it has doubled).
    collectgarbage("incremental", 130)
    sys.share_memory()
  end
  return runtime.run {
    script = loaded.table, env = ctx.environ, path = loaded.path, load = load, script_files = files,
    collector = collector,
    signals = loaded.kind == "consumer" and without_hup(signals) or signals,
  }
end

function run.run(args, ctx)
  return run.with(function(read) return script.load(args.script, { read = read }) end, ctx, args.arguments)
end

return run
