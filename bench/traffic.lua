--- What a process and the broker said to each other so far, from the kernel's counters of its connections (ss of iproute2).
--- A Kafka client writes each request whole, so a request is one data segment on loopback, where a segment holds 64 KB.
local traffic = {}

--- Sums over the process' open connections to a port.
---@param scope table
---@param pid integer
---@param port string
---@return { sent: integer, received: integer, requests: integer }
function traffic.of(scope, pid, port)
  local sum = { sent = 0, received = 0, requests = 0 }
  local text = scope:run("/bin/sh", "-c", "exec ss -Htinp \"$@\"", "sh", "dport", "=", ":" .. port)
  for owners, counters in text:gmatch("(users:[^\n]*)\n([^\n]*)") do
    if owners:find(("pid=%d,"):format(pid), 1, true) then
      for name, field in pairs { sent = "bytes_sent", received = "bytes_received", requests = "data_segs_out" } do
        sum[name] = sum[name] + (tonumber(counters:match("%f[%w_]" .. field .. ":(%d+)")) or 0)
      end
    end
  end
  return sum
end

return traffic
