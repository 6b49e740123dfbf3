require "spec.helper"
local reply = require "rouse.target.reply"

local function failure(operation, status, body, headers)
  return reply.failure(operation, "submit a", { status = status, body = body, headers = headers }, 784111777)
end

describe("a failed answer", function()
  it("is classified by status and operation", function()
    local expected = {
      { "create", 400, "INVALID" }, { "create", 422, "INVALID" }, { "create", 401, "UNAUTHORIZED" },
      { "create", 403, "FORBIDDEN" }, { "create", 404, "NOT_FOUND" }, { "create", 409, "CONFLICT" },
      { "create", 429, "THROTTLED" }, { "create", 500, "AMBIGUOUS" }, { "create", 502, "AMBIGUOUS" },
      { "create", 503, "AMBIGUOUS" }, { "create", 504, "AMBIGUOUS" }, { "create", 408, "AMBIGUOUS" },
      { "create", 418, "INVALID" }, { "create", 302, "UNAVAILABLE" },
      { "list", 500, "UNAVAILABLE" }, { "list", 409, "UNAVAILABLE" }, { "get", 404, "NOT_FOUND" },
      { "get", 503, "UNAVAILABLE" }, { "delete", 502, "UNAVAILABLE" }, { "job", 404, "NOT_FOUND" },
    }
    for _, case in ipairs(expected) do
      local _, code = failure(case[1], case[2])
      assert.equal(case[3], code, case[1] .. " " .. case[2])
    end
  end)

  it("of 403 says both causes, unless it names the quota", function()
    local message, code = failure("create", 403, [[{"errors":[{"code":"forbidden","message":"no"}]}]])
    assert.equal("FORBIDDEN", code)
    assert.matches("Writer", message)
    assert.matches("quota", message)
    message, code = failure("create", 403, [[{"message":"exceeded quota: 100 job runs"}]])
    assert.equal("QUOTA", code)
    assert.equal("submit a: http 403: exceeded quota: 100 job runs", message)
  end)

  it("carries the service's message in the SDKs' order", function()
    local cases = {
      { [[{"errors":[{"code":"c","message":"first"}],"error":"second"}]], "first", "c" },
      { [[{"error":"second","message":"third","code":"c"}]], "second", "c" },
      { [[{"message":"third","errorMessage":"fourth"}]], "third" },
      { [[{"errorCode":"BXNIM0415E","errorMessage":"fourth"}]], "fourth", "BXNIM0415E" },
      { [[{"errors":[],"error":null}]], "Bad Gateway" },
      { [[{"errors":"x","error":{"a":1}}]], "Bad Gateway" },
      { "<html>secret page</html>", "Bad Gateway" },
      { "[1]", "Bad Gateway" }, { "null", "Bad Gateway" }, { "", "Bad Gateway" },
    }
    for _, case in ipairs(cases) do
      local message, code = reply.message { status = 502, body = case[1] }
      assert.equal(case[2], message)
      assert.equal(case[3], code)
    end
    assert.equal("Bad Gateway", (reply.message { status = 502 }))
    assert.equal("no message", (reply.message { status = 599 }))
  end)

  it("says when to come back, in seconds or as a date", function()
    local _, _, after = failure("list", 429, nil, { ["retry-after"] = "17" })
    assert.equal(17, after)
    _, _, after = failure("list", 503, nil, { ["retry-after"] = "Sun, 06 Nov 1994 08:50:07 GMT" })
    assert.equal(30, after)
    _, _, after = failure("list", 429, nil, { ["retry-after"] = "Sun, 06 Nov 1994 08:00:00 GMT" })
    assert.equal(0, after)
    _, _, after = failure("list", 429, nil, { ["retry-after"] = "soon" })
    assert.is_nil(after)
    _, _, after = failure("list", 429, nil, nil)
    assert.is_nil(after)
  end)

  it("is known to the service under an id", function()
    assert.equal("b", reply.request_id { ["x-transaction-id"] = "t", ["x-correlation-id"] = "b" })
    assert.is_nil(reply.request_id { date = "today" })
    assert.is_nil(reply.request_id(nil))
    assert.equal("codeengine-api-1", reply.trace { body = [[{"trace":"codeengine-api-1"}]] })
    assert.is_nil(reply.trace { body = "<html>" })
  end)
end)

describe("a request without an answer", function()
  it("is ambiguous for a create unless nothing was sent", function()
    local expected = {
      CONNECT = "UNAVAILABLE", RESOLVE = "UNAVAILABLE", TLS = "UNAVAILABLE", URL = "INVALID",
      LOST = "AMBIGUOUS", TIMEDOUT = "AMBIGUOUS", TOO_LARGE = "AMBIGUOUS",
    }
    for code, wanted in pairs(expected) do
      local message, got = reply.lost("create", "submit a", "it broke", code)
      assert.equal(wanted, got, code)
      assert.equal("submit a: it broke", message)
    end
  end)

  it("is unavailable for everything else", function()
    for _, code in ipairs { "CONNECT", "LOST", "TIMEDOUT", "TOO_LARGE" } do
      assert.equal("UNAVAILABLE", select(2, reply.lost("list", "list", "it broke", code)))
    end
  end)
end)
