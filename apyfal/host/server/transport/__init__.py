"""The daemon's transport: connections, request bodies, outputs, and the threads that move data."""
