-- Reads kafkadata, the YAML that maps topics to jobs, in all of its forms:
--
--     payments:                              # the first observer's
--       partitions: 4
--       jobs:
--       - payments-consumer
--     shipping:                              # the second's
--       jobs:
--       - name: shipping-consumer
--         consumer_group: shipping-group
--     ^orders[.]:                            # a pattern, and everything a route may say (routes.lua)
--       reset: latest
--       jobs: [{name: orders-consumer, group: orders, dedup_window: 30, assign: index}]
--
-- Every mistake is reported, not just the first: FILE:LINE:COLUMN: what is wrong, what was
-- expected.

local options = require "rouse.options"
local routes = require "rouse.config.routes"

local kafkadata = {}

local EXAMPLE <const> = "a map of topics, like `payments: {jobs: [payments-consumer]}`"
local NULLS <const> = { [""] = true, ["~"] = true, null = true, Null = true, NULL = true }

local function is_null(node)
  return node.kind == "scalar" and node.plain and NULLS[node.value] or false
end

local KINDS <const> = { map = "a map", seq = "a list" }

local function show(node)
  if is_null(node) then
    return "empty"
  end
  if node.kind == "scalar" and node.plain and tonumber(node.value) then
    return node.value
  end
  return KINDS[node.kind] or options.show(node.value)
end

-- A node as a Lua value, for what is passed on unread (a target's own settings).
local function plain_value(node)
  local value = {}
  if node.kind == "map" then
    for _, pair in ipairs(node.pairs) do
      value[pair.key.value or ""] = plain_value(pair.value)
    end
    return value
  elseif node.kind == "seq" then
    for i, item in ipairs(node.items) do
      value[i] = plain_value(item)
    end
    return value
  elseif is_null(node) then
    return nil
  elseif node.plain and (node.value == "true" or node.value == "false") then
    return node.value == "true"
  elseif node.plain and node.value:find("^[-+]?%.?%d[%d.eE+-]*$") then
    return math.tointeger(tonumber(node.value)) or tonumber(node.value) or node.value
  end
  return node.value
end

-- A scalar read as its option wants it: text stays text, so that a group may be called 42 and a job
-- `yes`.
local function scalar_value(item, node)
  local wants = item.type
  if node.kind == "scalar" and (wants == "string" or wants == "string|table") then
    return node.value
  elseif wants == "number" or wants == "integer" then
    return plain_value(node)
  elseif node.kind == "seq" and wants == "string|table" then
    return nil
  end
  return plain_value(node)
end

local reader = {}
reader.__index = reader

function reader:complain(node, problem, expected)
  self.problems[#self.problems + 1] = {
    line = node.line, column = node.column, order = #self.problems,
    text = expected and problem .. ", expected " .. expected or problem,
  }
end

-- Calls each(key text, pair) for the keys of a map, reporting keys that are no text or come twice.
function reader:each_key(map, what, each)
  local seen = {}
  for _, pair in ipairs(map.pairs) do
    local key = pair.key
    if key.kind ~= "scalar" or is_null(key) then
      self:complain(key, ("a key of %s is %s"):format(what, show(key)), "a name")
    elseif seen[key.value] then
      self:complain(key, ("%s comes twice in %s, first in line %d"):format(
        options.show(key.value), what, seen[key.value]), "each once")
    else
      seen[key.value] = key.line
      each(key.value, pair)
    end
  end
end

-- Reads the keys of a map by their options. Returns the values and the nodes they came from, by
-- name.
function reader:fields(map, spec, what, aliases)
  local items, names, values, nodes = {}, options.names(spec), {}, {}
  for _, item in ipairs(spec) do
    items[item.name] = item
    values[item.name] = item.default
  end
  for alias, name in pairs(aliases) do
    items[alias] = items[name]
    names[#names + 1] = alias
  end
  table.sort(names)
  self:each_key(map, what, function(key, pair)
    local item = items[key]
    if not item then
      local near = options.nearest(key, names)
      self:complain(pair.key, ("%s has the unknown key '%s'"):format(what, key),
        near and ("%s (one of %s)"):format(near, table.concat(names, ", "))
        or "one of " .. table.concat(names, ", "))
      return
    end
    nodes[key] = pair
    if is_null(pair.value) then
      self:complain(pair.key, ("%s of %s is empty"):format(key, what), options.expected(item))
    elseif item.name ~= "jobs" then
      local value = scalar_value(item, pair.value)
      local checked, expected
      if value == nil then
        expected = options.expected(item)
      else
        checked, expected = options.verify(item, value)
      end
      if checked == nil then
        local quoted = type(value) == "string" and tonumber(value) and not pair.value.plain
        self:complain(pair.value, ("%s of %s is %s"):format(key, what, show(pair.value)),
          expected .. (quoted and " without quotes" or ""))
      end
      values[key] = checked
    end
  end)
  return values, nodes
end

function reader:job(node, topic)
  local what = ("a job of %s"):format(topic)
  if node.kind == "scalar" and not is_null(node) then
    local name, expected = options.verify(routes.JOB[1], node.value)
    if not name then
      self:complain(node, ("%s is called %s"):format(what, show(node)), expected)
      return nil
    end
    node = { kind = "map", line = node.line, column = node.column,
      pairs = { { key = { kind = "scalar", value = "name" }, value = node } } }
  elseif node.kind ~= "map" then
    self:complain(node, ("%s is %s"):format(what, show(node)), "a job's name or a map with `name`")
    return nil
  end
  local job, nodes = self:fields(node, routes.JOB, what, { consumer_group = "group" })
  if not nodes.name then
    self:complain(node, what .. " has no name", "`name: JOB`")
  end
  if job.group and job.consumer_group and job.group ~= job.consumer_group then
    self:complain(nodes.consumer_group.value, ("%s has the group '%s' and the consumer_group '%s'")
      :format(what, job.group, job.consumer_group), "one of them, or the same in both")
  end
  job.group, job.consumer_group = job.group or job.consumer_group, nil
  job.line, job.column = node.line, node.column
  return job.name and job or nil
end

function reader:jobs(route, pair)
  local list, topic = pair.value, route.topic
  if list.kind ~= "seq" then
    self:complain(list, ("jobs of %s is %s"):format(topic, show(list)),
      "a list of jobs, one `- NAME` a line")
    return
  elseif #list.items == 0 then
    self:complain(list, ("jobs of %s is an empty list"):format(topic), "at least one job")
  end
  local seen = {}
  for _, node in ipairs(list.items) do
    local job = self:job(node, topic)
    if job and seen[job.name] then
      self:complain(node, ("the job '%s' comes twice in %s, first in line %d"):format(job.name,
        topic, seen[job.name]), "each job once")
    elseif job then
      seen[job.name] = job.line
      route.jobs[#route.jobs + 1] = job
    end
  end
end

function reader:route(topic, pair)
  local pattern, problem, expected = routes.check_topic(topic, self.match)
  if pattern == nil then
    self:complain(pair.key, problem, expected)
    pattern = false
  end
  local route = { topic = topic, pattern = pattern, jobs = {},
    line = pair.key.line, column = pair.key.column }
  local map = pair.value
  if map.kind ~= "map" then
    self:complain(is_null(map) and pair.key or map, ("%s is %s"):format(topic, show(map)),
      "a map with jobs and maybe partitions and reset, indented below it")
    return route
  end
  local values, nodes = self:fields(map, routes.ROUTE, topic, {})
  route.partitions, route.reset = values.partitions, values.reset
  if not nodes.jobs then
    self:complain(pair.key, topic .. " has no jobs", "`jobs:` with a list of them")
  elseif not is_null(nodes.jobs.value) then
    self:jobs(route, nodes.jobs)
  end
  return route
end

-- What is usually behind the YAML library's words.
local SYNTAX <const> = {
  ["mapping values"] = "one `KEY: VALUE` a line",
  ["expected key"] = "keys of one map, and the `-` of one list, in the same column",
  ["expected '%-'"] = "keys of one map, and the `-` of one list, in the same column",
  ["node content"] = "a value, or the closing bracket",
  ["second document"] = "everything in one",
  ["alias"] = "`&NAME` above it",
  ["end of stream"] = "the closing quote or bracket",
}

local function syntax_error(text, message, line, column)
  local wrong = {}
  local number = 0
  for content in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local indent = content:match("^[ \t]*")
    if indent:find("\t") and number <= (line or number) then
      wrong.line, wrong.column = number, indent:find("\t")
    end
  end
  if wrong.line and line and line - wrong.line <= 1 then
    return wrong, "a tab in the indentation", "spaces"
  end
  local expected = "YAML in UTF-8"
  for pattern, instead in pairs(SYNTAX) do
    if message:find(pattern) then
      expected = instead
    end
  end
  local position = { line = line or 1, column = column or 1 }
  return position, "not YAML: " .. message:gsub(", expected.*", ""), expected
end

local function finish(self, file)
  table.sort(self.problems, function(a, b)
    if a.line ~= b.line then
      return a.line < b.line
    elseif a.column ~= b.column then
      return a.column < b.column
    end
    return a.order < b.order
  end)
  local texts = {}
  for i, problem in ipairs(self.problems) do
    texts[i] = ("%s:%d:%d: %s"):format(file, problem.line, problem.column, problem.text)
  end
  return nil, texts
end

---Reads routes from nodes as rouse.yaml gives them.
---@param node table
---@param how? {file?: string, match?: function}
---@return rouse.Route[]?
---@return string[]? problems
function kafkadata.from_node(node, how)
  how = how or {}
  local self = setmetatable({ problems = {}, match = how.match }, reader)
  local list = {}
  if node.kind ~= "map" then
    self:complain(node, ("the file is %s"):format(show(node)), EXAMPLE)
  elseif #node.pairs == 0 then
    self:complain(node, "an empty map", EXAMPLE)
  else
    self:each_key(node, "the file", function(topic, pair)
      list[#list + 1] = self:route(topic, pair)
    end)
  end
  if #self.problems > 0 then
    return finish(self, how.file or "kafkadata")
  end
  return routes.sort(list)
end

---Reads the text of kafkadata.
---@param text string
---@param how? {file?: string, match?: function, parse?: function} file names it in messages, default "kafkadata"
---@return rouse.Route[]?
---@return string[]? problems all of them, in the order of their positions
function kafkadata.parse(text, how)
  how = how or {}
  local parse = how.parse or require "rouse.yaml".parse
  local node, message, code, line, column = parse(text)
  if node then
    return kafkadata.from_node(node, how)
  end
  local self = setmetatable({ problems = {} }, reader)
  if code == "EMPTY" then
    self:complain({ line = 1, column = 1 }, "nothing in it", EXAMPLE)
  else
    self:complain(syntax_error(text, message, line, column))
  end
  return finish(self, how.file or "kafkadata")
end

return kafkadata
