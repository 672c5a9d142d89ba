"""File objects of the `io` module over sources and sinks."""
