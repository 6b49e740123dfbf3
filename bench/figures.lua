--- What the benchmarks share: settings, quantiles, and how a figure is printed. Nothing here is asserted.
local figures = {}

--- A number from the environment.
function figures.number(name, default)
  return tonumber(os.getenv(name) or "") or default
end

--- Prints a line of the result.
function figures.say(format, ...)
  print(format:format(...))
end

---@param sorted number[] in rising order
---@param q number 0..1
function figures.quantile(sorted, q)
  return sorted[math.max(1, math.ceil(q * #sorted))]
end

---@return number median, number least, number most
function figures.median(values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  return figures.quantile(sorted, 0.5), sorted[1], sorted[#sorted]
end

function figures.milliseconds(seconds)
  return ("%.1f ms"):format(seconds * 1000)
end

local function read(pid, name)
  local file = io.open(("/proc/%d/%s"):format(pid, name))
  local text = file and file:read "a"
  if file then file:close() end
  return text
end

--- What /proc says of a process.
---@return integer resident KiB, number seconds of CPU, integer own KiB of it that are its own, integer mapped that are files
function figures.usage(pid)
  local user, kernel = read(pid, "stat"):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
  local status = read(pid, "status")
  local function kib(name)
    return tonumber(status:match(name .. ":%s*(%d+)"))
  end
  return kib "VmRSS", (tonumber(user) + tonumber(kernel)) / 100, kib "RssAnon", kib "RssFile"
end

--- The most that a process has had in memory so far.
---@return integer? KiB nil when it has ended
function figures.peak(pid)
  return tonumber((read(pid, "status") or ""):match("VmHWM:%s*(%d+)"))
end

--- Runs contestants in turn, each once a round, and each round begins with another one, so that a machine that slows down or
--- a neighbour that wakes up hits all of them alike.
---@param contestants {name: string, run: fun(): number}[]
---@param rounds integer
---@return table<integer, number[]> results by contestant
function figures.alternate(contestants, rounds)
  local results = {}
  for i = 1, #contestants do results[i] = {} end
  for round = 1, rounds do
    for step = 1, #contestants do
      local i = (round + step - 2) % #contestants + 1
      table.insert(results[i], contestants[i].run())
    end
  end
  return results
end

return figures
