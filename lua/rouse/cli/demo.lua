--- rouse demo: the whole system on one machine. A mock Kafka and a mock Code Engine in this process, the observer and the
--- consumers as real processes, bursts of records, and a summary that says whether anything was left behind.
local demo = require "rouse.demo"
local log = require "rouse.log"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local command = {}

local INTERRUPTED, TERMINATED, FAILED = 130, 143, 1

function command.setup(parser)
  parser:option("--seconds", "Seconds over which the bursts are spread.", "24"):convert(tonumber):argname("N")
  parser:flag("--verbose", "Show the log of the observer and the consumers too.")
end

function command.run(args, ctx)
  local signals <close> = sys.signals { "TERM", "INT" }
  local code
  local worker = task.spawn(demo.run, {
    environ = ctx.environ, seconds = args.seconds or 24, verbose = args.verbose, colour = sys.isatty(1),
  })
  local watcher = task.spawn(function()
    local name = signals:wait()
    code = name == "INT" and INTERRUPTED or TERMINATED
    worker:cancel()
  end)
  local left, message, failure = worker:join()
  watcher:cancel()
  if code then
    return code
  elseif not left then
    log.error(message, { code = failure })
    return FAILED
  end
  return left == 0 and 0 or FAILED
end

return command
