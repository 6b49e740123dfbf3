-- What C exports is typed in lua/rouse/meta.lua, completely and nothing else: editors show what is there.
require "spec.helper"

local file <close> = assert(io.open("lua/rouse/meta.lua"))
local text = file:read "a"

-- Local names in meta.lua: of modules, and of handles by their metatable's name.
local MODULES = { rouse = "rouse", task = "rouse.core.task", sys = "rouse.core.sys", kafka = "rouse.core.kafka",
  http = "rouse.core.http", json = "rouse.json", yaml = "rouse.yaml", log = "rouse.log", process = "rouse.process",
  patterns = "rouse.core.pattern" }
local HANDLES = { task_handle = "rouse.task", cursor = "rouse.cursor", signals = "rouse.signals",
  consumer = "rouse.consumer",
  producer = "rouse.producer", admin = "rouse.admin", mock = "rouse.kafka_mock", http_client = "rouse.http.client",
  http_server = "rouse.http.server", http_request = "rouse.http.request", child = "rouse.process" }

for _, name in pairs(MODULES) do
  require(name)
end
local registry = debug.getregistry()

-- The functions of each local name, as C has them: "sys.environ", "consumer:poll".
local exported = {}
for name, module in pairs(MODULES) do
  for member, value in pairs(require(module)) do
    if type(value) == "function" then
      exported[name .. "." .. member] = true
    end
  end
end
for name, handle in pairs(HANDLES) do
  for member in pairs(registry[handle].__index) do
    if not member:find "^__" then
      exported[name .. ":" .. member] = true
    end
  end
end

local declared = {}
for name in text:gmatch "\nfunction ([%w_]+[.:][%w_]+)%(" do
  declared[name] = true
end

local function missing(from, there)
  local names = {}
  for name in pairs(from) do
    if not there[name] then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

describe("meta.lua", function()
  it("declares every function and method in C", function()
    assert.same({}, missing(exported, declared))
  end)

  it("declares nothing else", function()
    assert.same({}, missing(declared, exported))
  end)

  it("knows every handle that has methods", function()
    local known = {}
    for _, handle in pairs(HANDLES) do
      known[handle] = true
    end
    for name, metatable in pairs(registry) do
      local methods = type(name) == "string" and name:find "^rouse%." and type(metatable) == "table" and metatable.__index
      assert.is_true(type(methods) ~= "table" or next(methods) == nil or known[name] or false, name)
    end
  end)

  it("has every name of the luaL_Reg tables", function()
    local count = 0
    for path in io.popen "ls src/lua_*.c":lines() do
      local source <close> = assert(io.open(path))
      for list in source:read "a":gmatch "luaL_Reg [%w_]+%[%] = (%b{})" do
        for name in list:gmatch '{"([%w_.]+)",' do
          count = count + 1
          assert.is_truthy(text:find("[.:]" .. name .. "%("), path .. ": " .. name)
        end
      end
    end
    assert.is_true(count > 60)
  end)

  it("is valid Lua", function()
    assert(load(text))
  end)
end)
