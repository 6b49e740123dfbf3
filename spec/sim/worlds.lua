-- The small worlds that are explored completely: partitions, records, observers, assignment, crashes, faults of the API or
-- of Kafka, instances that end at any point. `quick` ones are part of `make test`. In `renewing` ones the observer
-- renews the group's offsets once, as soon as there are some.
local function small(partitions, records, observers, assign, crashes, faults, exits, quick)
  return { partitions = partitions, records = records, observers = observers, assign = assign, crashes = crashes,
    faults = faults, exits = exits, quick = quick }
end

local function renewing(world)
  world.renewals = true
  return world
end

return {
  -- the large ones first, so that two that run side by side end together
  small(2, 2, 2, "index", 0, 0, 0),
  small(1, 1, 2, "index", 1, 1, 1),
  small(1, 2, 1, "index", 1, 1, 1),
  small(2, 2, 1, "index", 0, 1, 0),
  small(2, 2, 1, "index", 0, 0, 1),
  small(1, 1, 2, "index", 1, 1, 0),
  small(1, 1, 2, "group", 1, 1, 0),
  small(1, 2, 2, "index", 1, 0, 0),
  small(1, 2, 2, "index", 0, 0, 0),
  small(2, 1, 2, "index", 0, 0, 1),
  small(1, 1, 1, "group", 1, 1, 1),
  small(1, 1, 1, "index", 1, 1, 1),
  small(1, 1, 2, "index", 0, 1, 0),
  small(2, 2, 1, "index", 0, 0, 0),
  small(1, 1, 2, "index", 1, 0, 0),
  renewing(small(2, 2, 1, "index", 0, 0, 0)),
  renewing(small(1, 2, 1, "index", 0, 1, 0)),
  renewing(small(1, 2, 1, "group", 0, 0, 1)),
  renewing(small(1, 1, 1, "index", 1, 1, 0)),
  small(1, 1, 2, "index", 0, 0, 1, true),
  small(1, 1, 1, "index", 1, 0, 1, true),
  small(1, 1, 2, "group", 0, 0, 0, true),
  small(1, 2, 1, "group", 0, 0, 1, true),
  small(1, 2, 1, "index", 0, 0, 1, true),
  small(2, 1, 1, "index", 0, 0, 1, true),
  small(1, 1, 1, "index", 0, 1, 0, true),
  renewing(small(1, 2, 1, "index", 0, 0, 0, true)),
  renewing(small(1, 1, 1, "group", 0, 1, 0, true)),

  describe = function(world)
    return ("%d partition(s), %d record(s), %d observer(s), %s, %d crash(es), %d fault(s), %d exit(s)%s"):format(
      world.partitions, world.records, world.observers, world.assign, world.crashes, world.faults, world.exits,
      world.renewals and ", offsets renewed" or "")
  end,
}
