--- rouse explain: asks a running observer what it knows, what it decided, why, and what it waits for.
local address = require "rouse.config.address"
local http = require "rouse.http"
local log = require "rouse.log"
local report = require "rouse.observer.report"
local sys = require "rouse.core.sys"

local explain = {}

local PROBLEMS <const>, UNAVAILABLE <const>, CONFIGURATION <const> = 1, 69, 78
local TIMEOUT <const> = 5

local function convert(text)
  local where, message = address.parse(text)
  if not where then
    return nil, "--address " .. message
  end
  return where
end

function explain.setup(command)
  command:option("--job", "Only this job."):argname("JOB")
  command:option("--address", ("Where the observer answers. Default: ROUSE_ADMIN, else %s."):format(
    address.show(address.ADMIN))):argname("HOST:PORT"):convert(convert)
  command:flag("--all", "A line for each partition, also where many are quiet.")
  command:flag("--json", "The whole answer, as JSON.")
end

-- The address to ask, or nil and the exit code.
local function find(args, environ)
  local text = environ.ROUSE_ADMIN and environ.ROUSE_ADMIN:match("^%s*(.-)%s*$")
  if args.address then
    return args.address
  elseif not text or text == "" then
    return address.ADMIN
  end
  local where, message = address.loopback(text)
  if where == nil then
    log.error("ROUSE_ADMIN " .. message)
    return nil, CONFIGURATION
  elseif not where then
    log.error("ROUSE_ADMIN is off: the observer answers nowhere")
    return nil, UNAVAILABLE
  end
  return where
end

function explain.run(args, ctx)
  local where, failure = find(args, ctx.environ)
  if not where then
    return failure
  end
  local client <close> = http.client {}
  local document, answer, code = client:json {
    url = ("http://%s/status"):format(address.show(where)), query = { job = args.job }, timeout = TIMEOUT,
  }
  if not document or type(document) ~= "table" or not document.routes then
    log.error(("no observer answers at %s"):format(address.show(where)),
      { reason = document and "the answer is somebody else's" or answer, code = code })
    return UNAVAILABLE
  end
  if args.job and #document.routes == 0 then
    log.error(("no route names the job %s"):format(args.job))
    return PROBLEMS
  end
  if args.json then
    sys.write(1, answer.body .. "\n")
  else
    sys.write(1, table.concat(report.lines(document, { all = args.all }), "\n") .. "\n")
  end
  return 0
end

return explain
