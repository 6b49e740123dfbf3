--- What is going to happen: items ordered by time, then by the order in which they were planned. Plain data.
local heap = {}

local function before(a, b)
  return a.at < b.at or (a.at == b.at and a.seq < b.seq)
end

function heap.push(list, item)
  local i = #list + 1
  list[i] = item
  while i > 1 do
    local parent = i // 2
    if not before(item, list[parent]) then
      break
    end
    list[i], list[parent] = list[parent], item
    i = parent
  end
end

function heap.pop(list)
  local top, count = list[1], #list
  local item = list[count]
  list[count] = nil
  count = count - 1
  if count == 0 then
    return top
  end
  local i = 1
  while true do
    local child = i * 2
    if child > count then
      break
    end
    if child < count and before(list[child + 1], list[child]) then
      child = child + 1
    end
    if not before(list[child], item) then
      break
    end
    list[i] = list[child]
    i = child
  end
  list[i] = item
  return top
end

return heap
