-- Loaded first by every spec: finds the library under test and refuses the wrong Lua.
assert(_VERSION == "Lua 5.4", "specs run on Lua 5.4: lua5.4 /usr/bin/busted")
local build = os.getenv("ROUSE_BUILD") or "build"
package.path = "./lua/?.lua;./?.lua;" .. package.path
package.cpath = "./" .. build .. "/?.so;" .. build .. "/?.so;" .. package.cpath
return require "rouse"
