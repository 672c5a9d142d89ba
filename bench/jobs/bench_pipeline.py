"""1 GiB from an S3 endpoint through a card to another S3 endpoint: does everything overlap?

Each stage is the slowest one once, at a set bandwidth, and is measured alone in the same run: that is the limit. First
the software card's link from the host; beside it the same job by hand, one step after the other, with boto3, numpy and
pyopencl on PoCL (whose memory is the host's: its card is infinitely fast), and the other stages alone. Then a store
that is read at that rate, and one that is written at it. Last, without any set bandwidth, on a card as fast as memory:
there the two cores, on which the stores run as well, are the limit, and no stage.
"""

from __future__ import annotations

import atexit
import contextlib
from typing import Any

import numpy as np
from support.common import Bench, main
from support.discard import discard
from support.intel_job import intel_job
from support.peers import KEYS, PeakMemory, boto3_client, generated_alone, installed, serve

import apyfal
from apyfal import storage

MIB = 1 << 20
#: Slow enough to be the limit on two cores, on which the stores and the card's own copies run as well.
SLOWEST = 512 * MIB
CARD = {
    "to_device_bandwidth": str(SLOWEST),
    "from_device_bandwidth": "1GiB",
    "compute_bandwidth": "2GiB",
    "latency": "20",
}


def by_hand(url: str, other: str) -> Any:
    """Return the job as people write it today."""
    import pyopencl as cl

    source, target = boto3_client(url), boto3_client(other)
    context = cl.Context([cl.get_platforms()[0].get_devices()[0]])
    commands = cl.CommandQueue(context)
    text = (
        "__kernel void k(__global const uchar16 *a, __global uchar16 *b) { b[get_global_id(0)] = a[get_global_id(0)]; }"
    )
    kernel = cl.Program(context, text).build().k

    def run() -> np.ndarray:
        body = source.get_object(Bucket="b", Key="object")["Body"].read()
        array = np.frombuffer(body, np.uint8)
        given = cl.Buffer(context, cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR, hostbuf=array)
        made = cl.Buffer(context, cl.mem_flags.WRITE_ONLY, array.nbytes)
        kernel(commands, (array.nbytes // 16,), None, given, made)
        result = np.empty_like(array)
        cl.enqueue_copy(commands, result, made)
        commands.finish()
        target.put_object(Bucket="b", Key="object", Body=result.tobytes())
        return result

    return run


def benches(quick: bool) -> list[Bench]:
    """1 GiB (64 MiB in a smoke run)."""
    nbytes = (64 if quick else 1024) * MIB
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    data = np.frombuffer(np.random.default_rng(1).bytes(nbytes), np.uint8)
    server = serve({"object": data})
    other = stack.enter_context(discard())
    storage.mount("s3.from", endpoint_url=server.endpoint_url, config={}, **KEYS)
    storage.mount("s3.to", endpoint_url=other, config={}, **KEYS)
    card = stack.enter_context(apyfal.Accelerator("loopback", emulator=CARD))
    fast = stack.enter_context(apyfal.Accelerator("loopback"))
    digest = stack.enter_context(apyfal.Accelerator("sha3"))
    pinned = apyfal.empty(nbytes, np.uint8)
    pinned[...] = data
    result = apyfal.empty(nbytes, np.uint8)
    infos: dict[str, dict[str, Any]] = {}
    through_link, peak = "apyfal: s3 -> card -> s3", PeakMemory()

    def job(name: str, accelerator: apyfal.Accelerator, src: object, dst: object) -> Any:
        def run() -> Any:
            infos[name] = {}
            return accelerator.process(src, dst, info_dict=infos[name], memory_limit="256MiB")

        return run

    def note(name: str) -> Any:
        def text() -> str:
            seconds = infos[name]["seconds"]
            shares = ", ".join(
                f"{stage} {seconds[stage] / seconds['total']:.0%}" for stage in seconds if stage != "total"
            )
            memory = f"memory {peak.note()}; " if name == through_link else ""
            return f"{memory}{infos[name]['bytes_copied']} bytes copied; limited by {infos[name]['limit']}; {shares}"

        return text

    def same(array: np.ndarray) -> None:
        if not np.array_equal(array, data):
            raise AssertionError("wrong data")
        result[...] = 0  # what the next run leaves is its own

    device = card._context.device
    bo, offset = device.import_memory(pinned)

    def link() -> None:
        for start in range(0, nbytes, 8 * MIB):
            bo.sync(0, offset + start, min(8 * MIB, nbytes - start))

    bench = Bench(f"{nbytes // MIB} MiB from S3 through a card to S3", nbytes)
    bench.add("limit: the slowest stage alone, the card's link at 512 MiB/s", link, limit=True)
    through_card = job(through_link, card, "s3.from://b/object", "s3.to://b/object")
    bench.add(through_link, lambda: peak(through_card), note=note(through_link))
    arrays = "apyfal: array -> card -> array"
    bench.add(arrays, job(arrays, card, pinned, result), same, note=note(arrays))
    check = "apyfal: s3 -> card -> array, the data checked"
    bench.add(check, job(check, card, "s3.from://b/object", result), same, note=note(check))
    fetch = "fetch alone: s3 -> array"
    bench.add(fetch, lambda: storage.load("s3.from://b/object", out=result), same)
    bench.add("store alone: array -> s3", lambda: storage.save("s3.to://b/object", pinned))
    if installed("boto3") and installed("pyopencl"):
        bench.add("by hand: boto3, numpy, pyopencl, one after the other", by_hand(server.endpoint_url, other), same)

    slow_target = stack.enter_context(discard(SLOWEST))
    storage.mount("s3.slow", endpoint_url=slow_target, config={}, **KEYS)
    stored = Bench(f"{nbytes // MIB} MiB from S3 through a card to a store that takes 512 MiB/s", nbytes)
    stored.add("limit: store alone: array -> s3", lambda: storage.save("s3.slow://b/object", pinned), limit=True)
    into = "apyfal: s3 -> card -> slow s3"
    stored.add(into, job(into, fast, "s3.from://b/object", "s3.slow://b/object"), note=note(into))
    on_intel = "apyfal: s3 -> Intel's FPGA emulator -> slow s3"
    slow_intel = stack.enter_context(intel_job(server.endpoint_url, slow_target, "256MiB"))
    stored.add(on_intel, lambda: infos.update({on_intel: slow_intel()}), note=note(on_intel))

    slow_source = stack.enter_context(generated_alone(nbytes, SLOWEST))
    fetched = Bench(f"{nbytes // MIB} MiB from a server that sends 512 MiB/s through a card to S3", nbytes)
    fetched.add("limit: fetch alone: http -> array", lambda: storage.load(slow_source, out=result), limit=True)
    out_of = "apyfal: slow http -> card -> s3"
    fetched.add(out_of, job(out_of, fast, slow_source, "s3.to://b/object"), note=note(out_of))

    free = Bench(f"{nbytes // MIB} MiB through a card that is as fast as memory", nbytes)
    free.add("store alone: array -> s3", lambda: storage.save("s3.to://b/object", pinned), limit=True)
    through = "apyfal: s3 -> card -> s3, as fast as it goes"
    free.add(through, job(through, fast, "s3.from://b/object", "s3.to://b/object"), note=note(through))
    free_intel = "apyfal: s3 -> Intel's FPGA emulator -> s3"
    fast_intel = stack.enter_context(intel_job(server.endpoint_url, other, "256MiB"))
    free.add(free_intel, lambda: infos.update({free_intel: fast_intel()}), note=note(free_intel))
    hashed = "apyfal: s3 -> sha3"
    free.add(hashed, job(hashed, digest, "s3.from://b/object", None), note=note(hashed))
    return [bench, stored, fetched, free]


if __name__ == "__main__":
    main(benches, rounds=3)
