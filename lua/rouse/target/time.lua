--- Points in time as HTTP services write them. Pure; times are Unix epoch seconds.
local time = {}

local MONTHS = {
  Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6,
  Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12,
}

-- Days from 1970-01-01 in the proleptic Gregorian calendar (os.time would apply the local time
-- zone).
local function days(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local year_of_era = year - era * 400
  local shifted = month + (month > 2 and -3 or 9)
  local day_of_year = (153 * shifted + 2) // 5 + day - 1
  local day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
  return era * 146097 + day_of_era - 719468
end

local function epoch(year, month, day, hour, minute, second)
  if month < 1 or month > 12 or day < 1 or day > 31 then return nil end
  if hour > 24 or minute > 59 or second > 60 then return nil end
  return days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
end

--- Reads an RFC 3339 time, with any fraction and offset.
---@param text any
---@return number? seconds nil for anything else
function time.from_rfc3339(text)
  if type(text) ~= "string" then return nil end
  local year, month, day, hour, minute, second, rest =
    text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$")
  if not year then return nil end
  local fraction, zone = rest:match("^(%.%d+)(.*)$")
  zone = zone or rest
  local offset = 0
  if zone ~= "Z" and zone ~= "z" then
    local sign, hours, minutes = zone:match("^([+-])(%d%d):(%d%d)$")
    if not sign then return nil end
    offset = math.tointeger(hours) * 3600 + math.tointeger(minutes) * 60
    if sign == "-" then offset = -offset end
  end
  local whole = epoch(math.tointeger(year), math.tointeger(month), math.tointeger(day),
    math.tointeger(hour), math.tointeger(minute), math.tointeger(second))
  if not whole then return nil end
  return whole - offset + (fraction and tonumber("0" .. fraction) or 0)
end

--- Writes an RFC 3339 time in UTC, whole seconds.
---@param seconds number
---@return string
function time.to_rfc3339(seconds)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(seconds)) --[[@as string]]
end

--- Reads an HTTP date in its preferred form ("Sun, 06 Nov 1994 08:49:37 GMT").
---@param text any
---@return integer? seconds nil for anything else
function time.from_http_date(text)
  if type(text) ~= "string" then return nil end
  local day, month, year, hour, minute, second =
    text:match("^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not day or not MONTHS[month] then return nil end
  return epoch(math.tointeger(year), MONTHS[month], math.tointeger(day),
    math.tointeger(hour), math.tointeger(minute), math.tointeger(second))
end

--- Writes an HTTP date. English names whatever the locale.
---@param seconds number
---@return string
function time.to_http_date(seconds)
  local names = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
  local parts = os.date("!*t", math.floor(seconds)) --[[@as osdate]]
  local month
  for name, number in pairs(MONTHS) do
    if number == parts.month then month = name end
  end
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(names[parts.wday], parts.day, month,
    parts.year, parts.hour, parts.min, parts.sec)
end

return time
