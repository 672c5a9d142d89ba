"""Any filesystem that fsspec knows, as a store."""
