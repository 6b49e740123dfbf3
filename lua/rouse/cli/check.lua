-- rouse check [SCRIPT] [--script-only | --connect]: everything that can be known before anything runs, a line per
-- finding on stdout. The exit code is 78 when the configuration is wrong, 1 when the world does not
-- match it, else 0; warnings change nothing.

local environment = require "rouse.config.environment"
local kafkadata = require "rouse.config.kafkadata"
local log = require "rouse.log"
local options = require "rouse.options"
local rouse = require "rouse"
local script = require "rouse.script"
local sys = require "rouse.core.sys"

local check = {}

local PROBLEMS <const>, CONFIGURATION <const> = 1, 78

-- Variables of ours without ROUSE_, to recognize misspelled ones.
local VARIABLES <const> = { "KAFKA", "KAFKADATA", "ASSIGN", "RESET", "IAM_PROFILE_NAME",
  "IAM_PROFILE_ID", "CR_TOKEN_FILE", "LUA", "ETC", "LOG_LEVEL", "LOG_FORMAT", "EXECUTABLE", "ADMIN" }

function check.setup(command)
  command:argument("script", "The script to check; without one, what `rouse observer` would run."):args("?")
  command:mutex(
    command:flag("--script-only", "Look at the script and its routes alone, not at the environment."),
    command:flag("--connect", "Also ask the broker and the API: topics, partitions, jobs."))
end

---@class rouse.Findings
---@field write fun(line: string)
---@field code integer
local Findings = {}
Findings.__index = Findings

function Findings:ok(text, ...)
  self.write("ok: " .. text:format(...))
end

function Findings:warning(text, ...)
  self.write("warning: " .. text:format(...))
end

---Reports what is wrong with the configuration.
function Findings:wrong(text, ...)
  self.write("error: " .. text:format(...))
  self.code = CONFIGURATION
end

---Reports that something outside does not match the configuration.
function Findings:problem(text, ...)
  self.write("error: " .. text:format(...))
  self.code = math.max(self.code, PROBLEMS)
end

---@param write fun(line: string)
---@return rouse.Findings
function check.findings(write)
  return setmetatable({ write = write, code = 0 }, Findings)
end

local function load_script(findings, path, environ)
  local how
  if not path then
    path = (environ.ROUSE_ETC or "/etc/rouse") .. "/observer.lua"
    if not sys.exists(path) then
      local source, name = rouse.embedded("scripts/observer.lua")
      path, how = nil, { source = source or "return {observe = {}}", name = name or "observer" }
    end
  end
  local loaded, message = script.load(path, how)
  if not loaded then
    findings:wrong("%s", message)
    return nil
  end
  local articles = { observer = "an observer", consumer = "a consumer", agent = "a free-form agent" }
  findings:ok("%s is %s", loaded.name, articles[loaded.kind])
  return loaded
end

local function check_variables(findings, environ)
  local known = {}
  for _, name in ipairs(VARIABLES) do
    known[name] = true
  end
  local names = {}
  for name in pairs(environ) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local own = name:match("^ROUSE_(.+)")
    local near = own and not known[own] and options.nearest(own, VARIABLES)
    if near then
      findings:warning("%s is not a variable of Rouse, did you mean ROUSE_%s?", name, near)
    end
  end
end

local function read_settings(findings, loaded, environ)
  local read = environment[loaded.kind]
  local settings, problems = read(environ,
    { script = loaded.table.observe or loaded.table.consume })
  if not settings then
    for _, line in ipairs(environment.lines(problems)) do
      findings:wrong("%s", line)
    end
    return nil
  end
  for _, secret in ipairs(settings.secrets) do
    log.secret(secret)
  end
  for _, note in ipairs(settings.notes) do
    findings:warning("%s", note)
  end
  findings:ok("the environment is complete for %s",
    loaded.kind == "observer" and "an observer" or "a consumer")
  return settings
end

local SHARED <const> = { "dedup_window", "max_instances", "assign", "idle_timeout" }

-- A job on several topics is asked about once: settings that differ would be a coin toss.
local function check_shared_jobs(findings, routes)
  local first = {}
  for _, route in ipairs(routes) do
    for _, job in ipairs(route.jobs) do
      local id = job.name .. "/" .. (job.group or "")
      local other = first[id]
      first[id] = other or { topic = route.topic, job = job }
      for _, field in ipairs(SHARED) do
        if other and other.job[field] ~= job[field] then
          findings:warning("job %s has %s %s for %s and %s for %s, expected the same", job.name,
            field, other.job[field] or "unset", other.topic, job[field] or "unset", route.topic)
        end
      end
    end
  end
end

-- Routes of an observer, from the script or from kafkadata; kafkadata is read even where other
-- variables lack.
local function read_routes(findings, loaded, settings, environ)
  local routes = loaded.table.observe.routes
  if not routes then
    local source = settings and settings.kafkadata
      or environment.kafkadata(environ)
    if not source then
      return nil
    end
    local problems
    routes, problems = kafkadata.parse(source.text, { file = source.file })
    if not routes then
      for _, line in ipairs(problems) do
        findings:wrong("%s", line)
      end
      return nil
    end
  end
  local jobs = 0
  for _, route in ipairs(routes) do
    jobs = jobs + #route.jobs
  end
  findings:ok("%d topic%s with %d job%s", #routes, #routes == 1 and "" or "s", jobs,
    jobs == 1 and "" or "s")
  check_shared_jobs(findings, routes)
  return routes
end

---@param args {script?: string, connect?: boolean, script_only?: boolean}
---@param ctx {environ: table<string, string>, write?: fun(line: string)}
---@return integer exit code
function check.run(args, ctx)
  local findings = check.findings(ctx.write or print)
  local loaded = load_script(findings, args.script, ctx.environ)
  if loaded and args.script_only then
    if loaded.kind == "observer" and loaded.table.observe.routes then
      read_routes(findings, loaded)
    end
    return findings.code
  end
  check_variables(findings, ctx.environ)
  if not loaded or loaded.kind == "agent" then
    return findings.code
  end
  local settings = read_settings(findings, loaded, ctx.environ)
  local routes
  if loaded.kind == "observer" then
    routes = read_routes(findings, loaded, settings, ctx.environ)
  end
  if args.connect and findings.code == 0 then
    require("rouse.cli.connect").run(findings, loaded, settings, routes)
  elseif args.connect then
    findings:warning("nothing was asked of the broker and the API: the configuration comes first")
  end
  return findings.code
end

return check
