return require("rouse.cli.packaged").command "observer"
