"""Chains on an open device: their contexts, the memory between their stages, and runs that follow each other there."""
