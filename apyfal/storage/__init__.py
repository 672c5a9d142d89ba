"""Data wherever it is, named by one string: ``scheme://path``."""
