"""Programs for the opencl driver: several sources, and the files that they include, as one text."""
