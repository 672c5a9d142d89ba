"""Whole trees of files and objects: one made like another, and removed."""
