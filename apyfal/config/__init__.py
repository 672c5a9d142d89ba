"""Configuration: `accelerator.conf` as layers, typed values, sizes and durations."""
