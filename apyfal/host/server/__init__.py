"""The daemon that shares this machine's accelerators."""
