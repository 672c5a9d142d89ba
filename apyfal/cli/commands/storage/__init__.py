"""Commands about files, objects and mounted storage."""
