-- The small worlds that are explored completely.
local function small(partitions, records, observers, assign, crashes, faults, exits)
  return { partitions = partitions, records = records, observers = observers, assign = assign, crashes = crashes,
    faults = faults, exits = exits }
end

return {
  small(1, 1, 1, "index", 0, 0, 1),
  small(1, 2, 1, "index", 0, 0, 1),
  small(1, 1, 1, "group", 1, 0, 0),

  describe = function(world)
    return ("%d partition(s), %d record(s), %d observer(s), %s, %d crash(es), %d fault(s), %d exit(s)"):format(
      world.partitions, world.records, world.observers, world.assign, world.crashes, world.faults, world.exits)
  end,
}
