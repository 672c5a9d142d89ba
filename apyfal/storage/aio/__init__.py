"""Storage for `asyncio`: loads and saves to await, and a store of zarr 3."""
