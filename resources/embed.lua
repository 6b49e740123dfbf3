-- lua5.4 resources/embed.lua FILE... > build/embed.c: the files as C arrays. A Lua module's name comes from its path below
-- lua/ ("rouse.wake"); argparse comes from where it is installed; anything else is named by its path ("scripts/observer.lua").
local names = {}

local function embed(index, path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  local module = path:match("^lua/(.*)%.lua$") or path:match("/(argparse)%.lua$")
  local name = module and module:gsub("/", ".") or path
  local bytes = {}
  for i = 1, #text do
    bytes[i] = text:byte(i) .. (i % 32 == 0 and ",\n" or ",")
  end
  io.write(("static const unsigned char text_%d[] = {%s0};\n"):format(index, table.concat(bytes)))
  names[#names + 1] = ('    {"%s", "%s", text_%d, sizeof(text_%d) - 1},\n')
    :format(name, module == "argparse" and "argparse.lua" or path, index, index)
end

io.write('#include "rouse_internal.h"\n\n')
for index, path in ipairs(arg) do
  embed(index, path)
end
io.write("\nconst struct embedded rouse_embedded[] = {\n", table.concat(names), "    {NULL, NULL, NULL, 0},\n};\n")
