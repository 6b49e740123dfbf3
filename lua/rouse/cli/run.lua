--- rouse run SCRIPT [ARGUMENT...]: an observer, a consumer or a free-form agent, by what the script returns.
local hold = require "rouse.hold"
local log = require "rouse.log"
local script = require "rouse.script"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local run = { name = "run", summary = "Run a script: an observer, a consumer or a free-form agent." }

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

--- Runs a loaded script with the signals that end it.
---@param loaded table from rouse.script.load
---@param ctx { environ: table<string, string> }
---@param args string[]?
---@return integer exit code
function run.loaded(loaded, ctx, args)
  if loaded.kind == "agent" then
    return agent(loaded, args or {})
  end
  local signals <close> = sys.signals { "TERM", "INT" }
  local runtime = require("rouse." .. loaded.kind)
  return runtime.run { script = loaded.table, env = ctx.environ, signals = signals, path = loaded.path }
end

--- Loads and runs; a script that does not load is a configuration error with its file and line.
function run.file(path, ctx, args, options)
  local loaded, message = script.load(path, options)
  if not loaded then
    local signals <close> = sys.signals { "TERM", "INT" }
    return hold.fault { job_mode = ctx.environ.JOB_MODE, code = CONFIGURATION, message = message, signals = signals }
  end
  return run.loaded(loaded, ctx, args)
end

function run.run(args, ctx)
  return run.file(args.script, ctx, args.arguments)
end

return run
