require "spec.helper"
local environment = require "rouse.config.environment"

-- What Code Engine and a binding to Event Streams set for the first observer.
local function seed(changes)
  local env = {
    MESSAGEHUB_KAFKA_BROKERS_SASL = '["broker-0.example.com:9093","broker-1.example.com:9093"]',
    MESSAGEHUB_USER = "token", MESSAGEHUB_PASSWORD = "kafka-key", IAM_API_KEY = "iam-key",
    CE_PROJECT_ID = "4e49b3e0-27a8-48d2-a784-c7ee48bb863b", CE_REGION = "eu-de",
    CE_API_BASE_URL = "https://api.private.eu-de.codeengine.cloud.ibm.com",
    kafkadata = "payments: {jobs: [payments-consumer]}",
  }
  for name, value in pairs(changes or {}) do
    env[name] = value or nil
  end
  return env
end

local function files(contents)
  return function(path)
    if contents[path] then
      return contents[path]
    end
    return nil, path .. ": No such file or directory"
  end
end

local function names(found)
  local list = {}
  for i, problem in ipairs(found or {}) do
    list[i] = problem.name
  end
  return list
end

local function observer(changes, how)
  return environment.observer(seed(changes), how)
end

describe("environment.observer", function()
  it("reads the first observer's environment", function()
    local settings = assert(observer())
    assert.equal("broker-0.example.com:9093,broker-1.example.com:9093", settings.brokers)
    assert.equal("token", settings.user)
    assert.same({ base_url = "https://api.private.eu-de.codeengine.cloud.ibm.com",
      project = "4e49b3e0-27a8-48d2-a784-c7ee48bb863b", region = "eu-de" }, settings.codeengine)
    assert.same({ endpoint = "https://iam.cloud.ibm.com", api_key = "iam-key" }, settings.iam)
    assert.same({ text = "payments: {jobs: [payments-consumer]}", file = "kafkadata" }, settings.kafkadata)
    assert.is_nil(settings.claims_group)
    assert.same({}, settings.notes)
    table.sort(settings.secrets)
    assert.same({ "iam-key", "kafka-key" }, settings.secrets)
  end)

  it("lists everything missing at once, and what it is for", function()
    local settings, found = environment.observer({ MESSAGEHUB_USER = " " })
    assert.is_nil(settings)
    assert.same({ "MESSAGEHUB_KAFKA_BROKERS_SASL", "MESSAGEHUB_USER", "MESSAGEHUB_PASSWORD",
      "CE_API_BASE_URL", "CE_PROJECT_ID", "IAM_API_KEY", "kafkadata" }, names(found))
    for i, line in ipairs(environment.lines(found)) do
      assert.matches("^" .. found[i].name .. " is not set: %w.+", line)
    end
  end)

  it("lists wrong values with the missing ones", function()
    local _, found = observer { MESSAGEHUB_KAFKA_BROKERS_SASL = "[]", MESSAGEHUB_PASSWORD = false,
      CE_API_BASE_URL = "eu-de", JOB_INDEX = "one", CE_PROJECT_ID = "a/b", ROUSE_KAFKA = "x" }
    assert.same({ "ROUSE_KAFKA entry 1 is not name=value; expected properties as name=value;name=value",
      "MESSAGEHUB_KAFKA_BROKERS_SASL names no broker, expected HOST:PORT, more of them separated by commas",
      "MESSAGEHUB_PASSWORD is not set: Kafka's password (Event Streams: an API key), or "
        .. "MESSAGEHUB_PASSWORD_FILE, a file with it",
      "JOB_INDEX is 'one', expected a whole number of 0 or more",
      "CE_API_BASE_URL is 'eu-de', expected a URL like https://HOST",
      "CE_PROJECT_ID is 'a/b', expected an id" }, environment.lines(found))
  end)

  for given, expected in pairs {
    ["https://api.x.com"] = "https://api.x.com", ["https://api.x.com/"] = "https://api.x.com",
    ["https://api.x.com/v2"] = "https://api.x.com", ["https://api.x.com/v2/"] = "https://api.x.com",
    ["http://localhost:8080"] = "http://localhost:8080",
  } do
    it("takes CE_API_BASE_URL=" .. given, function()
      assert.equal(expected, assert(observer { CE_API_BASE_URL = given }).codeengine.base_url)
    end)
  end

  it("builds the address from CE_REGION, never from a default", function()
    local settings = assert(observer { CE_API_BASE_URL = false })
    assert.equal("https://api.eu-de.codeengine.cloud.ibm.com", settings.codeengine.base_url)
    local _, found = observer { CE_API_BASE_URL = "", CE_REGION = false }
    assert.same({ "CE_API_BASE_URL" }, names(found))
    _, found = observer { CE_API_BASE_URL = false, CE_REGION = "evil.com/" }
    assert.same({ "CE_REGION" }, names(found))
  end)

  it("takes another IAM endpoint, with or without its path", function()
    for _, url in ipairs { "http://127.0.0.1:8080", "http://127.0.0.1:8080/",
      "http://127.0.0.1:8080/identity/token" } do
      assert.equal("http://127.0.0.1:8080",
        assert(observer { IBMCLOUD_IAM_API_ENDPOINT = url }).iam.endpoint)
    end
    assert.same({ "IBMCLOUD_IAM_API_ENDPOINT" },
      names(select(2, observer { IBMCLOUD_IAM_API_ENDPOINT = "iam" })))
  end)

  it("takes a trusted profile instead of an API key", function()
    local settings = assert(observer { IAM_API_KEY = false, ROUSE_IAM_PROFILE_NAME = "observer" })
    assert.same({ endpoint = "https://iam.cloud.ibm.com", profile_name = "observer" }, settings.iam)
    settings = assert(observer { IAM_API_KEY = false, ROUSE_IAM_PROFILE_ID = "Profile-1",
      ROUSE_CR_TOKEN_FILE = "/t" })
    assert.equal("Profile-1", settings.iam.profile_id)
    assert.equal("/t", settings.iam.cr_token_file)
    settings = assert(observer { ROUSE_IAM_PROFILE_ID = "Profile-1" })
    assert.is_nil(settings.iam.profile_id)
    assert.same({ "IAM_API_KEY is used, the trusted profile is not" }, settings.notes)
  end)

  it("takes secrets from files", function()
    local settings = assert(observer({
      MESSAGEHUB_PASSWORD = false, MESSAGEHUB_PASSWORD_FILE = "/kafka",
      IAM_API_KEY = false, IAM_API_KEY_FILE = "/iam",
    }, { read = files { ["/kafka"] = "from-file\n", ["/iam"] = " key \n" } }))
    assert.equal("from-file", settings.kafka.environment["sasl.password"])
    assert.equal("key", settings.iam.api_key)
  end)

  it("says what is wrong with a secret's file, once", function()
    local _, found = observer({
      MESSAGEHUB_PASSWORD = false, MESSAGEHUB_PASSWORD_FILE = "/nowhere",
      MESSAGEHUB_USER_FILE = "/user", IAM_API_KEY = false, IAM_API_KEY_FILE = "/empty",
    }, { read = files { ["/empty"] = "\n" } })
    assert.same({
      "MESSAGEHUB_USER is set and so is MESSAGEHUB_USER_FILE, expected one of them",
      "MESSAGEHUB_PASSWORD_FILE cannot be read: /nowhere: No such file or directory",
      "IAM_API_KEY_FILE names an empty file: /empty",
    }, environment.lines(found))
  end)

  it("reads kafkadata from a file, which wins and can be watched", function()
    local settings = assert(observer({ ROUSE_KAFKADATA = "/etc/routes" },
      { read = files { ["/etc/routes"] = "a: {jobs: [b]}" } }))
    assert.same({ text = "a: {jobs: [b]}", file = "/etc/routes", path = "/etc/routes" }, settings.kafkadata)
    local _, found = observer({ ROUSE_KAFKADATA = "/nowhere" }, { read = files {} })
    assert.same({ "ROUSE_KAFKADATA" }, names(found))
  end)

  it("needs neither kafkadata nor Code Engine when the script says otherwise", function()
    local routes = { { topic = "a", jobs = { { name = "x" } } } }
    local env = { MESSAGEHUB_KAFKA_BROKERS_SASL = "b:1", ROUSE_KAFKA = "security.protocol=plaintext" }
    local settings = assert(environment.observer(env,
      { script = { routes = routes, target = { kind = "process" } } }))
    assert.is_nil(settings.codeengine)
    assert.is_nil(settings.kafkadata)
    local _, found = environment.observer(env, { script = { routes = routes } })
    assert.same({ "CE_API_BASE_URL", "CE_PROJECT_ID", "IAM_API_KEY" }, names(found))
  end)

  it("needs no credentials for a protocol without SASL, no brokers named elsewhere", function()
    local settings = assert(observer { MESSAGEHUB_USER = false, MESSAGEHUB_PASSWORD = false,
      MESSAGEHUB_KAFKA_BROKERS_SASL = false,
      ROUSE_KAFKA = "security.protocol=plaintext;bootstrap.servers=localhost:9092" })
    assert.equal("localhost:9092", settings.brokers)
    assert.is_nil(settings.user)
    assert.is_table(observer { MESSAGEHUB_USER = false, MESSAGEHUB_PASSWORD = false,
      ROUSE_KAFKA = "sasl.username=u;sasl.password=p" })
    assert.is_table(observer { MESSAGEHUB_USER = false, MESSAGEHUB_PASSWORD = false,
      ROUSE_KAFKA = "sasl.mechanism=OAUTHBEARER" })
  end)

  it("says that OBSERVER_TICKER has no effect, and takes OBSERVER_CONSUMER_GROUP", function()
    local settings = assert(observer { OBSERVER_TICKER = "500", OBSERVER_CONSUMER_GROUP = "observer-group" })
    assert.matches("^OBSERVER_TICKER has no effect", settings.notes[1])
    assert.equal("observer-group", settings.claims_group)
  end)

  it("refuses properties of ROUSE_KAFKA that Rouse owns", function()
    local _, found = observer { ROUSE_KAFKA = "group.id=x" }
    assert.matches("^ROUSE_KAFKA 'group.id' is owned by Rouse: ", environment.lines(found)[1])
  end)

  it("hands SSL_CERT_FILE to Kafka and HTTP alike", function()
    local settings = assert(observer({ SSL_CERT_FILE = "/ca" }, { read = files { ["/ca"] = "PEM" } }))
    assert.equal("/ca", settings.ca_file)
    assert.equal("/ca", settings.kafka.environment["ssl.ca.location"])
    assert.same({ "SSL_CERT_FILE" },
      names(select(2, observer({ SSL_CERT_FILE = "/nowhere" }, { read = files {} }))))
  end)

  it("never shows a secret", function()
    local _, found = observer { MESSAGEHUB_PASSWORD = "hunter2", IAM_API_KEY = "hunter3",
      MESSAGEHUB_PASSWORD_FILE = "/p", CE_PROJECT_ID = false, ROUSE_KAFKA = "hunter4" }
    assert.is_nil(table.concat(environment.lines(found), "\n"):find("hunter"))
  end)
end)

describe("environment.brokers", function()
  for given, expected in pairs {
    ['["a:9093","b:9093"]'] = "a:9093,b:9093", ['[ "a:9093" , "b:9093" ]'] = "a:9093,b:9093",
    ["a:9093,b:9093"] = "a:9093,b:9093", ["a:9093, b:9093,"] = "a:9093,b:9093",
    ["a:9093 b:9093"] = "a:9093,b:9093", ["[a:9093 b:9093]"] = "a:9093,b:9093",
    ["a:9093\nb:9093\n"] = "a:9093,b:9093", ["localhost"] = "localhost", ["[::1]:9092"] = "[::1]:9092",
    ["SASL_SSL://a:9093"] = "SASL_SSL://a:9093",
  } do
    it(("reads %q"):format(given), function()
      assert.equal(expected, environment.brokers(given))
    end)
  end

  for _, given in ipairs { "", "[]", "a:b", "a:0", "a:70000", "a/b:1", "a:1;b:2" } do
    it(("refuses %q"):format(given), function()
      local brokers, message = environment.brokers(given)
      assert.is_nil(brokers)
      assert.matches("expected HOST:PORT", message)
    end)
  end
end)

describe("environment.consumer", function()
  local function consumer(changes, script)
    local env = seed { KAFKA_TOPIC = "payments", CONSUMER_GROUP = "payments-group", kafkadata = false,
      IAM_API_KEY = false }
    for name, value in pairs(changes or {}) do
      env[name] = value or nil
    end
    return environment.consumer(env, { script = script })
  end

  it("reads the first consumer's environment", function()
    local settings = assert(consumer())
    assert.same({ "payments" }, settings.topics)
    assert.same({ "payments-group", 60, "earliest", "group" },
      { settings.group, settings.idle_exit, settings.reset, settings.assign })
    assert.is_nil(settings.index)
  end)

  it("reads what a run brings", function()
    local settings = assert(consumer { IDLE_TIMEOUT = "2.5", ROUSE_ASSIGN = "index", ROUSE_RESET = "latest",
      JOB_INDEX = "3", JOB_MODE = "daemon", CE_JOBRUN = "run-1", CE_JOB = "payments-consumer" })
    assert.same({ 2.5, "index", "latest", 3, "daemon", "run-1", "payments-consumer" },
      { settings.idle_exit, settings.assign, settings.reset, settings.index, settings.job_mode,
        settings.run, settings.job })
  end)

  it("lets the script win over the environment, but not over a run's ROUSE_RESET", function()
    local script = { topics = { "a", "b" }, group = "g", idle_exit = 1, reset = "latest" }
    local settings = assert(consumer({ IDLE_TIMEOUT = "9" }, script))
    assert.same({ { "a", "b" }, "g", 1, "latest" },
      { settings.topics, settings.group, settings.idle_exit, settings.reset })
    assert.equal("earliest", assert(consumer({ ROUSE_RESET = "earliest" }, script)).reset)
    assert.is_table(consumer({ KAFKA_TOPIC = false, CONSUMER_GROUP = false }, script))
  end)

  it("takes several topics, and a pattern as it is", function()
    assert.same({ "^a{1,3}" }, assert(consumer { KAFKA_TOPIC = "^a{1,3}" }).topics)
    assert.same({ "a", "b" }, assert(consumer { KAFKA_TOPIC = "a, b" }).topics)
  end)

  it("lists everything missing or wrong at once", function()
    local _, found = consumer { MESSAGEHUB_KAFKA_BROKERS_SASL = false, KAFKA_TOPIC = false,
      CONSUMER_GROUP = "", IDLE_TIMEOUT = "-1", ROUSE_ASSIGN = "idx", ROUSE_RESET = "now", JOB_INDEX = "-2" }
    assert.same({ "MESSAGEHUB_KAFKA_BROKERS_SASL", "JOB_INDEX", "KAFKA_TOPIC", "CONSUMER_GROUP",
      "IDLE_TIMEOUT", "ROUSE_RESET", "ROUSE_ASSIGN" }, names(found))
    assert.equal("IDLE_TIMEOUT is '-1', expected seconds, 0 or more", environment.lines(found)[5])
  end)
end)

describe("environment.kafka", function()
  it("gives the properties of a handle", function()
    local result = assert(environment.kafka(seed(), { role = "consumer", script = { debug = "fetch" },
      own = { ["group.id"] = "g" } }))
    assert.same({ "fetch", "g", "kafka-key" }, { result.debug, result["group.id"], result["sasl.password"] })
  end)

  it("gives the problems, or raises on what the script may not set", function()
    local result, found = environment.kafka({}, { role = "query" })
    assert.is_nil(result)
    assert.equal(3, #found)
    assert.has_error(function()
      environment.kafka(seed(), { role = "consumer", script = { ["group.id"] = "x" } })
    end, "kafka: 'group.id' is owned by Rouse: use consume.group or CONSUMER_GROUP")
  end)
end)
