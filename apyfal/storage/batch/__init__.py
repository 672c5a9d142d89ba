"""Many files and objects at once: one thread a connection, errors by item."""
