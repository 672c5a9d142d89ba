"""What the daemon writes down, so that a restart forgets nothing: jobs by their keys, and who wrote which file."""
