-- What a rule answers: plain tables, made and checked here so that a mistake is reported at the
-- rule's own line.
--
--     return verdict.wake{indices={0, 3}, reason="orders wait"}     -- or instances=2, or neither: what has work
--     return verdict.wait{seconds=30, reason="inside the dedup window"}
--     return verdict.ignore{reason="maintenance"}

local arrayspec = require "rouse.arrayspec"
local options = require "rouse.options"

---@class rouse.Verdict
---@field kind "wake"|"wait"|"ignore"
---@field indices? integer[] wake: partitions to start an instance for, sorted
---@field instances? integer wake: how many instances to start
---@field env? table<string, string> wake: environment of the run
---@field seconds? number wait: asked again after that
---@field reason? string

---@class rouse.Wake what on_record returns, once or in an array
---@field kind "wake"
---@field job string a job of the routes
---@field dedup? string key of the window; default the job's name
---@field window? number seconds; default the job's dedup_window
---@field env? table<string, string>
---@field reason? string

local functions = {}

-- Where the script looked up the function it is about to call. `return verdict.wake{...}` is a tail
-- call: once wake runs, the rule's frame is gone and error() could only blame whoever called the
-- rule. The look-up happened in it.
local looked_up = ""

local OWNED_PREFIXES <const> = { "CE_", "JOB_", "ROUSE_" }

---Says why a run's environment is refused, or nil when it is fine. Also used where environments
---come from elsewhere.
---@param env table
---@return table<string, string>? env with every value a string
---@return string? expected
local function check_env(env)
  local result = {}
  for name, value in pairs(env) do
    if type(name) ~= "string" or not name:find("^[%a_][%w_]*$") then
      return nil, "names of letters, digits and _, not " .. options.show(name)
    end
    for _, prefix in ipairs(OWNED_PREFIXES) do
      if name:sub(1, #prefix) == prefix then
        return nil, ("no %s: Rouse and the platform set what begins with %s"):format(name, prefix)
      end
    end
    if type(value) ~= "string" and type(value) ~= "number" then
      return nil, ("%s to be a string, not %s"):format(name, options.show(value))
    end
    result[name] = tostring(value)
  end
  return result
end

local function check_indices(indices)
  local seen, list = {}, {}
  for key, value in pairs(indices) do
    local index = math.type(key) == "integer" and math.tointeger(value)
    if not index or index < 0 or index > arrayspec.MAX_INDEX then
      return nil, ("an array of partition numbers, not %s in it"):format(options.show(value))
    end
    if not seen[index] then
      seen[index] = true
      list[#list + 1] = index
    end
  end
  if #list == 0 then
    return nil, "at least one index; to start nothing answer verdict.wait or verdict.ignore"
  elseif #list > arrayspec.MAX_INSTANCES then
    return nil, ("at most %d indices"):format(arrayspec.MAX_INSTANCES)
  end
  table.sort(list)
  return list
end

local ENV <const> = { name = "env", type = "table", check = check_env,
  expected = "a table of strings" }
local REASON <const> = { name = "reason", type = "string" }

local SPECS <const> = {
  wake = {
    { name = "kind", type = "string", choices = { "wake" } },
    { name = "indices", type = "table", check = check_indices,
      expected = "an array of partitions" },
    { name = "instances", type = "integer", min = 1, max = arrayspec.MAX_INSTANCES },
    { name = "job", type = "string" },
    { name = "dedup", type = "string" },
    { name = "window", type = "number", min = 0 },
    ENV,
    REASON,
  },
  wait = {
    { name = "kind", type = "string", choices = { "wait" } },
    { name = "seconds", type = "number", min = 0, required = true },
    REASON,
  },
  ignore = {
    { name = "kind", type = "string", choices = { "ignore" } },
    REASON,
  },
}

-- The verdict as it should be, or nil and the message.
local function build(kind, values)
  local result, message = options.apply(values, SPECS[kind], "verdict." .. kind)
  if not result then
    return nil, message
  end
  if result.indices and result.instances then
    return nil, "verdict.wake: indices and instances are both given, expected one of them or none"
  elseif result.job and (result.indices or result.instances) then
    return nil, "verdict.wake: job belongs to on_record, indices and instances to decide"
  elseif (result.dedup or result.window) and not result.job then
    return nil, "verdict.wake: dedup and window belong to on_record's wakes, which name a job"
  end
  result.kind = kind
  return result
end

local function construct(kind, values)
  local result, message = build(kind, values)
  if result then
    return result
  end
  local caller = debug.getinfo(2, "t")
  if caller.istailcall then
    error(looked_up .. message, 0)
  end
  error(message, 3)
end

---Asks for instances: for these partitions (one topic only), this many, or, with neither, for every
---partition that has work and is not covered. In on_record it names a job instead: wake{job=,
---dedup=, window=, env=, reason=}.
---@param values? {indices?: integer[], instances?: integer, env?: table<string, string>, reason?: string}
---@return rouse.Verdict
function functions.wake(values)
  local result = construct("wake", values)
  return result
end

---Asks to be asked again after `seconds`, or when a partition rings.
---@param values {seconds: number, reason?: string}
---@return rouse.Verdict
function functions.wait(values)
  local result = construct("wait", values)
  return result
end

---Leaves what is there alone until a record arrives past it, or a restart.
---@param values? {reason?: string}
---@return rouse.Verdict
function functions.ignore(values)
  local result = construct("ignore", values)
  return result
end

---Checks what decide returned, which may have been made by hand. For the engine.
---@param value any
---@return rouse.Verdict?
---@return string? message
function functions.check(value)
  local kind = type(value) == "table" and value.kind
  if not SPECS[kind] then
    local what = type(value) == "table" and "a table that is no verdict" or options.show(value)
    return nil, ("decide returned %s, expected verdict.wake, wait or ignore"):format(what)
  end
  local result, message = build(kind, value)
  if result and result.job then
    return nil, "decide returned a wake with job=, which is on_record's form"
  end
  return result, message
end

---Checks what on_record returned: nil, one wake or an array of them. For the engine.
---@param value any
---@param jobs table<string, any> the jobs of the routes by name
---@return rouse.Wake[]?
---@return string? message
function functions.wakes(value, jobs)
  if value == nil then
    return {}
  elseif type(value) ~= "table" then
    return nil, ("on_record returned %s, expected nil, a wake or an array of wakes"):format(
      options.show(value))
  end
  local list = value
  if next(value) ~= nil and #value == 0 then
    list = { value }
  end
  local result = {}
  for i, item in ipairs(list) do
    local wake, message = build("wake", item)
    if not wake then
      return nil, "on_record: " .. message
    elseif not wake.job then
      return nil, ("on_record: wake %d names no job, expected job="):format(i)
    elseif not jobs[wake.job] then
      local names = {}
      for name in pairs(jobs) do
        names[#names + 1] = name
      end
      table.sort(names)
      return nil, ("on_record: no route has the job '%s'%s"):format(wake.job,
        options.hint(wake.job, names))
    end
    result[i] = wake
  end
  return result
end

functions.check_env = check_env

---@class rouse.verdict
---@field wake fun(values?: table): rouse.Verdict
---@field wait fun(values: table): rouse.Verdict
---@field ignore fun(values?: table): rouse.Verdict
---@field check fun(value: any): rouse.Verdict?, string?
---@field wakes fun(value: any, jobs: table): rouse.Wake[]?, string?
---@field check_env fun(env: table): table<string, string>?, string?
return setmetatable({}, {
  __name = "rouse.verdict",
  __index = function(_, name)
    local found = functions[name]
    if not found then
      error(("verdict has no '%s'%s"):format(tostring(name),
        options.hint(name, { "wake", "wait", "ignore" })), 2)
    end
    local caller = debug.getinfo(2, "Sl")
    looked_up = caller and caller.currentline > 0
      and ("%s:%d: "):format(caller.short_src, caller.currentline) or ""
    return found
  end,
  __newindex = function(_, name)
    error(("verdict cannot be changed (field '%s')"):format(tostring(name)), 2)
  end,
})
