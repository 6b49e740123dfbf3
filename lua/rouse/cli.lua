--- The command line. Each command is a module rouse.cli.NAME that returns { name, summary, setup(command), run(args, ctx) };
--- run executes inside a task and returns the exit code. Results go to stdout, everything else to the log on stderr.
local argparse = require "argparse"
local environment = require "rouse.config.environment"
local log = require "rouse.log"
local rouse = require "rouse"
local sys = require "rouse.core.sys"
local task = require "rouse.task"
local variables = require "rouse.config.variables"

local cli = {}

local COMMANDS = { "observer", "consumer", "run", "check", "explain", "dlq", "mock", "demo" }
local USAGE <const>, CONFIGURATION <const> = 2, 78

local function version()
  return ("rouse %s (%s, librdkafka %s)"):format(rouse.version, _VERSION, require("rouse.kafka").version())
end

--- argparse ends the program with 1 on a usage error; ours is 2, and nothing but the main function ends the program.
local function fail(parser, message)
  io.stderr:write(parser:get_usage(), "\n\nrouse: ", message, "\n")
  error({ exit = USAGE }, 0)
end

local function build()
  local parser = argparse("rouse")
    :description("Watches Kafka topics and wakes the jobs that consume them; every decision is a Lua script.")
    :epilog("Without configuration: rouse demo. Documentation: rouse(1), SCRIPTING.md.")
  parser:command_target("command")
  parser:require_command(false)
  parser:flag("--version", "Print the version and exit."):action(function()
    print(version())
    error({ exit = 0 }, 0)
  end)
  local commands = {}
  for _, name in ipairs(COMMANDS) do
    local command = require("rouse.cli." .. name)
    commands[name] = command
    local sub = parser:command(name, command.summary)
    sub.error = fail -- before the setup: what that nests takes it over
    command.setup(sub)
  end
  parser.error = fail
  return parser, commands
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

--- Runs a command line; returns the exit code.
---@param argv string[] arguments, the program's name at 0
---@return integer
function cli.main(argv)
  local parser, commands = build()
  local ok, args = pcall(parser.parse, parser, split(argv))
  if not ok then
    if type(args) == "table" and args.exit then
      return args.exit
    end
    error(args, 0)
  end
  if not args.command then
    io.stderr:write(parser:get_help(), "\n")
    return USAGE
  end
  local environ = sys.environ()
  if not configure_log(environ) then
    return CONFIGURATION
  end
  return task.run(commands[args.command].run, args, { environ = environ })
end

return cli
