--- The command line. Each command is a module rouse.cli.NAME that returns { setup(command), run(args, ctx) }, loaded when it is
--- named; run executes inside a task and returns the exit code. Results go to stdout, everything else to the log on stderr.
local environment = require "rouse.config.environment"
local log = require "rouse.log"
local rouse = require "rouse"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local variables = require "rouse.config.variables"

local cli = {}

local COMMANDS <const> = {
  { "observer", "Observe the topics of kafkadata and wake the jobs that consume them (the packaged script)." },
  { "consumer", "Consume KAFKA_TOPIC in CONSUMER_GROUP until it is idle (the packaged script)." },
  { "run", "Run a script: an observer, a consumer or a free-form agent." },
  { "check", "Check a script, kafkadata and the environment." },
  { "explain", "Ask a running observer what it knows, decided and waits for, and why." },
  { "dlq", "List, show and replay dead letters." },
  { "mock", "Start a Kafka and a Code Engine with IAM for any client, or for a command." },
  { "demo", "Show the whole system at work on an embedded Kafka and Code Engine." },
}
local USAGE <const>, CONFIGURATION <const> = 2, 78

local function version()
  return ("rouse %s (%s, librdkafka %s)"):format(rouse.version, _VERSION, require("rouse.kafka").version())
end

--- argparse ends the program with 1 on a usage error; ours is 2, and nothing but the main function ends the program.
local function fail(parser, message)
  io.stderr:write(parser:get_usage(), "\n\nrouse: ", message, "\n")
  error({ exit = USAGE }, 0)
end

--- What an observer was not asked for it would hold for months, and a consumer read at each of its starts: only commands among
--- the words are loaded.
local function build(argv)
  local parser = require("argparse")("rouse")
    :description("Watches Kafka topics and wakes the jobs that consume them; every decision is a Lua script.")
    :epilog("Without configuration: rouse demo. Documentation: rouse(1), SCRIPTING.md.")
  parser:command_target("command")
  parser:require_command(false)
  parser:flag("--version", "Print the version and exit."):action(function()
    print(version())
    error({ exit = 0 }, 0)
  end)
  local named = {}
  for _, word in ipairs(argv) do
    named[word] = true
  end
  for _, command in ipairs(COMMANDS) do
    local name, summary = table.unpack(command)
    local sub = parser:command(name, summary)
    sub.error = fail -- before the setup: what that nests takes it over
    if named[name] then
      require("rouse.cli." .. name).setup(sub)
    end
  end
  parser.error = fail
  return parser
end

--- What follows the script of `run` is the script's, also where it looks like an option of ours.
local function split(argv)
  local script = argv[1] == "run" and argv[2] or "-"
  if script:sub(1, 1) == "-" or argv[3] == "--" then
    return argv
  end
  return table.move(argv, 3, #argv, 4, { "run", script, "--" })
end

--- The log as the environment wants it; returns whether it does so in words that are known.
local function configure_log(environ)
  local reader = variables.new(environ)
  log.configure {
    level = reader:choice("ROUSE_LOG_LEVEL", { "debug", "info", "warn", "error" }),
    format = reader:choice("ROUSE_LOG_FORMAT", { "auto", "json", "text" }),
  }
  for _, line in ipairs(environment.lines(reader.problems)) do
    log.error(line)
  end
  return #reader.problems == 0
end

--- The arguments of a command line, or nil and the exit code where it ends there.
local function parse(argv)
  local parser = build(argv)
  local ok, args = pcall(parser.parse, parser, split(argv))
  if not ok then
    if type(args) == "table" and args.exit then
      return nil, args.exit
    end
    error(args, 0)
  end
  if not args.command then
    io.stderr:write(parser:get_help(), "\n")
    return nil, USAGE
  end
  return args
end

--- Runs a command line; returns the exit code.
---@param argv string[] arguments, the program's name at 0
---@return integer
function cli.main(argv)
  local args, code = parse(argv)
  package.loaded.argparse = nil -- it has done its work
  if not args then
    return code
  end
  local environ = sys.environ()
  if not configure_log(environ) then
    return CONFIGURATION
  end
  return task.run(require("rouse.cli." .. args.command).run, args, { environ = environ })
end

return cli
