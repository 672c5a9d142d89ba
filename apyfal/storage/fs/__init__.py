"""Storage for fsspec and what is built on it: a filesystem, synchronous and asynchronous, and its paths."""
