-- Addresses as people write them: PORT, HOST:PORT, [::1]:PORT. Pure.

local options = require "rouse.options"

local address = {}

---Where an observer answers `rouse explain` unless ROUSE_ADMIN says otherwise.
address.ADMIN = { host = "127.0.0.1", port = 7873 }

local EXPECTED <const> = "PORT or HOST:PORT"

---Reads an address; a port alone is one on this machine.
---@param text string
---@return {host: string, port: integer}?
---@return string? message what it is and what was expected
function address.parse(text)
  local host, port = text:match("^%[([%x:.]+)%]:(%d+)$")
  if not host then
    host, port = text:match("^([%w._-]+):(%d+)$")
  end
  if not host then
    host, port = address.ADMIN.host, text:match("^:?(%d+)$")
  end
  port = port and #port <= 5 and math.tointeger(port)
  if not port or port > 65535 then
    return nil, ("is %s, expected %s"):format(options.show(text), EXPECTED)
  end
  return { host = host, port = port }
end

---Reads an address on this machine only; "off" is none.
---@param text string
---@return {host: string, port: integer}|false|nil
---@return string? message
function address.loopback(text)
  if text == "off" then
    return false
  end
  local found, message = address.parse(text)
  if not found then
    return nil, message .. " on this machine, or off"
  elseif found.host == "localhost" then
    found.host = "127.0.0.1"
  elseif found.host ~= "::1" and not found.host:find("^127%.%d+%.%d+%.%d+$") then
    return nil, ("is %s, expected an address of this machine (127.0.0.1, ::1), or off"):format(
      options.show(text))
  end
  return found
end

---An address as part of a URL.
---@param where {host: string, port: integer}
---@return string
function address.show(where)
  return (where.host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(where.host, where.port)
end

return address
