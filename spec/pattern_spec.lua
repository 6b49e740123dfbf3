require "spec.helper"
local pattern = require "rouse.core.pattern"
local task = require "rouse.task"

local FUNCTIONS = { "find", "match", "gmatch", "gsub" }

-- What a function of a library makes of its arguments: all results, of gmatch those of the whole walk, or the message.
local function outcome(library, name, ...)
  local result = table.pack(pcall(library[name], ...))
  if result[1] and name == "gmatch" then
    local walk, all = result[2], {}
    result = table.pack(pcall(function()
      repeat
        local found = table.pack(walk())
        all[#all + 1] = found
      until found[1] == nil
    end))
    result.all = all
  end
  if not result[1] then
    result[2] = tostring(result[2]):gsub("^.-:%d+: ", "")
  end
  return result
end

local function same(name, ...)
  assert.same(outcome(string, name, ...), outcome(pattern, name, ...),
    name .. (" %q"):rep(2):format(tostring((...)), tostring((select(2, ...)))))
end

describe("patterns", function()
  it("are those of Lua's string library", function()
    local texts = { "", "a", "hello world", "key = value", "  trim me  ", "f(a(b)c)d", "THE (quick) fox", "a\0b\0", "%d+",
      "x^y$z", "2024-11-28", ("ab"):rep(50), "[]", "a-b", "\xff\xfe", "-", "]" }
    local patterns = { "", "a", "%a+", "(%a+)", "^%s*(.-)%s*$", "(%w+)%s*=%s*(%w+)", "%b()", "%f[%a]%a+", "%f[%A]",
      "()ll()", "(.)%1", "[%a_][%w_]*", "[^%s]+", "[]]", "[^]]", "[a-]", "[%-a]", "[a-z%d]+",
      ".-o", ".*o", "o?$", "^", "$", "^$", "a*",
      "a-", "%z", "%%", "%d+-%d+", "(%d+)-(%d+)-(%d+)", "\0", "[\0-a]", "(a*(.)%w(%s*))", "x^y", "z$", "$z", "((a)(b))",
      "%S+", "%U",
      -- and what is none
      "%", "[", "[^", "[a", "[%", "[%a", "%b", "%bx", "%f", "%fa", "(", ")", "(()", "%1", "(%1)", "%0", "(a)%2", "a%", "[]",
      ("(a)"):rep(33), ("a?"):rep(250) .. "b", }
    for _, text in ipairs(texts) do
      for _, source in ipairs(patterns) do
        for _, at in ipairs { 1, 2, 0, -1, -3, 50, -50 } do
          same("find", text, source, at)
          same("match", text, source, at)
          same("gmatch", text, source, at)
        end
        same("find", text, source, 1, true)
        for _, replacement in ipairs { "", "<%0>", "%1", "%2%1", "%%", "%", "%x", 7, { a = "b", hello = 1, o = false },
            function(...) return select("#", ...) end, function(a) return a == "a" and {} or nil end } do
          same("gsub", text, source, replacement)
          same("gsub", text, source, replacement, 1)
        end
      end
    end
  end)

  it("are so for whatever the dice put together", function()
    local seed = 20241128
    local function draw(most)
      seed = (seed * 6364136223846793005 + 1442695040888963407) & math.maxinteger
      return (seed >> 24) % most + 1
    end
    local pieces = { "a", "b", ".", "%a", "%d", "%s", "%W", "[ab]", "[^a]", "[a-c]", "[%d-]", "(", ")", "()", "%1", "%2",
      "*", "+", "-", "?", "^", "$", "%b()", "%f[a]", "%", "[", "]", "\0" }
    local letters = { "a", "b", "c", "1", " ", "(", ")", "-", "\0", "A" }
    local function text(list, most)
      local all = {}
      for i = 1, draw(most) - 1 do
        all[i] = list[draw(#list)]
      end
      return table.concat(all)
    end
    for _ = 1, 20000 do
      local subject, source = text(letters, 12), text(pieces, 9)
      same(FUNCTIONS[draw(3)], subject, source, draw(9) - 5)
      same("gsub", subject, source, "<%1>")
    end
  end)

  it("end with the CPU budget, in whatever function they are", function()
    local long, slow = ("a"):rep(3000), ("a-"):rep(40) .. "b"
    task.run(function()
      for _, call in ipairs {
        function() pattern.find(long, slow) end,
        function() pattern.match(long, slow) end,
        function() pattern.gmatch(long, slow)() end,
        function() pattern.gsub(long, slow, "") end,
        function() while true do pcall(pattern.find, long, slow) end end,
      } do
        local ok, message, code = task.guard(call)
        assert.is_false(ok)
        assert.equal("CPU", code)
        assert.matches("^spec/pattern_spec%.lua:%d+: ", message)
      end
    end)
    assert.same({ 1, 1 }, { pattern.find("a", "a") })
  end)
end)
