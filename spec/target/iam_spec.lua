require "spec.helper"
local iam = require "rouse.target.iam"
local json = require "rouse.json"
local settled = require "spec.settled"
local task = require "rouse.task"

local clock, asked, answer, gate

local http = {}
function http:request(request) -- luacheck: ignore 212
  asked[#asked + 1] = request
  if gate then gate:wait(30) end
  local given = answer
  if given.code then return nil, given.message or "it broke", given.code end
  return { status = given.status or 200, headers = given.headers or {},
    body = type(given.body) == "table" and json.encode(given.body) or given.body or "" }
end

local function granted(token, life)
  return { body = { access_token = token, expires_in = life or 1000, token_type = "Bearer" } }
end

local function open(options)
  options = options or { api_key = "k+/= y" }
  options.http, options.clock = http, function() return clock end
  options.endpoint = options.endpoint or "https://iam.example"
  return iam.new(options)
end

-- Runs a function as a task; whatever it leaves behind is a failure.
local function run(fn)
  return function()
    local before = settled()
    clock, asked, answer, gate = 100, {}, granted("t-1"), nil
    assert(task.run(function()
      fn()
      return true
    end))
    assert.is_true(settled() <= before)
  end
end

-- Lets other tasks go on until a condition holds.
local function until_true(condition)
  local deadline = task.monotonic() + 30
  while not condition() do
    assert(task.monotonic() < deadline, "the condition never held")
    task.sleep(0.001)
  end
end

describe("an IAM token", function()
  it("is asked for with the API key as a form", run(function()
    assert.equal("t-1", open():token())
    assert.equal("POST", asked[1].method)
    assert.equal("https://iam.example/identity/token", asked[1].url)
    assert.equal("application/x-www-form-urlencoded", asked[1].headers["Content-Type"])
    assert.equal("apikey=k%2B%2F%3D%20y"
      .. "&grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&response_type=cloud_iam",
      asked[1].body)
    assert.equal(30, asked[1].timeout)
  end))

  it("takes an endpoint with the path and slashes", run(function()
    for _, endpoint in ipairs { "https://a/", "https://a/identity/token", "https://a/identity/token/" } do
      open { api_key = "key", endpoint = endpoint }:token()
      assert.equal("https://a/identity/token", asked[#asked].url)
    end
  end))

  it("is asked for with the container's file, read each time", run(function()
    local file = os.tmpname()
    local function write(text)
      local handle <close> = assert(io.open(file, "w"))
      handle:write(text)
    end
    write("cr-1\n")
    local source = open { cr_token_file = file, profile_name = "my profile", profile_id = "Profile-1" }
    assert.equal("t-1", source:token())
    assert.equal("cr_token=cr-1&grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Acr-token"
      .. "&profile_id=Profile-1&profile_name=my%20profile", asked[1].body)
    write("cr-2")
    source:token { force = true }
    assert.matches("cr_token=cr%-2&", asked[2].body)
    os.remove(file)
    local token, message, code = source:token { force = true }
    assert.is_nil(token)
    assert.equal("CREDENTIALS", code)
    assert.matches("trusted profile", message)
    assert.equal(2, #asked)
  end))

  it("is kept until 80 % of its life, then fetched in the background", run(function()
    local source = open()
    source:token()
    clock = 100 + 799
    assert.equal("t-1", source:token())
    assert.equal(1, #asked)
    clock, answer = 100 + 801, granted("t-2")
    assert.equal("t-1", source:token())
    until_true(function() return source:token() == "t-2" end)
    assert.equal(2, #asked)
  end))

  it("stays in use when the background fetch fails, which is tried again later", run(function()
    local source = open()
    source:token()
    clock, answer = 901, { status = 503 }
    assert.equal("t-1", source:token())
    until_true(function() return #asked == 2 and not source.fetching end)
    clock = 910
    assert.equal("t-1", source:token())
    task.sleep(0.01)
    assert.equal(2, #asked)
    clock, answer = 970, granted("t-2")
    assert.equal("t-1", source:token())
    until_true(function() return source:token() == "t-2" end)
  end))

  it("is not used in its last 10 seconds", run(function()
    local source = open()
    source:token()
    clock, answer = 100 + 990, granted("t-2")
    assert.equal("t-2", source:token())
  end))

  it("counts its life from before the request was sent", run(function()
    local source = open()
    gate = task.event()
    local asker = task.spawn(function() return source:token() end)
    until_true(function() return #asked == 1 end)
    clock = 500
    gate:set()
    assert.equal("t-1", asker:join { timeout = 30 })
    clock, answer = 1090, granted("t-2")
    assert.equal("t-2", source:token())
  end))

  it("is fetched once for all who wait", run(function()
    local source = open()
    gate = task.event()
    local askers = {}
    for i = 1, 5 do askers[i] = task.spawn(function() return source:token() end) end
    until_true(function() return #asked == 1 end)
    askers[1]:cancel()
    gate:set()
    for i = 2, 5 do assert.equal("t-1", askers[i]:join { timeout = 30 }) end
    assert.equal(1, #asked)
  end))

  it("is replaced by force, but not twice for the same refused token", run(function()
    local source = open()
    source:token()
    answer = granted("t-2")
    assert.equal("t-2", source:token { force = "t-1" })
    assert.equal("t-2", source:token { force = "t-1" })
    assert.equal(2, #asked)
    answer = granted("t-3")
    assert.equal("t-3", source:token { force = true })
  end))
end)

describe("IAM's refusal", function()
  it("is CREDENTIALS with its message and without the secret", run(function()
    answer = { status = 400, body = { errorCode = "BXNIM0415E",
      errorMessage = "API key k+/= y and k+/= y not found." } }
    local token, message, code = open():token()
    assert.is_nil(token)
    assert.equal("CREDENTIALS", code)
    assert.equal("iam: http 400 BXNIM0415E: API key *** and *** not found.", message)
    for _, status in ipairs { 401, 403 } do
      answer = { status = status }
      assert.equal("CREDENTIALS", select(3, open():token()))
    end
  end))

  it("is UNAVAILABLE where it is no refusal", run(function()
    for _, given in ipairs { { status = 500 }, { status = 429, headers = { ["retry-after"] = "3" } },
      { code = "CONNECT" }, { code = "TIMEDOUT" }, { body = "<html>" }, { body = { token_type = "B" } } } do
      answer = given
      local token, message, code, after = open():token()
      assert.is_nil(token)
      assert.equal("UNAVAILABLE", code)
      assert.matches("^iam: ", message)
      assert.equal(given.headers and 3 or nil, after)
    end
  end))

  it("is not remembered", run(function()
    local source = open()
    answer = { status = 503 }
    assert.is_nil(source:token())
    answer = granted("t-1")
    assert.equal("t-1", source:token())
  end))
end)
