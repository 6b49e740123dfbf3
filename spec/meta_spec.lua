-- What C exports is typed in lua/rouse/meta.lua, completely: editors show what is there.
require "spec.helper"
local process = require "rouse.process"

local file <close> = assert(io.open("lua/rouse/meta.lua"))
local text = file:read "a"

local function check(name, members, separator)
  for member, value in pairs(members) do
    if type(value) == "function" and not member:match "^__" then
      local declared = ("function %s%s%s("):format(name, separator, member)
      assert.is_truthy(text:find(declared, 1, true), declared .. ") is missing")
    end
  end
end

describe("meta.lua", function()
  it("declares every function of the modules in C", function()
    for _, name in ipairs { "json", "yaml", "log", "process" } do
      check(name, require("rouse." .. name), ".")
    end
  end)

  it("declares every method of their handles", function()
    local child <close> = assert(process.spawn { command = { "true" } })
    check("child", debug.getmetatable(child).__index, ":")
  end)

  it("is valid Lua", function()
    assert(load(text))
  end)
end)
