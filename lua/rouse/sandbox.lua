-- The environment scripts run in: the language without ways out. No io, no starting or ending of
-- processes, no bytecode, no debug library, no finalizers (they would run outside every limit).
-- Globals cannot be written, and reading an unknown one raises with the nearest known name.
-- `require` finds Rouse's modules, those an embedding program added, and files beside the script,
-- which run in the same environment.

local options = require "rouse.options"

local sandbox = {}

local BASE <const> = { "assert", "error", "ipairs", "next", "pairs", "pcall", "print", "rawequal",
  "rawget", "rawlen", "select", "tonumber", "tostring", "type", "xpcall", "_VERSION" }

local OS <const> = { "clock", "date", "difftime", "getenv", "time" }

local REFUSED <const> = {
  io = "files are out of reach; rouse.http talks to services",
  debug = "it could lift the limits",
  dofile = "use require for files beside the script",
  loadfile = "use require for files beside the script",
  package = "require finds files beside the script",
  execute = "scripts start no processes",
  exit = "return from the script instead",
  remove = "files are out of reach",
  rename = "files are out of reach",
  tmpname = "files are out of reach",
  setlocale = "it would change the whole program",
  dump = "bytecode is not loaded",
}

---Rouse's modules that scripts may require.
sandbox.MODULES = { "rouse.arrayspec", "rouse.backoff", "rouse.config.kafkadata",
  "rouse.config.routes", "rouse.http", "rouse.json", "rouse.kafka", "rouse.log", "rouse.options",
  "rouse.task", "rouse.verdict", "rouse.yaml" }

local function refuse(name, short, level)
  error(("%s is not available in scripts: %s"):format(name, REFUSED[short]), level + 1)
end

-- A copy of a library, so that a script that changes it changes it for itself only. Names in
-- `refused` raise.
local function library(name, source, names, refused)
  local copy = {}
  for key, value in pairs(source) do
    copy[key] = value
  end
  if names then
    copy = {}
    for _, key in ipairs(names) do
      copy[key] = source[key]
    end
  end
  for _, key in ipairs(refused) do
    copy[key] = nil
  end
  return setmetatable(copy, { __metatable = false, __index = function(_, key)
    for _, short in ipairs(refused) do
      if short == key then
        refuse(name .. "." .. key, key, 2)
      end
    end
  end })
end

local function coroutines()
  local ok, task = pcall(require, "rouse.task")
  if ok and type(task) == "table" and task.coroutine then
    return task.coroutine
  end
  return coroutine
end

local function names_of(globals)
  local names = {}
  for name in pairs(globals) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function safe_setmetatable(value, metatable)
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    error("setmetatable: __gc is not available in scripts; use a <close> variable", 2)
  end
  return setmetatable(value, metatable)
end

local function safe_collectgarbage(what, ...)
  what = what or "collect"
  if what ~= "collect" and what ~= "count" and what ~= "step" then
    error(("collectgarbage: '%s' is not available in scripts"):format(tostring(what)), 2)
  end
  return collectgarbage(what, ...)
end

-- getmetatable of tables only: metatables of strings and handles are shared with everybody.
local function safe_getmetatable(value)
  if type(value) == "table" then
    return getmetatable(value)
  end
  return nil
end

local function make_load(env)
  return function(chunk, name, _, ...)
    local chosen = env
    if select("#", ...) > 0 then
      chosen = ...
    end
    if name == nil then
      name = type(chunk) == "string" and chunk or "=(load)"
    end
    return load(chunk, name, "t", chosen)
  end
end

---Makes Lua source loadable as a chunk: a first line that starts with # is for the shell.
---@param source string
---@param name string the file's name for messages
---@param env table
---@return function?
---@return string? message with file and line
function sandbox.compile(source, name, env)
  source = source:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", "")
  return load(source, "@" .. name, "t", env)
end

local function contains(list, wanted)
  for _, name in ipairs(list) do
    if name == wanted then
      return true
    end
  end
  return false
end

local function added_modules()
  local rouse = package.loaded.rouse
  return type(rouse) == "table" and rouse.added or {}
end

-- The module's file beside the script, or nil. A name is dotted words: it cannot climb out of the
-- directory.
local function find_beside(self, name)
  if not self.directory or not name:find("^[%w_-]+[%w_.-]*$") or name:find("..", 1, true) then
    return nil
  end
  local path = name:gsub("%.", "/")
  for _, tail in ipairs { ".lua", "/init.lua" } do
    local file = self.directory .. path .. tail
    local source = self.read(file)
    if source then
      return source, file
    end
  end
  return nil
end

-- Why there is no such module for scripts.
local function not_found(self, name)
  local own = name:match("^rouse%.(.*)")
  local known = {}
  for other in pairs(added_modules()) do
    known[#known + 1] = other
  end
  for _, other in ipairs(sandbox.MODULES) do
    -- Compared without what all of them share, or everything would look alike.
    known[#known + 1] = own and other:match("^rouse%.(.*)") or other
  end
  local near = options.nearest(own or name, known)
  local hint = near and (", did you mean '%s%s'?"):format(own and "rouse." or "", near) or ""
  if own then
    return ("scripts have no module '%s'%s"):format(name, hint)
  end
  local beside = self.directory and (self.directory == "" and "." or self.directory)
  return ("no module '%s'%s%s"):format(name, beside and " beside the script in " .. beside or "",
    hint)
end

local LOADING <const> = {}

local function make_require(self)
  local libraries = { string = true, table = true, math = true, utf8 = true, os = true,
    coroutine = true }
  return function(name)
    if type(name) ~= "string" then
      error(("require: expected a module's name, got %s"):format(options.show(name)), 2)
    end
    local loaded = self.loaded[name]
    if loaded == LOADING then
      error(("require: '%s' requires itself"):format(name), 2)
    elseif loaded ~= nil then
      return loaded
    end
    if libraries[name] then
      return self.globals[name]
    elseif REFUSED[name] then
      refuse(name, name, 2)
    end
    local added = added_modules()[name]
    if added ~= nil then
      return added
    elseif contains(sandbox.MODULES, name) then
      return require(name)
    end
    local source, file = find_beside(self, name)
    if not source then
      error("require: " .. not_found(self, name), 2)
    end
    local chunk, message = sandbox.compile(source, file, self.env)
    if not chunk then
      error(message, 0)
    end
    self.loaded[name] = LOADING
    local ok, value = pcall(chunk, name, file)
    if not ok then
      self.loaded[name] = nil
      error(value, 0)
    end
    self.loaded[name] = value == nil or value
    return self.loaded[name]
  end
end

local function add_guards(self)
  local env, globals = self.env, self.globals
  setmetatable(globals, { __index = function(_, name)
    if REFUSED[name] and _G[name] ~= nil then
      refuse(name, name, 2)
    end
    error(("unknown global %s%s"):format(options.show(name), options.hint(name, self.names)), 2)
  end })
  setmetatable(env, { __index = globals, __metatable = false, __newindex = function(_, name)
    error(("global %s is written, expected `local %s = ...`"):format(options.show(name),
      tostring(name)), 2)
  end })
end

---Makes an environment for one script.
---@param how? {directory?: string, read?: fun(path: string): string?, globals?: table<string, any>}
---directory ("dir/" or "") is where require looks for the script's own modules; nil: nowhere.
---globals are added.
---@return table env
function sandbox.new(how)
  how = how or {}
  local globals, env = {}, {}
  for _, name in ipairs(BASE) do
    globals[name] = _G[name]
  end
  globals.string = library("string", string, nil, { "dump" })
  globals.table = library("table", table, nil, {})
  globals.math = library("math", math, nil, {})
  globals.utf8 = library("utf8", utf8, nil, {})
  globals.coroutine = library("coroutine", coroutines(), nil, {})
  globals.os = library("os", os, OS,
    { "execute", "exit", "remove", "rename", "tmpname", "setlocale" })
  globals.setmetatable, globals.getmetatable = safe_setmetatable, safe_getmetatable
  globals.collectgarbage = safe_collectgarbage
  globals.rawset = function(target, key, value)
    if target == env then
      error(("global %s is written with rawset"):format(options.show(key)), 2)
    end
    return rawset(target, key, value)
  end
  globals._G = env
  for name, value in pairs(how.globals or {}) do
    globals[name] = value
  end
  local self = { env = env, globals = globals, directory = how.directory, loaded = {},
    read = how.read }
  globals.load = make_load(env)
  globals.require = make_require(self)
  self.names = names_of(globals)
  add_guards(self)
  return env
end

return sandbox
