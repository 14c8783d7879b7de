"""The command line: `app` holds the commands, one file each does the work."""
