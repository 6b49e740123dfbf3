--- The packaged observer's rule, wherever this library lives: in the executable, beside the sources, or installed.
local packaged = {}

local FILE = "scripts/observer.lua"
local rule

local function source()
  local rouse = package.loaded.rouse
  if type(rouse) == "table" and rouse.embedded then
    return (rouse.embedded(FILE))
  end
  local here = debug.getinfo(1, "S").source:match("^@(.*)lua/rouse/sim/packaged%.lua$") or ""
  local file = assert(io.open(here .. FILE))
  local text = file:read("a")
  file:close()
  return text
end

---@return fun(job: table, ctx: table): table
function packaged.decide()
  rule = rule or assert(load(source(), "@" .. FILE, "t"))().decide
  return rule
end

return packaged
