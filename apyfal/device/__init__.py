"""An open device: its drivers, its kernel, regions of pinned memory, and the one rule of what is used in place."""
