require "spec.helper"
local http = require "rouse.http"
local process = require "rouse.process"
local task = require "rouse.task"

local DEADLINE = 60

-- Runs fn(server, client, url) in a task with a server and a client, and looks that nothing is left of them.
local function with_server(options, fn)
  return function()
    task.run(function()
      local server <close> = assert(http.server(options))
      local client <close> = assert(http.client())
      fn(server, client, server:url())
    end)
    assert.equal(0, task.handles())
  end
end

-- Answers every request with handler's answer, in the background.
local function serve(server, handler)
  return task.spawn(function() server:serve(handler, function(message) error(message, 0) end) end)
end

local function echo(request)
  return {
    headers = { ["X-Method"] = request.method, ["X-Type"] = request.headers["content-type"] or "none" },
    body = request.body,
  }
end

describe("http", function()
  it("exchanges a request and a response", with_server({}, function(server, client, url)
    local asking = task.spawn(client.request, client, {
      url = url .. "/a%2Fb/c?x=1+2&y=%26", headers = { ["X-Upper-Case"] = "v", ["x-number"] = 3 },
    })
    local request = assert(server:accept { timeout = DEADLINE })
    assert.equal("GET", request.method)
    assert.equal("/a%2Fb/c", request.path)
    assert.same({ x = "1 2", y = "&" }, request.query)
    assert.equal("v", request.headers["x-upper-case"])
    assert.equal("3", request.headers["x-number"])
    assert.matches("^rouse/", request.headers["user-agent"])
    assert.equal("", request.body)
    assert.is_true(request:respond { status = 418, headers = { ["X-Answer"] = "Yes" }, body = "tea" })
    local response = assert(asking:join { timeout = DEADLINE })
    assert.equal(418, response.status)
    assert.equal("Yes", response.headers["x-answer"])
    assert.equal("tea", response.body)
  end))

  it("sends every method, with and without a body", with_server({}, function(server, client, url)
    serve(server, echo)
    for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" } do
      for _, body in ipairs { "", "with a body" } do
        local response = assert(client:request { url = url, method = method, body = body })
        assert.equal(method, response.headers["x-method"])
        assert.equal(body, response.body)
      end
      assert.equal("", assert(client:request { url = url, method = method }).body)
    end
    local response = assert(client:request { url = url, method = "HEAD" })
    assert.equal("HEAD", response.headers["x-method"])
    assert.equal("", response.body)
  end))

  it("carries bodies as they are: NUL, every byte, larger than any buffer", with_server({}, function(server, client, url)
    serve(server, echo)
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    local all = table.concat(bytes)
    assert.equal(all, assert(client:post(url, { body = all })).body)
    local large = all:rep(3000)
    assert.is_true(large == assert(client:post(url, { body = large })).body)
  end))

  it("joins repeated fields and serves fields of any case", with_server({}, function(server, client, url)
    serve(server, function(request)
      return { headers = { ["X-Seen"] = request.headers["x-a"] .. "|" .. request.headers["content-type"] } }
    end)
    local response = assert(client:get(url, { headers = { ["X-A"] = "1", ["x-a"] = "2", ["CONTENT-TYPE"] = "t/x" } }))
    assert.matches("^[12], [12]|t/x$", response.headers["x-seen"])
  end))

  it("reuses one connection for requests in a row", with_server({ max_connections = 1 }, function(server, client, url)
    serve(server, echo) -- a second connection would find no place and wait
    for i = 1, 20 do
      assert.equal(tostring(i), assert(client:post(url, { body = tostring(i), timeout = DEADLINE })).body)
    end
  end))

  it("serves many requests at once, each with its own answer", with_server({}, function(server, client, url)
    local held = {}
    local asking = {}
    for i = 1, 100 do
      asking[i] = task.spawn(client.post, client, url, { body = tostring(i), timeout = DEADLINE })
    end
    for _ = 1, 50 do held[#held + 1] = assert(server:accept { timeout = DEADLINE }) end
    for i = #held, 1, -1 do held[i]:respond { body = held[i].body } end
    for _ = 51, 100 do
      local request = assert(server:accept { timeout = DEADLINE })
      request:respond { body = request.body }
    end
    for i = 1, 100 do
      assert.equal(tostring(i), assert(asking[i]:join { timeout = DEADLINE }).body)
    end
  end))

  describe("json", function()
    it("is sent, answered and decoded", with_server({}, function(server, client, url)
      serve(server, function(request)
        assert(request.headers["content-type"] == "application/json")
        local value = assert(http.json(request))
        return { json = { got = value.n, query = request.query.q } }
      end)
      local value, response = client:json { url = url, query = { q = "a b" }, json = { n = 9007199254740993 } }
      assert.same({ got = 9007199254740993, query = "a b" }, value)
      assert.equal("application/json", response.headers["content-type"])
    end))

    it("tells a status and a body that is none apart", with_server({}, function(server, client, url)
      serve(server, function(request)
        return { status = request.path == "/no" and 503 or 200, body = "busy" }
      end)
      local value, message, code, response = client:json { url = url .. "/no?secret=1" }
      assert.is_nil(value)
      assert.equal("GET " .. url .. "/no: http 503", message)
      assert.equal("STATUS", code)
      assert.equal("busy", response.body)
      value, message, code = client:json { url = url .. "/yes?secret=1" }
      assert.is_nil(value)
      assert.equal("JSON", code)
      assert.is_nil(message:find("secret", 1, true))
    end))
  end)

  describe("failures", function()
    it("names a refused port CONNECT", with_server({}, function(server, client, url)
      server:close()
      local response, message, code = client:get(url .. "/path?token=secret")
      assert.is_nil(response)
      assert.equal("CONNECT", code)
      assert.matches("^GET http://127%.0%.0%.1:%d+/path: ", message)
      assert.is_nil(message:find("secret", 1, true))
    end))

    it("names a host that does not exist RESOLVE", with_server({}, function(_, client)
      local response, message, code = client:request { url = "http://nobody.invalid/x", timeout = DEADLINE }
      assert.is_nil(response)
      assert.matches("^GET http://nobody%.invalid/x: ", message)
      assert.equal("RESOLVE", code)
    end))

    it("names what is no http URL, without repeating it", with_server({}, function(_, client)
      for _, address in ipairs { "", "http://", "file:///etc/passwd", "ftp://x/y", "http://a b/secret", "x y" } do
        local response, message, code = client:get(address)
        assert.is_nil(response)
        assert.equal("URL", code)
        assert.is_nil(message:find("secret", 1, true))
      end
    end))

    it("hides credentials of the URL in messages", with_server({}, function(server, client)
      local port = server:port()
      server:close()
      local _, message = client:get(("http://user:secret@127.0.0.1:%d/"):format(port))
      assert.matches("^GET http://127%.0%.0%.1:%d+/: ", message)
    end))

    it("ends a request without an answer in time", with_server({}, function(server, client, url)
      local timeout, request = 0.05
      repeat -- until it was sent before its time was up
        local started = task.monotonic()
        local response, message, code = client:post(url .. "/slow?secret", { body = "secret", timeout = timeout })
        assert.is_nil(response)
        assert.equal("TIMEDOUT", code)
        assert.equal("POST " .. url .. "/slow: no complete response in time", message)
        assert.is_true(task.monotonic() - started >= timeout)
        request = server:accept { timeout = timeout }
        timeout = timeout * 2
      until request or timeout > DEADLINE
      request:respond() -- nobody is there; nobody is hurt
    end))

    it("names a dropped connection LOST", with_server({}, function(server, client, url)
      for _, first in ipairs { true, false } do -- on a new connection, then on a reused one
        if not first then
          local warm = task.spawn(client.get, client, url)
          server:accept({ timeout = DEADLINE }):respond()
          assert(warm:join { timeout = DEADLINE })
        end
        local asking = task.spawn(client.post, client, url, { body = "once" })
        server:accept({ timeout = DEADLINE }):drop()
        local response, _, code = asking:join { timeout = DEADLINE }
        assert.is_nil(response)
        assert.equal("LOST", code)
        -- it was not sent again behind the caller's back
        assert.same({ nil, "timed out", "TIMEDOUT" }, { server:accept { timeout = 0.01 } })
      end
    end))

    it("cuts off a response that is larger than allowed", with_server({}, function(server, _, url)
      local client <close> = assert(http.client { max_response = 1000 })
      serve(server, function(request) return { body = ("x"):rep(tonumber(request.query.n)) } end)
      assert.equal(1000, #assert(client:get(url .. "?n=1000")).body)
      local response, message, code = client:get(url .. "?n=1001")
      assert.is_nil(response)
      assert.equal("TOO_LARGE", code)
      assert.equal("GET " .. url .. "/: the response is larger than 1000 bytes", message)
      assert.equal(1000, #assert(client:get(url .. "?n=1000")).body)
    end))

    it("raises misuse at the caller's line", with_server({}, function(server, client, url)
      local function raises(pattern, fn, ...)
        local ok, message = pcall(fn, ...)
        assert.is_false(ok)
        assert.matches(pattern, message)
      end
      raises("unknown option 'ulr', did you mean 'url'", client.request, client, { ulr = url })
      raises("'url' is missing", client.request, client, {})
      raises("'method': not a method", client.request, client, { url = url, method = "GE T" })
      raises("not allowed", client.get, client, url, { headers = { ["a b"] = "c" } })
      raises("content%-length is set by the library", client.get, client, url, { headers = { ["content-length"] = 1 } })
      raises("option 'timeout'", client.get, client, url, { timeout = 0 })
      raises("option 'timeout'", client.get, client, url, { timeout = 0 / 0 })
      local ok, message = pcall(client.get, client, url, { headers = { Authorization = "secret\r\nX: y" } })
      assert.is_false(ok)
      assert.is_nil(message:find("secret", 1, true))
      raises("http_spec%.lua:%d+: .*'url' is missing", function() return (client:request {}) end)
      raises("option 'status'", function()
        task.spawn(client.get, client, url)
        server:accept({ timeout = DEADLINE }):respond { status = 99 }
      end)
      client:close()
      raises("http client is closed", client.get, client, url)
      server:close()
      raises("http server is closed", server.accept, server)
    end))
  end)

  describe("a cancelled request", function()
    it("is safe at any moment", with_server({}, function(server, client, url)
      for i = 1, 20 do
        local asking = task.spawn(client.get, client, url)
        if i > 10 then task.sleep(0.001 * (i - 10)) end
        asking:cancel()
        asking:join { timeout = DEADLINE }
        assert.equal("cancelled", asking:status())
      end
      serve(server, echo)
      assert.equal("alive", assert(client:post(url, { body = "alive" })).body)
    end))

    it("is ended by a time-out around it", with_server({}, function(_, client, url)
      local result, _, code = task.within(0.02, client.get, client, url)
      assert.is_nil(result)
      assert.equal("TIMEDOUT", code)
    end))

    it("ends as LOST when the client is closed", with_server({}, function(server, client, url)
      local asking = task.spawn(client.get, client, url)
      assert(server:accept { timeout = DEADLINE })
      client:close()
      local response, message, code = asking:join { timeout = DEADLINE }
      assert.is_nil(response)
      assert.matches("the client was closed", message)
      assert.equal("LOST", code)
      client:close()
    end))
  end)

  describe("a server", function()
    it("tells why it cannot listen", with_server({}, function(server)
      local other, message, code = http.server { port = server:port() }
      assert.is_nil(other)
      assert.equal("IN_USE", code)
      assert.matches(tostring(server:port()), message)
      assert.equal("ADDRESS", select(3, http.server { host = "nobody.invalid" }))
      assert.equal("LISTEN", select(3, http.server { host = "192.0.2.1" }))
    end))

    it("listens on IPv6 too where there is one", with_server({}, function(_, client)
      local server <close>, _, code = http.server { host = "::1" }
      if not server then
        assert.equal("LISTEN", code)
        return
      end
      serve(server, echo)
      assert.equal("six", assert(client:post(server:url(), { body = "six" })).body)
    end))

    it("gives up accepting in time and keeps what comes later", with_server({}, function(server, client, url)
      assert.same({ nil, "timed out", "TIMEDOUT" }, { server:accept { timeout = 0.01 } })
      local asking = task.spawn(client.get, client, url .. "/later")
      local request = assert(server:accept { timeout = DEADLINE })
      assert.equal("/later", request.path)
      request:respond()
      assert.equal(200, assert(asking:join { timeout = DEADLINE }).status)
    end))

    it("hands requests out in order, one to each task that waits", with_server({}, function(server, client, url)
      local seen = {}
      local accepting = {}
      for i = 1, 3 do
        accepting[i] = task.spawn(function()
          local request = assert(server:accept { timeout = DEADLINE })
          seen[i] = request.path
          request:respond()
        end)
      end
      task.sleep(0)
      accepting[2]:cancel()
      accepting[2]:join { timeout = DEADLINE }
      assert(client:get(url .. "/1"))
      assert(client:get(url .. "/2"))
      assert.same({ [1] = "/1", [3] = "/2" }, seen)
    end))

    local limited = { max_body = 1000 }
    it("answers 413 to a body above its limit and serves on", with_server(limited, function(server, client, url)
      serve(server, echo)
      assert.equal(1000, #assert(client:post(url, { body = ("x"):rep(1000) })).body)
      for _, size in ipairs { 1001, 4000 } do
        assert.equal(413, assert(client:post(url, { body = ("x"):rep(size) })).status)
      end
      assert.equal(1000, #assert(client:post(url, { body = ("x"):rep(1000) })).body)
    end))

    it("answers 500 to a request that the script forgot", with_server({}, function(server, client, url)
      local asking = task.spawn(client.get, client, url, { timeout = DEADLINE })
      assert(server:accept { timeout = DEADLINE })
      collectgarbage()
      collectgarbage()
      assert.equal(500, assert(asking:join { timeout = DEADLINE }).status)
    end))

    it("answers once", with_server({}, function(server, client, url)
      local asking = task.spawn(client.get, client, url)
      local request = assert(server:accept { timeout = DEADLINE })
      request:respond { status = 204 }
      assert.has_error(function() request:respond {} end)
      assert.has_error(function() request:drop() end)
      assert.equal(204, assert(asking:join { timeout = DEADLINE }).status)
    end))

    it("turns a failing handler into 500 and tells it", with_server({}, function(server, client, url)
      local told = {}
      task.spawn(function()
        server:serve(function(request)
          if request.path == "/error" then error("broken rule") end
          if request.path == "/bad" then return { status = 1 } end
          if request.path == "/own" then request:respond { body = "own" } end
        end, function(message, request) told[request.path] = message end)
      end)
      for _, path in ipairs { "/error", "/bad", "/nothing" } do
        local response = assert(client:get(url .. path))
        assert.equal(500, response.status)
        assert.equal("internal error\n", response.body)
      end
      assert.equal("own", assert(client:get(url .. "/own")).body)
      assert.matches("http_spec%.lua:%d+: broken rule", told["/error"])
      assert.matches("option 'status'", told["/bad"])
      assert.matches("no answer", told["/nothing"])
      assert.is_nil(told["/own"])
    end))

    it("closes with requests pending: LOST there, CLOSED here", with_server({}, function(server, client, url)
      local asking = {}
      for i = 1, 3 do asking[i] = task.spawn(client.post, client, url, { body = "x" }) end
      local held = assert(server:accept { timeout = DEADLINE })
      local waiting = assert(http.server())
      local accepting = task.spawn(waiting.accept, waiting)
      task.sleep(0)
      waiting:close()
      assert.same({ nil, "http server closed", "CLOSED" }, { accepting:join { timeout = DEADLINE } })
      server:close()
      for i = 1, 3 do
        local response, _, code = asking[i]:join { timeout = DEADLINE }
        assert.is_nil(response)
        assert.equal("LOST", code)
      end
      held:respond { body = "to nobody" }
    end))

    it("may be collected in use", function()
      task.run(function()
        local server = assert(http.server())
        local client = assert(http.client())
        task.spawn(client.get, client, server:url())
        assert(server:accept { timeout = DEADLINE })
      end)
      collectgarbage()
      collectgarbage()
      task.run(function() task.sleep(0) end)
      assert.equal(0, task.handles())
    end)
  end)

  describe("TLS", function()
    local directory, child, port

    local function openssl(command, options)
      options = options or {}
      options.command = { "openssl", table.unpack(command) }
      options.stderr = "null"
      return assert(process.spawn(options))
    end

    setup(function()
      directory = os.tmpname()
      os.remove(directory)
      task.run(function()
        assert(os.execute("mkdir -m 700 " .. directory))
        local made = openssl { "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
          "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
          "-keyout", directory .. "/key.pem",
          "-out", directory .. "/cert.pem" }
        assert.equal(0, assert(made:wait { timeout = DEADLINE }).code)
      end)
    end)

    -- s_server's -www answers every request with a page of its own. Runs fn with its port.
    local function with_tls(fn)
      task.run(function()
        child = openssl({ "s_server", "-accept", "127.0.0.1:0", "-naccept", "10", "-www", "-cert", directory .. "/cert.pem",
          "-key", directory .. "/key.pem" }, { stdout = "pipe" })
        local seen = ""
        repeat
          seen = seen .. assert(child:read { stream = "stdout", timeout = DEADLINE })
          port = seen:match("ACCEPT [^\n]*:(%d+)\n")
        until port
        local ok, message = pcall(fn)
        child:kill("KILL")
        child:wait { timeout = DEADLINE }
        child:close()
        assert(ok, message)
      end)
    end

    teardown(function()
      os.remove(directory .. "/key.pem")
      os.remove(directory .. "/cert.pem")
      os.remove(directory)
    end)

    it("refuses a self-signed certificate, unless its CA file is given", function()
      with_tls(function()
        local url = ("https://127.0.0.1:%s/"):format(port)
        local stranger <close> = assert(http.client())
        local response, message, code = stranger:get(url, { timeout = DEADLINE })
        assert.is_nil(response)
        assert.equal("TLS", code)
        assert.matches("self.signed", message)
        local friend <close> = assert(http.client { ca_file = directory .. "/cert.pem" })
        assert.equal(200, assert(friend:get(url, { timeout = DEADLINE })).status)
      end)
      assert.equal(0, task.handles())
    end)

    it("refuses a certificate for another name, and a CA file that is none", function()
      with_tls(function()
        local friend <close> = assert(http.client { ca_file = directory .. "/cert.pem" })
        local response, _, code = friend:get(("https://localhost:%s/"):format(port), { timeout = DEADLINE })
        assert.is_nil(response)
        assert.equal("TLS", code)
        local confused <close> = assert(http.client { ca_file = directory .. "/none.pem" })
        response, _, code = confused:get(("https://127.0.0.1:%s/"):format(port), { timeout = DEADLINE })
        assert.is_nil(response)
        assert.equal("TLS", code)
      end)
      assert.equal(0, task.handles())
    end)
  end)
end)
