---@meta
-- Types of what the library exports from C, for editors. Never loaded.

---@class rouse.json
---@field null userdata JSON's null; tostring gives "null"
local json = {}

---Decodes one document. Integers stay integers, arrays are marked, null is json.null.
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
---@param fields? table<string, any>
function log.debug(message, fields) end

---@param message string
---@param fields? table<string, any>
function log.info(message, fields) end

---@param message string
---@param fields? table<string, any>
function log.warn(message, fields) end

---@param message string
---@param fields? table<string, any>
function log.error(message, fields) end

---Sets what is given, the rest stays.
---@param options {level: "debug"|"info"|"warn"|"error"|nil, format: "auto"|"json"|"text"|nil}
function log.configure(options) end

---Replaces this value by *** in every line from now on, also URL-encoded or in base64.
---@param value string
---@return boolean hidden false when it is shorter than 4 bytes
function log.secret(value) end

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
