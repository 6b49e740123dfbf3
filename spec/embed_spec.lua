require "spec.helper"
local process = require "rouse.process"
local sys = require "rouse.core.sys"
local task = require "rouse.task"

local BUILD = os.getenv("ROUSE_BUILD") or "build"
local CC = os.getenv("CC") or "cc"
local DEADLINE = 60

-- Everything that is compiled and run here has its own sanitizers: none preloaded, and those of the library linked.
local environ = sys.environ()
environ.LD_PRELOAD = nil
environ.PKG_CONFIG_PATH = BUILD .. (environ.PKG_CONFIG_PATH and ":" .. environ.PKG_CONFIG_PATH or "")
local sanitize = BUILD:find("address", 1, true) and "-fsanitize=address,undefined" or nil

-- Runs a command to its end and returns its exit code and output.
local function run(command, env)
  return task.run(function()
    local child = assert(process.spawn {
      command = command, env = env or environ, stdout = "pipe", stderr = "pipe",
    })
    local output = {}
    for _, stream in ipairs { "stdout", "stderr" } do
      local chunks = {}
      repeat
        local chunk, _, code = child:read { stream = stream, timeout = DEADLINE }
        chunks[#chunks + 1] = chunk
        assert(chunk or code == "EOF", code)
      until not chunk
      output[stream] = table.concat(chunks)
    end
    local status = assert(child:wait { timeout = DEADLINE })
    child:close()
    return status.code, output.stdout, output.stderr
  end)
end

local function words(text)
  local list = {}
  for word in text:gmatch("%S+") do list[#list + 1] = word end
  return list
end

local function pkg_config(...)
  local code, output, problem = run { "pkg-config", ... }
  assert(code == 0, problem)
  return words(output)
end

local function compile(target, ...)
  local command = { CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", target, "spec/embed/embed.c" }
  command[#command + 1] = sanitize
  for _, list in ipairs { ... } do table.move(list, 1, #list, #command + 1, command) end
  local code, output, problem = run(command)
  assert(code == 0, output .. problem)
end

describe("a program that embeds Rouse", function()
  local programs = {}

  setup(function()
    for _, kind in ipairs { "shared", "static" } do
      programs[kind] = ("%s/spec/embed-%s"):format(BUILD, kind)
    end
    assert(os.execute("mkdir -p " .. BUILD .. "/spec"))
    local library = pkg_config("--variable=libdir", "rouse")[1]
    compile(programs.shared, pkg_config("--cflags", "--libs", "rouse"), { "-Wl,-rpath," .. library })
    -- The archive itself, then what it needs by the names that pkg-config gives; --static would ask for theirs too.
    local needed = words(table.concat(pkg_config("--print-requires", "--print-requires-private", "rouse"), " "))
    compile(programs.static, pkg_config("--cflags", "rouse"), { library .. "/librouse.a" },
      pkg_config("--libs", table.unpack(needed)), { "-lm", "-lpthread" })
  end)

  teardown(function()
    for _, path in pairs(programs) do os.remove(path) end
  end)

  for _, kind in ipairs { "shared", "static" } do
    it("runs a script that calls its functions (" .. kind .. ")", function()
      local code, output, problem = run { programs[kind], "spec/embed/script.lua", "4", "--left" }
      assert.equal("", problem)
      assert.equal("--left: 10\n6\n2\nonly 2 left (EMPTY)\n" ..
        "rouse " .. require("rouse").version .. ": exit 0, 2 changes, 2 left\n", output)
      assert.equal(0, code)
    end)
  end

  it("sees misuse of its functions as the script's error, with file and line", function()
    local code, output, problem = run { programs.shared, "spec/embed/script.lua", "-1" }
    assert.equal(1, code)
    assert.matches("exit 1, 0 changes, 10 left", output, 1, true)
    assert.matches("script%.lua:%d+:.*above 0 expected", problem)
  end)

  it("sees a script that is not there as a configuration error", function()
    local code, _, problem = run { programs.shared, "spec/embed/nothing.lua" }
    assert.equal(78, code)
    assert.matches("nothing.lua", problem, 1, true)
  end)
end)
