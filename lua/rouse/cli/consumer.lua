return require("rouse.cli.packaged").command "consumer"
