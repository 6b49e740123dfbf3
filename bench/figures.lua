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

function figures.median(values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  return figures.quantile(sorted, 0.5)
end

function figures.milliseconds(seconds)
  return ("%.1f ms"):format(seconds * 1000)
end

--- What /proc says of a process.
---@return integer resident KiB, number seconds of CPU
function figures.usage(pid)
  local function read(name)
    local file = assert(io.open(("/proc/%d/%s"):format(pid, name)))
    local text = file:read "a"
    file:close()
    return text
  end
  local user, kernel = read("stat"):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
  return tonumber(read("status"):match("VmRSS:%s*(%d+)")), (tonumber(user) + tonumber(kernel)) / 100
end

return figures
