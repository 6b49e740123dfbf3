---@meta
-- Types of what the library exports from C, for editors. Never loaded. Handles of Kafka: data types are in rouse.kafka.

---@class rouse
---@field version string
---@field added table<string, table<string, function>> modules that an embedding program added, which scripts may require
local rouse = {}

---Returns a text that was compiled in: "scripts/observer.lua", "resources/kafkadata".
---@param name string
---@return string? text
---@return string? path
function rouse.embedded(name) end

---@class rouse.Task
local task_handle = {}

---Waits for the end of the task.
---@param options? {timeout: number?}|number seconds
---@return any ... what its function returned, or nil, message, code: "ERROR", "CANCELLED", "TIMEDOUT"
function task_handle:join(options) end

---Raises "cancelled" where the task waits, and at every later wait.
function task_handle:cancel() end

---@return "running"|"done"|"failed"|"cancelled"
function task_handle:status() end

---Ends the task's park, or its next one.
function task_handle:unpark() end

---@class rouse.core.task
local task = {}

---Starts a task; its parent is the one that calls.
---@param fn fun(...): any
---@param ... any arguments of fn
---@return rouse.Task
function task.spawn(fn, ...) end

---@param seconds number
---@return true
function task.sleep(seconds) end

---Waits for unpark.
---@param timeout? number seconds; negative or nil: for ever
---@return true? unparked
---@return string? message
---@return "TIMEDOUT"? code
function task.park(timeout) end

---@return rouse.Task? task nil outside tasks
function task.current() end

---@return number seconds since the epoch
function task.now() end

---@return number seconds of a clock that never jumps
function task.monotonic() end

---Runs the loop until fn, in a task of its own, has ended. From outside tasks only; raises fn's error.
---@param fn fun(...): any
---@param ... any arguments of fn
---@return any ... results of fn
function task.run(fn, ...) end

---Calls fn under the limits of scripts: CPU between two waits, and memory. The message begins with file:line.
---@param fn fun(...): any
---@param ... any arguments of fn
---@return boolean ok
---@return any ... results of fn, or message, code ("ERROR", "CPU", "MEMORY", "CANCELLED") and traceback
function task.guard(fn, ...) end

---Makes a cursor that calls fn for one item of an array after the other, under the limits of scripts
---each time, for a fraction of the cost of as many guards.
---@param fn fun(item: any, ctx: table): any, any
---@param ctx table its field `now` is kept up to date, to a few milliseconds
---@return rouse.Cursor
function task.cursor(fn, ctx) end

---@class rouse.Cursor
local cursor = {}

---Calls fn for items[first], items[first + 1], ... as long as it returns "done". Also ends after a
---call that waited, and after some seconds, so that the caller can look around.
---@param items any[]
---@param first integer
---@param last integer
---@param seconds number
---@return integer next the first item that is not done
---@return boolean? ok nil when all calls were done, else what guard returns for items[next]
---@return any ...
function cursor:run(items, first, last, seconds) end

---@return integer index the item under way: those before it are done
function cursor:at() end

---For specs that look for leaks.
---@return integer handles active on the loop
---@return integer tasks
function task.handles() end

---@return integer used bytes
---@return integer limit bytes, 0: none
function task.memory() end

---coroutine.create for scripts: under the limits of the task that runs it.
---@param fn fun(...): any
---@return thread
function task.cocreate(fn) end

---@class rouse.Signals
local signals = {}

---Waits for the next signal; those that came before are queued.
---@param options? {timeout: number?}|number seconds
---@return "TERM"|"INT"|"HUP"|string|nil name
---@return string? message
---@return "TIMEDOUT"? code
function signals:wait(options) end

function signals:close() end

---@class rouse.core.sys
local sys = {}

---@return table<string, string> environment
function sys.environ() end

---Reads a whole file, of at most 64 MiB.
---@param path string
---@return string? content
---@return string? message
---@return "ENOENT"|"EACCES"|"EISDIR"|"EIO"|nil code
function sys.read_file(path) end

---@param path string
---@return boolean
function sys.exists(path) end

---@param fd integer
---@return boolean
function sys.isatty(fd) end

---@return number from 0, below 1
function sys.random() end

---@return string
function sys.hostname() end

---@return integer
function sys.pid() end

---@return string? path of the running program
---@return string? message
---@return string? code
function sys.executable() end

---Gives memory that was freed back to the system.
function sys.trim() end

---Has all threads of the process allocate from the same memory, which saves what each would keep for itself.
function sys.share_memory() end

---Writes at once, past every buffer.
---@param fd integer
---@param text string
---@return true?
---@return string? message
---@return string? code
function sys.write(fd, text) end

---Takes these signals from the system from now on, until it is closed.
---@param names string[] "TERM", "INT", ...
---@return rouse.Signals
function sys.signals(names) end

---@class rouse.consumer : userdata
local consumer = {}

---Joins the group for topics, or patterns beginning with ^. {} leaves it.
---@param topics string[]
---@return true?
---@return string? message
---@return string? code
function consumer:subscribe(topics) end

---Consumes exactly these; without an offset from the commit.
---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:assign(list) end

---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:incremental_assign(list) end

---What was read of them and not yet polled is dropped.
---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:incremental_unassign(list) end

---@return rouse.list?
---@return string? message
---@return string? code
function consumer:assignment() end

---The flag outlives a new assignment. Up to one event may still come.
---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:pause(list) end

---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:resume(list) end

---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:seek(list) end

---Waits for what comes next. One task at a time. Poll always, also while partitions are paused: rebalances and errors come
---this way.
---@param options? {max?: integer, max_bytes?: integer, timeout?: number} 500 records, 8 MiB
---@return rouse.event?
---@return string? message
---@return "TIMEDOUT"|"CLOSED"|nil code
function consumer:poll(options) end

---Sets offsets that the next commit() takes; offset = next to consume.
---@param list rouse.list
---@return true?
---@return string? message
---@return string? code
function consumer:store(list) end

---Without a list what was stored; {} when there was nothing.
---@param list? rouse.list
---@param options? rouse.wait
---@return rouse.list?
---@return string? message
---@return string? code
function consumer:commit(list, options) end

---@param list rouse.list
---@param options? rouse.wait
---@return rouse.list? list an item without a commit has no offset
---@return string? message
---@return string? code
function consumer:committed(list, options) end

---Next to be polled; also past what holds no record.
---@param list rouse.list
---@return rouse.list?
---@return string? message
---@return string? code
function consumer:position(list) end

---Leaves the group. Without it the collector does, in the background.
---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
function consumer:close(options) end

---@class rouse.producer : userdata
local producer = {}

---Waits for the delivery.
---@param record rouse.produce
---@return {partition: integer, offset: integer}? place
---@return string? message
---@return string? code
function producer:produce(record) end

---Produces an array of records and waits once, until each is delivered or has failed.
---@param records rouse.produce[]
---@param options? rouse.wait
---@return rouse.list? places in the records' order
---@return string? message says how many were not delivered
---@return string? code
---@return rouse.list? places with the failure: an offset or an error for each
function producer:produce_all(records, options) end

---Only queues. Waits where the queue is full; outside tasks or with timeout 0 that is "_QUEUE_FULL".
---@param record rouse.produce
---@return true?
---@return string? message
---@return string? code
function producer:send(record) end

---Registers the transactional.id and fences whoever had it before. Once, before the first begin.
---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
---@return rouse.failure? means
function producer:init_transactions(options) end

---Begins a transaction; what is produced from now on belongs to it. Does not wait.
---@return true?
---@return string? message
---@return string? code
---@return rouse.failure? means
function producer:begin() end

---Makes a group's offsets part of the transaction. With its consumer, the broker refuses them once that is no member any
---more; with the name alone it does not look at members.
---@param options {offsets: rouse.list, consumer?: rouse.consumer, group?: string, timeout?: number}
---@return true?
---@return string? message
---@return string? code
---@return rouse.failure? means
function producer:send_offsets(options) end

---Delivers what was produced and commits.
---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
---@return rouse.failure? means
function producer:commit(options) end

---Throws away what was produced since begin.
---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
---@return rouse.failure? means
function producer:abort(options) end

---Waits until nothing is outstanding; fails if something sent was not delivered.
---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
function producer:flush(options) end

---@return integer records not yet delivered
function producer:outstanding() end

---Delivers what is queued first.
---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
function producer:close(options) end

---@class rouse.admin : userdata
local admin = {}

---Never creates a topic.
---@param options? {topics?: string[], timeout?: number} without topics all
---@return rouse.metadata?
---@return string? message
---@return string? code
function admin:metadata(options) end

---In the order asked, an offset or an error each; by the property isolation.level.
---@param options rouse.offsets
---@return rouse.list?
---@return string? message
---@return string? code
function admin:offsets(options) end

---In the cluster's order; an item without a commit has no offset.
---@param options rouse.groupoffsets
---@return rouse.list?
---@return string? message
---@return string? code
function admin:group_offsets(options) end

---For groups without members.
---@param options rouse.groupoffsets with an offset in each item
---@return rouse.list?
---@return string? message
---@return string? code
function admin:alter_group_offsets(options) end

---Not against the mock cluster.
---@param options {groups: string[], timeout?: number}
---@return table<string, rouse.group>?
---@return string? message
---@return string? code
function admin:describe_groups(options) end

---Waits for an error of the handle. One task at a time.
---@param options? rouse.wait
---@return rouse.event?
---@return string? message
---@return "TIMEDOUT"|"CLOSED"|nil code
function admin:poll(options) end

---@param options? rouse.wait
---@return true?
---@return string? message
---@return string? code
function admin:close(options) end

---@class rouse.kafka.mock : userdata librdkafka's mock cluster; its methods return true, or nil, message, code
local mock = {}

---@return string "HOST:PORT,..."
function mock:bootstrap_servers() end

---@param topic {name: string, partitions?: integer, replication?: integer}
function mock:create_topic(topic) end

---The next requests of an API are answered with these errors, one each.
---@param fault {api: string|integer, errors: string[]} "Fetch", or its number
function mock:fail(fault) end

---Every request for a topic is answered with this error until it is set to nil.
---@param fault {topic: string, error?: string}
function mock:topic_error(fault) end

---@param broker integer
function mock:broker_down(broker) end

---@param broker integer
function mock:broker_up(broker) end

---Delays every answer of a broker.
---@param broker integer
---@param seconds number
function mock:rtt(broker, seconds) end

---@param change {topic: string, partition?: integer, broker?: integer} without a broker there is no leader
function mock:set_leader(change) end

---@param change {group: string, broker?: integer}
function mock:set_coordinator(change) end

---Ends the cluster in the background.
function mock:close() end

---Lua's pattern functions, which the CPU budget of scripts can end. In the program they are those of `string`.
---@class rouse.core.pattern
local patterns = {}

---@param text string
---@param source string
---@param init? integer
---@param plain? boolean
---@return integer? first
---@return integer? last
---@return string|integer ... captures
function patterns.find(text, source, init, plain) end

---@param text string
---@param source string
---@param init? integer
---@return string|integer|nil ... captures, or the match
function patterns.match(text, source, init) end

---@param text string
---@param source string
---@param init? integer
---@return fun(): string|integer|nil ...
function patterns.gmatch(text, source, init) end

---@param text string
---@param source string
---@param replacement string|number|table|fun(...): any
---@param most? integer
---@return string text
---@return integer count
function patterns.gsub(text, source, replacement, most) end

---@class rouse.core.kafka what rouse.kafka wraps
local kafka = {}

---@param options {properties: rouse.properties, headers?: boolean}
---@return rouse.consumer?
---@return string? message
---@return "CONFIG"? code
function kafka.consumer(options) end

---@param options {properties: rouse.properties}
---@return rouse.producer?
---@return string? message
---@return "CONFIG"? code
function kafka.producer(options) end

---@param options {properties: rouse.properties}
---@return rouse.admin?
---@return string? message
---@return "CONFIG"? code
function kafka.admin(options) end

---@param options? {brokers?: integer, topics?: {name: string, partitions?: integer}[], properties?: rouse.properties}
---@return rouse.kafka.mock?
---@return string? message
---@return string? code
function kafka.mock(options) end

---@param pattern string POSIX extended regular expression
---@param name string
---@return boolean? matches
---@return string? message
---@return "PATTERN"? code
function kafka.match(pattern, name) end

---@return string table librdkafka's properties, one a line that begins with its name
function kafka.properties() end

---@return string version of librdkafka
function kafka.version() end

---@class rouse.core.http.Client : userdata
local http_client = {}

---@param options rouse.http.RequestOptions without query and json
---@return rouse.http.Response?
---@return string? message
---@return "URL"|"RESOLVE"|"CONNECT"|"TLS"|"TIMEDOUT"|"LOST"|"TOO_LARGE"|nil code
function http_client:request(options) end

---Requests that still run end as LOST.
function http_client:close() end

---@class rouse.core.http.Server : userdata
local http_server = {}

---@param options? {timeout?: number}
---@return rouse.core.http.Request? request
---@return table|string|nil received method, target, headers, body; or the message
---@return "TIMEDOUT"|"CLOSED"|nil code
function http_server:accept(options) end

---@return integer
function http_server:port() end

function http_server:close() end

---@class rouse.core.http.Request : userdata
local http_request = {}

---Answers. A request is answered once.
---@param answer? {status?: integer, headers?: table<string, string|number>, body?: string}
---@return true?
---@return string? message
---@return string? code
function http_request:respond(answer) end

---Closes the connection without an answer.
function http_request:drop() end

---@class rouse.core.http what rouse.http wraps
local http = {}

---@param options? {ca_file?: string, user_agent?: string, max_response?: integer}
---@return rouse.core.http.Client?
---@return string? message
---@return string? code
function http.client(options) end

---@param options? {host?: string, port?: integer, max_body?: integer, max_connections?: integer, idle_timeout?: integer}
---@return rouse.core.http.Server?
---@return string? message
---@return "ADDRESS"|"IN_USE"|"DENIED"|"LISTEN"|nil code
function http.server(options) end

---@class rouse.json
---@field null userdata JSON's null; tostring gives "null"
local json = {}

---Decodes one document. Integers stay integers, arrays are marked, null is json.null.
---Parsing takes memory outside the scripts' limit; a text that could need more than 128 MiB is refused.
---@param text string
---@return any value
---@return string? message with line and column
---@return "JSON"? code
function json.decode(text) end

---Encodes a value; raises, naming the place in it, when JSON has no form for it.
---@param value any
---@param options? {sorted: boolean?} sorted: keys in byte order
---@return string
function json.encode(value, options) end

---Marks a table as an array, so that it encodes as one even when it is empty.
---@param t? table
---@return table t
function json.array(t) end

---Whether a value is a table marked as an array.
---@param value any
---@return boolean
function json.is_array(value) end

---@class rouse.yaml.Node
---@field kind "scalar"|"map"|"seq"
---@field line integer from 1
---@field column integer from 1, in characters
---@field tag? string explicit tag
---@field value? string scalar: its text
---@field plain? boolean scalar: without quotes, block style or tag
---@field items? rouse.yaml.Node[] seq
---@field pairs? {key: rouse.yaml.Node, value: rouse.yaml.Node}[] map, in order, duplicates included

---@class rouse.yaml
local yaml = {}

---Parses one document.
---@param text string
---@return rouse.yaml.Node? node
---@return string? message
---@return "YAML"|"EMPTY"|nil code
---@return integer? line
---@return integer? column
function yaml.parse(text) end

---@class rouse.log
local log = {}

---@param message string
---@param fields? table<string, any>|rouse.record
function log.debug(message, fields) end

---@param message string
---@param fields? table<string, any>|rouse.record
function log.info(message, fields) end

---@param message string
---@param fields? table<string, any>|rouse.record
function log.warn(message, fields) end

---@param message string
---@param fields? table<string, any>|rouse.record
function log.error(message, fields) end

---Sets what is given, the rest stays.
---@param options {level: "debug"|"info"|"warn"|"error"|nil, format: "auto"|"json"|"text"|nil}
function log.configure(options) end

---Replaces this value by *** in every line from now on, also URL-encoded or in base64.
---@param value string
---@return boolean hidden false when it is shorter than 4 bytes
function log.secret(value) end

---Returns the fields of a line that say where a record is, and nothing of what is in it.
---@param record rouse.record
---@return table fields
function log.place(record) end

---Returns the text with *** for every secret.
---@param text string
---@return string
function log.redact(text) end

---@alias rouse.process.Stdio "inherit"|"null"|"pipe"

---@class rouse.process.Options
---@field command string[] program (looked up in the child's PATH) and arguments
---@field env? table<string, string|number> the whole environment; default: this process's
---@field cwd? string
---@field stdin? rouse.process.Stdio default "null"
---@field stdout? rouse.process.Stdio default "inherit"
---@field stderr? rouse.process.Stdio default "inherit"
---@field group? boolean a session of its own: signals reach all that it starts, and its end is their end

---@class rouse.process
local process = {}

---Starts a child process, which does not outlive its handle.
---@param options rouse.process.Options
---@return rouse.process.Child? child
---@return string? message
---@return string? code errno name
function process.spawn(options) end

---@class rouse.process.Child
local child = {}

---@return integer
function child:pid() end

---Waits for the end. A child ended by a signal has code 128 + its number.
---@param options? {timeout: number?}
---@return {code: integer, signal: string?}? status
---@return string? message
---@return "TIMEDOUT"|"CLOSED"|nil code
function child:wait(options) end

---Waits for output, at most 64 KiB of it.
---@param options? {stream: "stdout"|"stderr"|nil, timeout: number?}
---@return string? chunk
---@return string? message
---@return "EOF"|"TIMEDOUT"|"CLOSED"|nil code
function child:read(options) end

---Waits until all of the data is in the pipe. After a time-out it still goes there.
---@param data string
---@param options? {timeout: number?}
---@return true?
---@return string? message
---@return string? code
function child:write(data, options) end

---Gives the child the end of its input.
function child:close_stdin() end

---@param name string "TERM" or "SIGTERM"
---@return true?
---@return string? message
---@return string? code "ESRCH": it has ended
function child:kill(name) end

---Ends the child with SIGKILL if it is alive; waits of other tasks end with "CLOSED".
function child:close() end
