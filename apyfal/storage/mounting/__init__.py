"""Mounts: stores and their names, from calls and from the configuration."""
