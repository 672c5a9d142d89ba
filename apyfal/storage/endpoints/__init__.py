"""Sources and sinks: one interface for files, stores, arrays and file objects."""
