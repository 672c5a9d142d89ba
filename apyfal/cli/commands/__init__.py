"""One module a command of ``apyfal``; see `apyfal.cli.COMMANDS`."""
