--- What claims mode owes (pure). A claimed record is done for a job when a run submitted after its claim was accepted, or when
--- a run that covered it was seen active late enough after the claim and then completed. Suppressed, covered or failed is not
--- done: the group's committed offset never passes a record still owed to a job.
local claims = {}

--- Records first..last were claimed for the part.
function claims.add(part, first, last, clock)
  local owed = part.owed
  if not owed then
    part.owed = { first = first, last = last, at = clock }
    return
  end
  owed.last, owed.at = last, clock
  owed.cover = nil -- the runs that covered the records before must be seen again after this one
end

--- A submit begins: what is owed now rides on it.
function claims.ride(part)
  if part.owed then
    part.riding, part.owed = part.owed, nil
  end
end

--- The submit ended: accepted → what rode is done; otherwise it is owed again.
function claims.settle(part, accepted)
  local riding = part.riding
  part.riding = nil
  if accepted or not riding then
    return
  end
  if part.owed then
    part.owed.first = riding.first
  else
    part.owed = riding
  end
  part.owed.cover = nil
end

--- Runs that are active cover what is owed until they end.
function claims.cover(part, runs)
  if part.owed and not part.owed.cover then
    local names = {}
    for _, run in ipairs(runs) do
      names[run.name] = false
    end
    part.owed.cover = names
  end
end

--- Looks at the covering runs again. "done": one completed that was still active late enough after the claim; "lost": all
--- ended and none did; nil: wait.
---@param part table
---@param listed table<string, rouse.Run> by name
---@param sent number clock when the listing was sent
---@param idle number the job's idle timeout in seconds
function claims.review(part, listed, sent, idle, finished)
  local owed = part.owed
  if not (owed and owed.cover) then
    return nil
  end
  local open = false
  for name, seen in pairs(owed.cover) do
    local run = listed[name]
    if run and not finished(run) then
      open = true
      if sent >= owed.at + math.max(30, idle / 2) then
        owed.cover[name] = true
      end
    elseif run and seen and run.status == "completed" and #(run.failed_indices or {}) == 0 then
      part.owed = nil
      return "done"
    end
  end
  if not open then
    owed.cover = nil
    return "lost"
  end
  return nil
end

--- The first offset still owed, or nil.
function claims.first(part)
  local first = part.riding and part.riding.first
  if part.owed and (not first or part.owed.first < first) then
    first = part.owed.first
  end
  return first
end

return claims
