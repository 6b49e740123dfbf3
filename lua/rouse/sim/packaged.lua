--- Files of Rouse itself, wherever this library lives: in the executable, beside the sources, or installed.
local packaged = {}

local rule, doorbell

local function source(file, module)
  local here = debug.getinfo(1, "S").source:match("^@(.*)lua/rouse/sim/packaged%.lua$")
  local handle = here and io.open(here .. file)
  if not handle then
    return (assert(require("rouse").embedded(module or file), file .. " is not embedded"))
  end
  local text = handle:read("a")
  handle:close()
  return text
end

--- The packaged observer's rule.
---@return fun(job: table, ctx: table): table
function packaged.decide()
  local file = "scripts/observer.lua"
  rule = rule or assert(load(source(file), "@" .. file, "t"))().decide
  return rule
end

local clock = { now = 0 }

-- What the doorbell requires, in virtual time and without Kafka.
local STUBS = {
  ["rouse.kafka"] = {}, ["rouse.config.properties"] = {},
  ["rouse.log"] = setmetatable({}, { __index = function() return function() end end }),
  ["rouse.task"] = {
    monotonic = function() return clock.now end,
    event = function() return { set = function() end, clear = function() end } end,
  },
}

--- The doorbell of rouse.observer on a clock of ours.
---@return table module
function packaged.doorbell()
  if not doorbell then
    local file = "lua/rouse/observer/doorbell.lua"
    local env = setmetatable({ require = function(name) return STUBS[name] or require(name) end }, { __index = _G })
    doorbell = assert(load(source(file, "rouse.observer.doorbell"), "@" .. file, "t", env))()
  end
  return doorbell
end

--- Sets the clock that the doorbell reads.
---@param now number
function packaged.set_clock(now)
  clock.now = now
end

return packaged
