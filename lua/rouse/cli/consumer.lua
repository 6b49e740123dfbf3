return require("rouse.cli.packaged").command("consumer",
  "Consume KAFKA_TOPIC in CONSUMER_GROUP until it is idle (the packaged script).")
