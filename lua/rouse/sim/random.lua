--- A small generator of its own (splitmix64), so that a seed means the same schedule on every machine. Plain data: a copied
--- generator goes on where the original was.
local Random = { __name = "rouse.sim.random" }
Random.__index = Random

local random = {}

---@param seed integer
---@param label string? streams of the same seed with different labels are independent
function random.new(seed, label)
  local state = seed * 0x9E3779B97F4A7C15
  for i = 1, #(label or "") do
    state = (state ~ label:byte(i)) * 0x100000001b3
  end
  return setmetatable({ state = state }, Random)
end

function Random:bits()
  self.state = self.state + 0x9E3779B97F4A7C15
  local z = self.state
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return z ~ (z >> 31)
end

--- A number in [0, 1).
function Random:float()
  return (self:bits() >> 11) * 2.0 ^ -53
end

--- A number in [low, high).
function Random:between(low, high)
  return low + (high - low) * self:float()
end

--- A whole number from low to high, both included.
function Random:int(low, high)
  return low + math.tointeger(self:float() * (high - low + 1) // 1)
end

function Random:chance(probability)
  return self:float() < probability
end

function Random:pick(list)
  return list[self:int(1, #list)]
end

return random
