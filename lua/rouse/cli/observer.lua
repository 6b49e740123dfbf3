return require("rouse.cli.packaged").command("observer",
  "Observe the topics of kafkadata and wake the jobs that consume them (the packaged script).")
