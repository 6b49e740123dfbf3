-- The packaged observer. Copy it to /etc/rouse/observer.lua and edit: no compiler, no image.
local verdict = require "rouse.verdict"

return {
  observe = {}, -- routes come from kafkadata, Kafka and Code Engine from the environment

  -- Called for a job that has work: a record is waiting on a partition and no running instance covers it.
  decide = function(job, ctx)
    local since = job.last_wake and ctx.now - job.last_wake
    if since and since < job.dedup_window then
      return verdict.wait { seconds = job.dedup_window - since, reason = "inside the dedup window" }
    end

    local instances = 0
    for _, partition in ipairs(job.partitions) do
      if partition.work and not partition.covered then
        instances = instances + 1
      end
    end
    return verdict.wake { instances = instances, reason = "records are waiting" }
  end,
}
