--- Why the engine itself holds partitions, in words: the reason of those codes. What a rule or a target says is its own.
return {
  backoff = "the last run made no progress", quarantine = "many runs made no progress",
  served = "somebody else consumes this group", gather = "records of other partitions are about to ring",
  quota = "the target is full", stale = "the run list is too old",
  renewing = "the group's offsets are being renewed",
}
