"""Storage URLs as objects, in the manner of `pathlib`."""
