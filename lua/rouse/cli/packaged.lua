--- The packaged scripts (observer, consumer): /etc/rouse/NAME.lua wins where it exists, so that a rule is edited and deployed
--- without building anything.
local log = require "rouse.log"
local rouse = require "rouse"
local run = require "rouse.cli.run"
local script = require "rouse.script"
local sys = require "rouse.core.sys"

local packaged = {}

--- A command that runs the packaged script of this name.
---@param name string
function packaged.command(name)
  local command = {}

  function command.setup(parser)
    parser:flag("--print", "Write the packaged script to stdout and exit: the start of your own.")
  end

  function command.run(args, ctx)
    local source, path = rouse.embedded("scripts/" .. name .. ".lua")
    if args.print then
      sys.write(1, source)
      return 0
    end
    local edited = (ctx.environ.ROUSE_ETC or "/etc/rouse") .. "/" .. name .. ".lua"
    local found = sys.exists(edited)
    log.info(found and ("running %s"):format(edited) or ("running the packaged %s"):format(path))
    return run.with(function(read)
      found = found or sys.exists(edited)
      if found then -- once it was there it has to be: that it is gone is no reason to run something else
        return script.load(edited, { read = read })
      end
      read(edited) -- noted: it may appear
      return script.load(nil, { source = source, name = path })
    end, ctx)
  end

  return command
end

return packaged
