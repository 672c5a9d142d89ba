"""What only XRT does, through its driver's table, over the stand-in card. Each function is one case."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from drivers.support import abi
from drivers.support.abi import FROM_DEVICE, READS, SYNC_FROM, SYNC_TO, TO_DEVICE, Device, DriverError, buffer, scalar
from fixtures.xrt import xclbin
from fixtures.xrt.installation import Card

PROGRAM = xclbin.xclbin()
#: What XRT 2.13 says, and what newer ones say, below which the card is not an emulation.
EMULATED = os.environ.get("XCL_EMULATION_MODE") == "noop"
NAME, VERSION = ("noop", "XRT 2.13.0") if EMULATED else ("AMD card", "XRT 2.25")
CANCEL = {"cancel"} if EMULATED else set()


def _driver() -> abi.Driver:
    return abi.Driver(ctypes.CDLL(os.environ["APYFAL_TEST_DRIVERS"]), "xrt")


def _card() -> Card:
    card = Card(Path(os.environ["XILINX_XRT"]))
    card.reset()
    return card


@contextmanager
def _misses(name: str, pattern: str) -> Iterator[None]:
    with pytest.raises(DriverError) as caught:
        yield
    assert caught.value.name == name, caught.value
    assert re.search(pattern, caught.value.text), caught.value


class _Rig:
    """An open device with one kernel over two arrays of 2048 ints."""

    def __init__(self, device: Device, kernel: str = "vadd") -> None:
        self.device = device
        self.kernel = device.load(PROGRAM, kernel)
        self.src, self.dst = abi.pages(8192, np.int32), abi.pages(8192, np.int32)
        self.src[:] = np.arange(2048)
        self.x = device.import_(self.src.ctypes.data, 8192, bank=device.bank(self.kernel, 0))
        self.y = device.import_(self.dst.ctypes.data, 8192, bank=device.bank(self.kernel, 1))
        self.buffers = buffer(self.x, 8192, 0, SYNC_TO), buffer(self.y, 8192, 0, SYNC_FROM)
        self.arguments = (*self.buffers, scalar("I32", 2048))


def the_library_says_who_it_is() -> None:
    info, *others = _driver().list()
    assert [other.name for other in others] == ([] if EMULATED else [b"AMD card 1"])
    assert (info.name.decode(), info.vendor) == (f"{NAME} 0", b"AMD")
    assert info.version.decode().startswith(VERSION)
    assert info.max_buffer < 1 << 32
    with _driver().open("1") as device:
        assert device.describe().identity == b"1"
    with _driver().open(NAME) as device:
        assert (
            device.capabilities() == {"import", "offset", "counters", "duplex", "separate_memory", "structs"} | CANCEL
        )


def programs_are_checked_before_xrt_sees_them() -> None:
    with _driver().open() as device:
        with _misses("PROGRAM", "'odd.bin' is not an xclbin"):
            device.load(b"\x7fELF" + bytes(1000), "vadd", name="odd.bin")
        for size in range(8, len(PROGRAM), 37):
            with _misses("PROGRAM", "damaged|not an xclbin"):
                device.load(PROGRAM[:size], "vadd")
        rng = np.random.default_rng(3)
        for _ in range(300):
            spoiled = bytearray(PROGRAM)
            spoiled[int(rng.integers(448, 900))] = int(rng.integers(0, 256))
            assert len(spoiled) == len(PROGRAM)
            with pytest.raises(DriverError):  # in the table of sections: nothing of it may crash the reader
                device.load(bytes(spoiled), "no such kernel")
        with _misses("PROGRAM", "needs an xclbin"):
            device.load(None, "vadd")
        with _misses("NOT_FOUND", "no kernel 'vad' in the xclbin; it has: .*vadd"):
            device.load(PROGRAM, "vad")
        with _misses("NOT_FOUND", r"'vadd:\{nope\}'.*XRT: "):
            device.load(PROGRAM, "vadd:{nope}")
        kernel = device.load(PROGRAM, "vadd")
        with _misses("BUSY", "1 kernels of another xclbin"):
            device.load(xclbin.xclbin(uid=2), "vadd")
        device.end(kernel)
        device.load(xclbin.xclbin(uid=2), "vadd")


def compute_units_are_chosen_by_name() -> None:
    with _driver().open() as device:
        for name, units in (("vadd", 2), ("vadd:{vadd_2}", 1), ("vadd:{vadd_1,vadd_2}", 2)):
            rig = _Rig(device, name)
            assert device.describe().compute_units == units
            device.run(rig.kernel, *rig.arguments)
            np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))


def arguments_have_their_banks() -> None:
    with _driver().open() as device:
        kernel = device.load(PROGRAM, "sum2")
        assert [device.bank(kernel, index) for index in range(3)] == [0, 1, 1]
        with _misses("ARGUMENT", "argument 3 of 'sum2' .* is not a buffer"):
            device.bank(kernel, 3)
        with _misses("ARGUMENT", "no number 9"):
            device.bank(kernel, 9)
        arrays = [abi.pages(4096, np.int32) for _ in range(3)]
        for number, array in enumerate(arrays):
            array[:] = number * 1000 + np.arange(1024)
        bos = [device.import_(a.ctypes.data, 4096, bank=device.bank(kernel, i)) for i, a in enumerate(arrays)]
        flags = (SYNC_TO, SYNC_TO, SYNC_FROM)
        device.run(
            kernel, *(buffer(bo, 4096, 0, flag) for bo, flag in zip(bos, flags, strict=True)), scalar("U32", 1024)
        )
        np.testing.assert_array_equal(arrays[2], arrays[0] + arrays[1])


def memory_of_the_host_is_copied_to_where_xrt_has_it() -> None:
    """A bank called HOST[n]: the card works in host memory, but only in XRT's own."""
    card = _card()
    with _driver().open() as device:
        kernel = device.load(PROGRAM, "hostcopy")
        src, dst = abi.pages(8192, np.int32), abi.pages(8192, np.int32)
        src[:] = np.arange(2048)
        host = device.import_(src.ctypes.data, 8192, bank=device.bank(kernel, 0))
        back = device.import_(dst.ctypes.data, 8192, bank=device.bank(kernel, 1))
        device.run(kernel, buffer(host, 8192, 0, SYNC_TO), buffer(back, 8192, 0, SYNC_FROM), scalar("U64", 8192))
        np.testing.assert_array_equal(dst, src)
        src[:] = 0
        device.sync(host, FROM_DEVICE, 4096, 4096)
        np.testing.assert_array_equal(src, np.r_[np.zeros(1024), np.arange(1024, 2048)])
        card.set(fail_map=1)
        with _misses("DEVICE_MEMORY", "no host memory|could not map"):
            device.import_(src.ctypes.data, 8192, bank=device.bank(kernel, 0))


def device_memory_has_no_host_side() -> None:
    with _driver().open() as device:
        rig = _Rig(device)
        middle = device.alloc(8192, device.bank(rig.kernel, 0))
        with _misses("INVALID", "no host side"):
            device.sync(middle, TO_DEVICE, 0, 4096)
        device.run(rig.kernel, rig.buffers[0], buffer(middle, 8192), rig.arguments[2])
        device.run(rig.kernel, buffer(middle, 8192), rig.buffers[1], rig.arguments[2])
        np.testing.assert_array_equal(rig.dst, np.arange(2, 2050))


def scalars_of_every_type() -> None:
    values = [("I8", -3), ("U8", 200), ("I16", -30000), ("U16", 60000), ("I32", -5), ("U32", 4000000000)]
    wide = [("I64", -(1 << 60)), ("U64", 1 << 63), ("F32", 1.5), ("F64", -2.25)]
    sizes = [1, 1, 2, 2, 4, 4, 8, 8, 4, 8]
    types = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
    with _driver().open() as device:
        kernel = device.load(PROGRAM, "scalars")
        out = abi.pages(4096, np.uint8)
        bo = device.import_(out.ctypes.data, 4096, bank=device.bank(kernel, 0))
        device.run(kernel, buffer(bo, 4096, 0, SYNC_FROM), *(scalar(*value) for value in values + wide))
        for index, (kind, value) in enumerate(values + wide):
            got = out[8 * index : 8 * index + sizes[index]].view(types[index])[0]
            assert got == value, kind


def floating_point_arguments() -> None:
    with _driver().open() as device:
        kernel = device.load(PROGRAM, "fscale")
        src, dst = abi.pages(4096, np.float32), abi.pages(4096, np.float32)
        src[:] = np.arange(1024)
        x, y = (device.import_(array.ctypes.data, 4096) for array in (src, dst))
        for a, b in ((scalar("F32", 1.5), scalar("F64", 0.25)), (scalar("I32", 1), scalar("I64", 2))):
            device.run(kernel, buffer(x, 4096, 0, SYNC_TO), buffer(y, 4096, 0, SYNC_FROM), scalar("U32", 1024), a, b)
            values = (1.5, 0.25) if a.kind == abi.KINDS.index("F32") else (1, 2)
            np.testing.assert_array_equal(dst, src * np.float32(values[0]) + np.float32(values[1]))


def wrong_arguments() -> None:
    with _driver().open() as device:
        rig = _Rig(device)
        x, y, n = rig.arguments
        for name, pattern, arguments in (
            ("ARGUMENT", "has 3 arguments; got 2", (x, y)),
            ("ARGUMENT", r"argument 1 of 'vadd' \(int\* dst\) is a buffer; got a scalar", (x, scalar("I32", 1), n)),
            ("ARGUMENT", "argument 2 .* is a scalar; got a buffer", (x, y, y)),
            ("ARGUMENT", "argument 2 .* is an integer; got 1.5", (x, y, scalar("F64", 1.5))),
            ("ARGUMENT", "has 4 bytes; 8589934592 does not fit", (x, y, scalar("I64", 1 << 33))),
            ("ARGUMENT", "buffer object of 8192 bytes", (buffer(rig.x, 8192, 4096), y, n)),
            ("MISALIGNED", "argument 0 .* begins at byte 4 .* multiple of 64", (buffer(rig.x, 4096, 4), y, n)),
        ):
            with _misses(name, pattern):
                device.run(rig.kernel, *arguments)
        device.run(rig.kernel, *rig.arguments)
        np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))


def imports_have_rules() -> None:
    with _driver().open() as device:
        memory = abi.pages(8192, np.int32)
        with _misses("MISALIGNED", "multiple of 4096 bytes; 0x[0-9a-f]+ is 64 past one"):
            device.import_(memory.ctypes.data + 64, 4096)
        with _misses("READ_ONLY", "read-only"):
            device.import_(memory.ctypes.data, 4096, readonly=True)
        with _misses("DEVICE_MEMORY", "under 4 GiB"):
            device.alloc(1 << 32)
        bo = device.import_(memory.ctypes.data, 5000)  # not whole pages
        device.sync(bo, TO_DEVICE, 0, 5000)
        empty = device.import_(memory.ctypes.data, 0)
        device.sync(empty, TO_DEVICE, 0, 0)
        with _misses("INVALID", "outside"):
            device.sync(bo, TO_DEVICE, 4096, 1000)


def failures_bring_xrts_own_words() -> None:
    card = _card()
    with _driver().open() as device:
        rig = _Rig(device)
        card.set(fail_alloc=1)
        of_shim = "; XRT: std::bad_alloc" if EMULATED else ": Cannot allocate memory; XRT: failed to allocate bo"
        with _misses("DEVICE_MEMORY", f"4096 bytes in memory bank 1{of_shim}"):
            device.alloc(4096, 1)
        for code, sys in (("IO", 5), ("DEVICE_LOST", 19)):
            card.set(fail_errno=sys, fail_sync=1)
            of_shim = "XRT: unable to sync BO" if EMULATED else os.strerror(sys)
            with _misses(code, f"cannot move 8192 bytes at offset 0 to device .*{of_shim}"):
                device.sync(rig.x, TO_DEVICE, 0, 8192)
        card.set(fail_start=1)
        with _misses("KERNEL", "cannot start 'vadd'.*reset.*XRT: failed to launch"):
            device.run(rig.kernel, *rig.arguments)
        for state, code, pattern in (
            (5, "KERNEL", r"state 5 \(error\).*reset"),
            (6, "KERNEL", "aborted"),
            (8, "KERNEL", "time limit"),
            (9, "DEVICE_LOST", "does not respond"),
            (11, "KERNEL", "crashed"),
        ):
            card.set(state=state)
            with _misses(code, pattern):
                device.run(rig.kernel, *rig.arguments)
        card.reset()
        device.run(rig.kernel, *rig.arguments)
        np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))
        device.end(rig.x)
        device.end(rig.y)
    assert card["misuses"] == 0
    assert card["objects"] == 0


def the_text_is_of_the_thread_that_failed() -> None:
    """Many threads fail at once; each error has one line of XRT's, its own."""
    wrong: list[str] = []

    def work() -> None:
        for _ in range(50):
            try:
                device.load(PROGRAM, f"vadd:{{unit_of_{threading.get_ident()}}}")
            except DriverError as error:
                if error.text.count("XRT: ") != 1 or error.text.count(str(threading.get_ident())) != 2:
                    wrong.append(error.text)

    with _driver().open() as device:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def timeouts_are_real() -> None:
    """Also while other runs complete on the same card, which prolongs XRT's own waits."""
    card = _card()
    with _driver().open() as device:
        hung, busy = _Rig(device, "hang"), _Rig(device)
        run = device.start(hung.kernel, *hung.buffers, scalar("U64", 2048))
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                device.run(busy.kernel, *busy.arguments)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for timeout in (0, 0.0005, 0.05, 0.4):
                began = time.monotonic()
                with _misses("TIMEOUT", f"'hang' on '{NAME} 0' still runs"):
                    device.wait(run, timeout)
                took = time.monotonic() - began
                assert timeout <= took < timeout + 0.3
        finally:
            stop.set()
            thread.join()
        card.set(hold=0)
        device.wait(run)
        np.testing.assert_array_equal(hung.dst, np.arange(1, 2049))


def runs_that_only_read_the_same_memory_do_not_wait_for_each_other() -> None:
    card = _card()
    with _driver().open() as device:
        hung, other = _Rig(device, "hang"), _Rig(device)
        device.sync(hung.x, TO_DEVICE, 0, 8192)
        first = device.start(hung.kernel, buffer(hung.x, 8192, 0, READS), hung.buffers[1], scalar("U64", 2048))
        device.run(other.kernel, buffer(hung.x, 8192, 0, READS), *other.arguments[1:])  # it ends beside the first one
        np.testing.assert_array_equal(other.dst, np.arange(1, 2049))
        unsaid = device.start(other.kernel, buffer(hung.x, 8192), *other.arguments[1:])
        writes = device.start(other.kernel, other.buffers[0], buffer(hung.x, 8192), scalar("I32", 2048))
        for run in (unsaid, writes):
            with _misses("TIMEOUT", "still waits for a run before it"):
                device.wait(run, 0.05)
        card.set(hold=0)
        for run in (first, unsaid, writes):
            device.wait(run)
        np.testing.assert_array_equal(hung.dst, np.arange(1, 2049))


def a_run_is_aborted() -> None:
    """From XRT 2.16 on it cannot be, and the caller is told so."""
    card = _card()
    with _driver().open() as device:
        rig = _Rig(device, "hang")
        run = device.start(rig.kernel, *rig.buffers, scalar("U64", 2048))
        if not CANCEL:
            with _misses("UNSUPPORTED", f"{VERSION}.* cannot abort a run of a card; XRT 2.13 to 2.15 can"):
                device.cancel(run)
            card.set(hold=0)
            device.wait(run)
            device.cancel(run)  # no effect on one that has ended
            return
        threading.Timer(0.1, device.cancel, [run]).start()
        with _misses("CANCELLED", "aborted"):
            device.wait(run, 10)
        with _misses("CANCELLED", "aborted"):  # it stays so
            device.wait(run, 10)
        device.cancel(run)
        device.end(run)
        done = device.start(rig.kernel, *rig.buffers, scalar("U64", 2048))
        card.set(hold=0)
        device.wait(done)
        device.cancel(done)
        device.wait(done)
        assert card["aborts"] == 1


def a_run_behind_another_is_kept_back() -> None:
    card = _card()
    with _driver().open() as device:
        first = _Rig(device, "hang")
        kernel = device.load(PROGRAM, "vadd")
        chained = (buffer(first.y, 8192), buffer(first.x, 8192, 0, SYNC_FROM), scalar("I32", 2048))
        before = device.start(first.kernel, *first.buffers, scalar("U64", 2048))
        behind, cancelled = device.start(kernel, *chained), device.start(kernel, *chained)
        with _misses("TIMEOUT", "waits for a run before it"):
            device.wait(behind, 0.1)
        device.cancel(cancelled)
        with _misses("CANCELLED", "before it began"):
            device.wait(cancelled, 0.1)
        card.set(hold=0)
        device.wait(behind)
        np.testing.assert_array_equal(first.src, np.arange(2, 2050))
        device.wait(before)
        np.testing.assert_array_equal(first.dst, np.arange(1, 2049))


def the_card_vanishes() -> None:
    card = _card()
    with _driver().open() as device:
        rig = _Rig(device)
        card.set(lost=1)
        with _misses("DEVICE_LOST", "No such device"):
            device.run(rig.kernel, *rig.arguments)
        card.set(lost=0)
        device.run(rig.kernel, *rig.arguments)


def no_allocation_may_fail_unnoticed() -> None:
    """The 1st, 2nd, 3rd ... allocation fails, until a whole life needs no more of them."""
    driver = _driver()
    driver.library.apf_fail_allocation.argtypes = [ctypes.c_int64]
    for number in range(200):
        driver.library.apf_fail_allocation(number)
        try:
            with driver.open() as device:
                rig = _Rig(device)
                shifted = buffer(rig.x, 4096, 4096, SYNC_TO), rig.buffers[1], scalar("I32", 1024)
                device.run(rig.kernel, *shifted)
                run = device.start(rig.kernel, *rig.arguments)
                device.cancel(run)
                device.wait(run)
        except DriverError as error:
            if error.name != "NO_MEMORY":
                raise
        else:
            assert number > 5
            return
        finally:
            driver.library.apf_fail_allocation(-1)
    raise AssertionError("there is no end of allocations")


def nothing_is_left() -> None:
    """What all cases before have made is gone from the card and from the process."""
    live = (ctypes.c_int64 * 7).in_dll(ctypes.CDLL(os.environ["APYFAL_TEST_DRIVERS"]), "apf_live_now")
    assert list(live) == [0] * 7
    assert _card()["objects"] == 0
    assert _card()["misuses"] == 0


CASES: dict[str, Callable[[], None]] = {
    name: function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", None) == __name__ and name[0].islower()
}
