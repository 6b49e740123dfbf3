-- A port for a server that is told its number: one that nobody listens on, below the range that the kernel gives to clients
-- and to servers that take any, so that none of those has it when the server comes.
local assert = require "luassert"
local http = require "rouse.http"
local sys = require "rouse.core.sys"

return function()
  for _ = 1, 100 do
    local server <close> = http.server { port = 10000 + math.floor(sys.random() * 10000) }
    if server then return server:port() end
  end
  assert(false, "no port is free")
end
