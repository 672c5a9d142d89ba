"""The client of a remote host: an accelerator with the methods of a local one, and the host's files."""
