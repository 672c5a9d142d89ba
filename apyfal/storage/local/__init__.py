"""Local files: atomic replacement, copies by the kernel, direct I/O, file objects."""
