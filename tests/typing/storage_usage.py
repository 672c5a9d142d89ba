"""Storage, typed as a user's program: checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from apyfal import storage
from apyfal.storage.endpoints.factory import open_sink, open_source


async def awaits(where: str) -> None:
    """Loads and saves of asyncio."""
    array: np.ndarray = await storage.aload(where, "u1", out=None)
    await storage.asave(where, array, metadata={"content_type": "text/plain"})
    errors: list[Exception | None] = await storage.asave_many([where], await storage.aload_many([where]))
    print(errors, storage.zarr_store(where, read_only=True))


def store() -> None:
    """Use the public names with the types that they promise."""
    storage.mount("my_storage", provider="s3", root="bucket/prefix", client_id="me", secret_id="x", verify=True)
    for name, info in storage.mounts().items():
        print(name, info.provider, info.parameters.get("region"), info.connected)
    with storage.open("my_storage://text", "w", encoding="utf-8") as file:
        file.write("text")
    there: bool = storage.isfile("my_storage://text") or storage.isdir("my_storage://text")
    old: tuple[int, float] = storage.getsize("my_storage://text"), storage.getmtime("my_storage://text")
    content: tuple[bytes, str] = storage.read_bytes("my_storage://text"), storage.read_text("my_storage://text")
    written: int = storage.write_bytes("my_storage://text", b"") + storage.write_text("my_storage://text", "")
    print(there, old, content, written)
    moved: str = storage.move("my_storage://text", Path("copy"), progress=lambda done, total: print(done, total))
    print(moved)
    where: str = storage.copy("my_storage://text", Path("copy"), progress=lambda done, total: print(done, total))
    size: int | None = storage.stat(where).size
    out = np.empty(size or 0, np.uint8)
    storage.save("my_storage://array", storage.load(where, dtype="uint8", shape=(-1, 2), out=out))
    storage.save_many(["my_storage://a", where], storage.load_many([where, where], dtype="uint8"))
    asyncio.run(awaits(where))
    sizes: list[int | None] = [info.size for info in storage.stat_many([where])]
    errors: list[Exception | None] = storage.remove_many([where], return_exceptions=True)
    print(sizes, errors)
    names: list[str] = [*storage.listdir("my_storage://"), *storage.glob("my_storage://*")]
    for top, directories, files in storage.walk("my_storage://"):
        print(top, directories, files, names)
    if storage.exists("my_storage://text"):
        storage.remove("my_storage://text")
    storage.makedirs("my_storage://folder", exist_ok=True)
    with open_source(where) as source, open_sink("copy", source.size) as sink:
        buffer = memoryview(bytearray(4096))
        while count := source.readinto(buffer):
            sink.write(buffer[:count])
    storage.unmount("my_storage")
