--- The files that something was made from, and whether they are still the same. Content is compared: a mounted config map is a
--- symlink that is swapped, and an editor may write a new file under the old name.
local sys = require "rouse.core.sys"

local Sources = { __name = "rouse.sources" }
Sources.__index = Sources

local sources = {}

---@class rouse.Sources
---@field files table<string, string|false> path → content when it was read; false: it could not be
---@field reader fun(path: string): string?, string? reads a file and remembers it

---@param read (fun(path: string): string?, string?)? default: from the file system
---@return rouse.Sources
function sources.new(read)
  local self = setmetatable({ files = {}, read = read or sys.read_file }, Sources)
  self.reader = function(path)
    local text, message = self.read(path)
    self.files[path] = text or false
    return text, message
  end
  return self
end

--- The path of a file that is not as it was read, or nil.
---@return string?
function Sources:changed()
  for path, known in pairs(self.files) do
    if (self.read(path) or false) ~= known then
      return path
    end
  end
  return nil
end

--- The files that are there, sorted.
---@return string[]
function Sources:paths()
  local list = {}
  for path, text in pairs(self.files) do
    if text then
      list[#list + 1] = path
    end
  end
  table.sort(list)
  return list
end

return sources
