local jobs = require "rouse.mock.jobs"
local log = require "rouse.log"
local process = require "rouse.process"
local session = require "rouse.mock.session"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local mock = {}

local USAGE <const>, UNAVAILABLE <const>, CONFIGURATION <const>, NOT_FOUND <const> = 2, 69, 78, 127
local GRACE <const> = 10

local function number(least, most)
  return function(text)
    local value = math.tointeger(text)
    if value and value >= least and value <= most then return value end
    return nil, ("'%s' is not a number from %d to %d"):format(text, least, most)
  end
end

function mock.setup(command)
  command:option("--topic", "A topic, may be repeated. Default: payments:4, shipping:3.")
    :argname("NAME:PARTITIONS"):count("*")
  command:option("--http-port", "Port of Code Engine and IAM. Default: a free one."):argname("N")
    :convert(number(0, 65535))
  command:option("--jobs", "YAML file of jobs, NAME: {command: [...], env: {...}}."):argname("FILE")
  command:option("--page", "Most items on a page of Code Engine's lists."):argname("N")
    :convert(number(1, 100))
  command:flag("--quiet", "Job runs print nothing.")
  command:argument("COMMAND", "After --: run this in the mocks' environment; its exit code is ours.")
    :args("*"):target("program")
end

--- Reads NAME:PARTITIONS.
---@param texts string[]
---@return { name: string, partitions: integer }[]? topics nil without any
---@return string? mistake
function mock.topics(texts)
  local topics, seen = {}, {}
  for position, text in ipairs(texts) do
    local name, count = text:match("^([%w._-]+):(%d+)$")
    local partitions = count and math.tointeger(count)
    if not name or not partitions or partitions < 1 or partitions > 1000 then
      return nil, ("--topic %s: expected NAME:PARTITIONS, with 1 to 1000 partitions"):format(text)
    end
    if seen[name] then return nil, ("--topic %s: named twice"):format(name) end
    seen[name], topics[position] = true, { name = name, partitions = partitions }
  end
  return #topics > 0 and topics or nil
end

--- Quotes a value for a POSIX shell.
---@param value string
---@return string
function mock.quote(value)
  if value:match("^[%w_@%%+=:,./-]+$") then return value end
  return "'" .. value:gsub("'", "'\\''") .. "'"
end

local function read_jobs(file)
  if not file then return {} end
  local text, message = sys.read_file(file)
  if not text then return nil, { message } end
  return jobs.parse(text, file)
end

-- Serves until a signal comes.
local function serve(running, signals)
  for _, export in ipairs(running:exports()) do
    io.stdout:write("export ", export[1], "=", mock.quote(export[2]), "\n")
  end
  io.stdout:write("# ready\n")
  io.stdout:flush()
  signals:wait()
  return 0
end

-- Runs the command; a signal to us ends it first, and its exit code is ours all the same.
local function run_program(running, signals, program, environ)
  local child, message = process.spawn {
    command = program, env = running:environ(environ), stdin = "inherit", stdout = "inherit",
    stderr = "inherit",
  }
  if not child then
    log.error("rouse mock: cannot run the command: " .. message)
    return NOT_FOUND
  end
  local _ <close> = setmetatable({}, { __close = function() child:close() end })
  task.spawn(function()
    signals:wait()
    child:kill("TERM")
    signals:wait(GRACE) -- the second signal, or the end of patience
    child:kill("KILL")
  end)
  return child:wait().code
end

function mock.run(args, ctx)
  local topics, mistake = mock.topics(args.topic)
  if mistake then
    log.error("rouse mock: " .. mistake)
    return USAGE
  end
  local defined, mistakes = read_jobs(args.jobs)
  if not defined then
    for _, text in ipairs(mistakes --[[@as string[] ]]) do log.error(text) end
    return CONFIGURATION
  end
  -- From here on a signal must not end us before our children.
  local signals = sys.signals { "TERM", "INT", "HUP" }
  local running, message = session.start {
    environ = ctx.environ, topics = topics, jobs = defined, http_port = args.http_port,
    quiet = args.quiet, page = args.page, grace = GRACE,
  }
  if not running then
    log.error("rouse mock: cannot start: " .. message)
    return UNAVAILABLE
  end
  local code
  if #args.program > 0 then
    code = run_program(running, signals, args.program, ctx.environ)
  else
    code = serve(running, signals)
  end
  running:close()
  signals:close()
  return code
end

return mock
