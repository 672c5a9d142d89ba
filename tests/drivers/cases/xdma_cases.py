"""What only XDMA does, through its driver's table, over the stand-in card. Each function is one case."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
from drivers.support import abi
from drivers.support.abi import FROM_DEVICE, SYNC_FROM, SYNC_TO, TO_DEVICE, Device, DriverError, block, buffer, scalar
from fixtures.xdma.card import Card

REGISTERS = "src:0x10:buffer, dst:0x1c:buffer, count:0x28:64, a:0x34:32, b:0x3c:32"
LARGE = 20 << 20


def _driver() -> abi.Driver:
    return abi.Driver(ctypes.CDLL(os.environ["APYFAL_TEST_DRIVERS"]), "xdma")


def _card() -> Card:
    card = Card()
    card.reset()
    return card


def _open(selector: str | None = None, **options: str) -> AbstractContextManager[Device]:
    return _driver().open(selector, **{"memory": "6 GiB", "registers": REGISTERS, **options})


@contextmanager
def _misses(name: str, pattern: str, sys: int | None = None) -> Iterator[None]:
    with pytest.raises(DriverError) as caught:
        yield
    assert caught.value.name == name, caught.value
    assert re.search(pattern, caught.value.text), caught.value
    assert sys is None or caught.value.sys == sys


class _Rig:
    """An open device with one kernel over two arrays of 2048 ints."""

    def __init__(self, device: Device, arguments: str = "src, dst, count") -> None:
        self.kernel = device.load(None, "increment", arguments=arguments)
        self.src, self.dst = abi.pages(8192, np.int32), abi.pages(8192, np.int32)
        self.src[:] = np.arange(2048)
        self.x, self.y = (device.import_(array.ctypes.data, 8192) for array in (self.src, self.dst))
        self.arguments = buffer(self.x, 8192, 0, SYNC_TO), buffer(self.y, 8192, 0, SYNC_FROM), scalar("U64", 2048)


def devices_are_found_by_their_nodes() -> None:
    assert [info.name for info in _driver().list()] == [b"xdma0", b"qdma01000"]
    assert _driver().list(root="/nowhere") == []
    for selector, name in ((None, b"xdma0"), ("1", b"qdma01000"), ("qdma", b"qdma01000"), ("xdma0", b"xdma0")):
        with _open(selector) as device:
            info = device.describe()
            assert (info.name, info.memory) == (name, 6 << 30)
            assert device.capabilities() == {"import", "offset", "counters", "duplex", "separate_memory", "structs"}
    with _misses("NO_DEVICE", "no XDMA or QDMA device 'xdma7' in .*; there is: xdma0, qdma01000"), _open("xdma7"):
        pass
    with _misses("NO_DEVICE", "none .*kernel module"), _open(root="/nowhere"):
        pass


def streams_are_refused() -> None:
    card = _card()
    card.set(streaming=1)
    with (
        _misses("UNSUPPORTED", r"the channels of 'xdma0' are streams \(AXI4-Stream\); expected memory-mapped"),
        _open(),
    ):
        pass
    with _open("qdma"):  # whose queues say in their names what they are
        pass
    card.set(streaming=0)
    with _open():
        pass


def options_are_checked() -> None:
    for options, pattern in (
        ({"rot": "/dev"}, r"unknown option 'xdma\.rot'; the xdma driver has xdma\.root, "),
        ({"base": "here"}, r"xdma\.base is 'here'; expected a number such as 4096, 0x1000 or 4 KiB"),
        ({"base": "100"}, "multiple of 4096"),
        ({"memory": "-1"}, r"xdma\.memory is '-1'"),
        ({"align": "48"}, "power of two"),
        ({"channels": "9"}, "expected 1 to 4"),
        ({"access": "dma"}, "expected mmap or call"),
        ({"protocol": "ap_ctrl_none"}, "expected ap_ctrl_hs or ap_ctrl_chain"),
    ):
        with _misses("INVALID", pattern), _open(**options):
            pass
    with _misses("NO_DEVICE", r"_events_7 \(xdma.events\)"), _open(events="7"):
        pass


def register_maps_are_checked() -> None:
    for registers, pattern in (
        ("src:0x10, dst:0x1c", "argument 'count' of 'increment' has no register"),
        ("src:0x10, dst:0x1c, count:0x2a", "'count:0x2a'; expected NAME:OFFSET"),
        ("src:0x10, dst:0x1c, count:0x28:16", "NAME:OFFSET:buffer|32|64"),
        ("src:x, dst:0x1c, count:0x28", "'src:x'"),
        ("src:0x10, dst:0x1c, count:0x28:100", r"'count:0x28:100'; .* a struct its size in bits, 72 to 8192\)"),
        ("src:0x10, dst:0x1c, count:0x28:8200", "'count:0x28:8200'; expected"),
        ("src:0x10, dst:0x1c, count:0x28:96x", "'count:0x28:96x'; expected"),
        ("src:0x10:136, dst:0x20, count:0x28", "arguments 0 and 1 of 'increment' share the register at 0x20"),
        ("src:0x20, dst:0x1c:buffer, count:0x28", "arguments 0 and 1 of 'increment' share the register at 0x20"),
        ("src:0x10, dst:0x10, count:0x28", "arguments 0 and 1 of 'increment' share the register at 0x10"),
    ):
        with _open(registers=registers) as device, _misses("ARGUMENT", pattern):
            device.load(None, "increment", arguments="src, dst, count")
    with _open(registers="") as device, _misses("NOT_FOUND", r"xdma\.registers = NAME:OFFSET, \.\.\."):
        device.load(None, "increment", arguments="src, dst, count")
    with _open() as device:
        with _misses("PROGRAM", "cannot load 'a.bit': the card is programmed before"):
            device.load(b"bits", "increment", name="a.bit")
        device.load(None, "increment", arguments="src, dst, count")
        with _misses("BUSY", "already has a kernel"):
            device.load(None, "increment", arguments="src, dst, count")


def registers_are_mapped_or_called() -> None:
    card = _card()
    for options in ({}, {"access": "call"}, {"events": "0"}, {"events": "0", "access": "call"}):
        card.set(unmappable=int(options == {}))
        with _open(**options) as device:
            rig = _Rig(device)
            for _ in range(20):
                rig.dst[:] = 0
                device.run(rig.kernel, *rig.arguments)
                np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))
    assert card["interrupts"] == 40


def small_scalars_have_small_registers() -> None:
    card = _card()
    card.set(model=2)
    with _open() as device:
        rig = _Rig(device, "src, dst, count, a, b")
        device.run(rig.kernel, *rig.arguments, scalar("I32", -3), scalar("I8", 7))
        np.testing.assert_array_equal(rig.dst, -3 * np.arange(2048) + 7)
        with _misses("ARGUMENT", "argument 3 .* 32 bits; 4294967296 does not fit"):
            device.run(rig.kernel, *rig.arguments, scalar("I64", 1 << 32), scalar("I32", 0))
        with _misses("ARGUMENT", r"argument 1 of 'increment' is a buffer in xdma\.registers; got a scalar"):
            device.run(rig.kernel, rig.arguments[0], scalar("U64", 5), *rig.arguments[2:], *[scalar("I32", 1)] * 2)
        with _misses("ARGUMENT", "has 5 arguments; got 3"):
            device.run(rig.kernel, *rig.arguments)


def structs_fill_registers_that_follow_each_other() -> None:
    """Each of its size, the last register filled up with zeros; what the map does not hold is refused."""
    _card()
    data = bytes(range(1, 25))
    for size, kind in ((1, "32"), (4, "32"), (5, "64"), (8, "64"), (9, "72"), (18, "144"), (24, "192")):
        for access in ("mmap", "call"):
            registers = f"dst:0x10:buffer, s:0x1c:{kind}"
            with _open(control="0x5000", registers=registers, access=access) as device:
                kernel = device.load(None, "record", arguments="dst, s")
                dst = abi.pages(24, np.uint8)
                out = buffer(device.import_(dst.ctypes.data, 24), 24, 0, SYNC_FROM)
                device.run(kernel, out, block(data[:size]))
                held = -(-size // 4) * 4
                assert dst.tobytes()[:held] == data[:size].ljust(held, b"\0")
                with _misses("ARGUMENT", f"argument 1 of 'record' has .* got a struct or vector of {size + 4}$"):
                    device.run(kernel, out, block(bytes(size + 4)))
    with _open(control="0x5000", registers="dst:0x10:buffer, s:0x1c") as device:
        kernel = device.load(None, "record", arguments="dst, s")
        out = buffer(device.import_(dst.ctypes.data, 24), 24, 0, SYNC_FROM)
        for size, kind in ((3, "32"), (8, "64"), (18, "144")):
            with _misses("ARGUMENT", f"no size in xdma.registers; expected NAME:0x1c:{kind} for .* of {size} bytes"):
                device.run(kernel, out, block(bytes(size)))
    with _open(control="0x5000", registers="dst:0x10, s:0x14:32") as device:
        kernel = device.load(None, "record", arguments="dst, s")
        with _misses("ARGUMENT", "argument 0 .* 64 bits; the register at 0x14 .* belongs to another argument"):
            device.run(kernel, out, scalar("I32", 1))


def a_queued_run_keeps_its_struct() -> None:
    card = _card()
    with _open(control="0x5000", registers="dst:0x10:buffer, s:0x1c:192") as device:
        kernel = device.load(None, "record", arguments="dst, s")
        outputs = [abi.pages(24, np.uint8) for _ in range(3)]
        card.set(hang=1)
        runs = []
        for number, dst in enumerate(outputs):
            value = bytearray([number + 1] * 24)
            out = buffer(device.import_(dst.ctypes.data, 24), 24, 0, SYNC_FROM)
            runs.append(device.start(kernel, out, block(value)))
            value[:] = bytes(24)
        card.set(hang=0)
        for run in runs:
            device.wait(run)
        for number, dst in enumerate(outputs):
            assert dst.tobytes() == bytes([number + 1] * 24)


def a_lost_interrupt_does_not_hang() -> None:
    card = _card()
    card.set(no_interrupts=1)
    with _open(events="0") as device:
        rig = _Rig(device)
        began = time.monotonic()
        device.run(rig.kernel, *rig.arguments)
        assert time.monotonic() - began < 2
        np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))


def timeouts_are_real() -> None:
    card = _card()
    for options in ({}, {"events": "0"}):
        with _open(**options) as device:
            rig = _Rig(device)
            card.set(hang=1)
            run, queued = device.start(rig.kernel, *rig.arguments), device.start(rig.kernel, *rig.arguments)
            for timeout in (0, 0.05, 0.3):
                began = time.monotonic()
                with _misses("TIMEOUT", "'increment' on 'xdma0' still runs"):
                    device.wait(run, timeout)
                assert timeout <= time.monotonic() - began < timeout + 0.3
            with _misses("UNSUPPORTED", "cannot be stopped but by a reset"):
                device.cancel(run)
            device.cancel(queued)
            with _misses("CANCELLED", "before it began"):
                device.wait(queued)
            card.set(hang=0)
            device.wait(run)
            np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))


def a_run_is_waited_for_as_long_as_it_takes() -> None:
    """Not as long as the one before, and with most of a long one slept through."""
    card = _card()
    with _open() as device:
        rig = _Rig(device)
        short, waited, worked = [], 0.0, 0.0
        for _ in range(5):
            card.set(delay=50_000_000)
            began, before = time.monotonic(), time.thread_time()
            device.run(rig.kernel, *rig.arguments)
            waited += time.monotonic() - began
            worked += time.thread_time() - before
            card.set(delay=0)
            began = time.monotonic()
            device.run(rig.kernel, *rig.arguments)
            short.append(time.monotonic() - began)
    assert waited > 0.25
    assert worked < waited / 2
    assert min(short) < 0.02


def large_transfers_use_all_channels() -> None:
    card = _card()
    rng = np.random.default_rng(1)
    with _open() as device:
        memory = abi.pages(LARGE, np.uint8)
        memory[:] = rng.integers(0, 256, LARGE, np.uint8)
        expected = memory.copy()
        bo = device.import_(memory.ctypes.data, LARGE)
        card.set(to_bandwidth=1 << 26, from_bandwidth=1 << 26, at_once=0)  # of one channel
        device.sync(bo, TO_DEVICE, 0, LARGE)
        memory[:] = 0
        device.sync(bo, FROM_DEVICE, 0, LARGE)
        np.testing.assert_array_equal(memory, expected)
        assert card["at_once"] == 4
        assert (card["to_device"], card["from_device"]) == (LARGE, LARGE)
        card.reset()
        for offset, size in ((0, 1), (1, 1), (12345, 777777), (4095, 8194), (LARGE - 3, 3), (17, LARGE - 40)):
            memory[:] = 0
            device.sync(bo, FROM_DEVICE, offset, size)
            np.testing.assert_array_equal(memory[offset : offset + size], expected[offset : offset + size])
            assert not memory[:offset].any()
            assert not memory[offset + size :].any()
        counters = device.counters()
        assert counters.from_device == card["from_device"] + LARGE


def one_channel_is_enough() -> None:
    card = _card()
    with _open(channels="1") as device:
        memory = abi.pages(LARGE, np.uint8)
        bo = device.import_(memory.ctypes.data, LARGE)
        device.sync(bo, TO_DEVICE, 0, LARGE)
        assert (card["at_once"], card["transfers"]) == (1, 1)


def more_than_one_call_can_move() -> None:
    card = _card()
    card.set(discard=1)
    size = (2 << 30) + 8192
    with _open(channels="1") as device:
        memory = np.frombuffer(abi.mmap.mmap(-1, size), np.uint8)
        bo = device.import_(memory.ctypes.data, size)
        device.sync(bo, TO_DEVICE, 0, size)
        assert (card["transfers"], card["largest"], card["to_device"]) == (2, 0x7FFFF000, size)


def short_counts_are_gone_on_from() -> None:
    card = _card()
    with _open() as device:
        memory = abi.pages(1 << 20, np.uint8)
        memory[:] = np.random.default_rng(2).integers(0, 256, 1 << 20, np.uint8)
        expected = memory.copy()
        bo = device.import_(memory.ctypes.data, 1 << 20)
        for direction in (TO_DEVICE, FROM_DEVICE):
            card.set(shorten=1)
            device.sync(bo, direction, 0, 1 << 20)
            np.testing.assert_array_equal(memory, expected)
            memory[:] = memory if direction == FROM_DEVICE else 0
        assert card["transfers"] == 4


def hidden_errors_come_out() -> None:
    card = _card()
    with _open() as device:
        memory = abi.pages(1 << 20, np.uint8)
        bo = device.import_(memory.ctypes.data, 1 << 20)
        for direction, channel in ((TO_DEVICE, "h2c"), (FROM_DEVICE, "c2h")):
            card.set(shorten=1, hidden=5)
            with _misses("IO", f"xdma0_{channel}_[0-3]: .*0x80000 with 524288 bytes left: Input/output error", 5):
                device.sync(bo, direction, 0, 1 << 20)
        for errno, code, pattern, sys in (
            (512, "IO", "errno 512, ERESTARTSYS.*timed out", 110),
            (14, "IO", "could not be pinned for writing.*Bad address", 14),
            (22, "IO", "alignment", 22),
            (19, "DEVICE_LOST", "No such device", 19),
        ):
            card.set(fail_errno=errno, fail=1)
            with _misses(code, pattern, sys):
                device.sync(bo, TO_DEVICE, 0, 1 << 20)
        card.set(fail_errno=4, fail=1)  # interrupted: nothing was moved, so that it is done again
        device.sync(bo, TO_DEVICE, 0, 1 << 20)
        large = abi.pages(LARGE, np.uint8)
        of_large = device.import_(large.ctypes.data, LARGE)
        for number in range(1, 5):  # whichever of the channels it is
            card.set(fail_errno=5, fail=number)
            with _misses("IO", "Input/output error"):
                device.sync(of_large, TO_DEVICE, 0, LARGE)


def alignment_is_the_devices() -> None:
    card = _card()
    for align in (1, 64, 512):
        card.set(align=align)
        with _open() as device:
            assert device.describe().import_align == align
            memory = abi.pages(8192, np.uint8)
            device.sync(device.import_(memory.ctypes.data + align, 4096), TO_DEVICE, 0, 4096)
            if align > 1:
                with _misses("MISALIGNED", f"multiple of {align} bytes; 0x[0-9a-f]+ is {align // 2} past one"):
                    device.import_(memory.ctypes.data + align // 2, 4096)
    with _open() as device, _misses("READ_ONLY", "read-only"):
        device.import_(memory.ctypes.data, 4096, readonly=True)


def memory_is_given_out_and_taken_back() -> None:
    with _open(memory="1 MiB", base="0x100000") as device:
        with _misses("DEVICE_MEMORY", r"no 1048577 bytes in one piece .*0 of 1048576 in use; see xdma\.memory"):
            device.alloc((1 << 20) + 1)
        rng = np.random.default_rng(5)
        held = []
        for _ in range(2000):
            if held and rng.random() < 0.5:
                device.end(held.pop(int(rng.integers(len(held)))))
            else:
                try:
                    held.append(device.alloc(int(rng.integers(0, 100_000))))
                except DriverError as error:
                    if error.name != "DEVICE_MEMORY":
                        raise
        for bo in held:
            device.end(bo)
        assert device.counters().memory_used == 0
        device.alloc(1 << 20)  # in one piece again


def dma_alone() -> None:
    card = _card()
    for selector in ("xdma0", "qdma01000"):
        with _open(selector) as device:
            kernel = device.load(None, None)
            memory = abi.pages(8192, np.int32)
            memory[:] = np.arange(2048)
            bo = device.import_(memory.ctypes.data, 8192)
            device.run(kernel, buffer(bo, 8192, 0, SYNC_TO))
            memory[:] = 0
            device.run(kernel, buffer(bo, 4096, 4096, SYNC_FROM))
            np.testing.assert_array_equal(memory, np.r_[np.zeros(1024), np.arange(1024, 2048)])
            assert device.counters().runs == 2
    assert card["runs"] == 0


def results_survive_the_next_run() -> None:
    """Two runs with one output: the first one's is brought back before the second one begins."""
    with _open() as device:
        rig = _Rig(device)
        other = abi.pages(8192, np.int32)
        other[:] = 1000
        z = device.import_(other.ctypes.data, 8192)
        runs = [device.start(rig.kernel, *rig.arguments)]
        runs.append(device.start(rig.kernel, buffer(z, 8192, 0, SYNC_TO), buffer(rig.y, 8192), rig.arguments[2]))
        device.wait(runs[1])
        device.wait(runs[0])
        np.testing.assert_array_equal(rig.dst, np.arange(1, 2049))
        device.sync(rig.y, FROM_DEVICE, 0, 8192)
        np.testing.assert_array_equal(rig.dst, np.full(2048, 1001))


def the_card_vanishes() -> None:
    card = _card()
    for access in ("mmap", "call"):
        with _open(access=access, control="0x3000") as device:
            rig = _Rig(device)
            runs = [device.start(rig.kernel, *rig.arguments)]
            with _misses("DEVICE_LOST", "registers read as all ones|No such device"):
                runs.append(device.start(rig.kernel, *rig.arguments))
                device.wait(runs[-1])
            with _misses("DEVICE_LOST", "registers read as all ones"):
                device.wait(runs[0])
    card.reset()


def no_allocation_may_fail_unnoticed() -> None:
    """The 1st, 2nd, 3rd ... allocation fails, until a whole life needs no more of them."""
    _card()
    driver = _driver()
    driver.library.apf_fail_allocation.argtypes = [ctypes.c_int64]
    large = abi.pages(16 << 20, np.uint8)
    for number in range(200):
        driver.library.apf_fail_allocation(number)
        try:
            with driver.open(None, memory="6 GiB", registers=REGISTERS) as device:
                rig = _Rig(device)
                device.run(rig.kernel, *rig.arguments)
                bo = device.import_(large.ctypes.data, large.nbytes)
                device.sync(bo, TO_DEVICE, 0, large.nbytes)
        except DriverError as error:
            if error.name != "NO_MEMORY":
                raise
        else:
            # Without a thread for it, a transfer is done by the caller: such failures pass unseen.
            if number > 20:
                return
        finally:
            driver.library.apf_fail_allocation(-1)
    raise AssertionError("there is no end of allocations")


def nothing_is_left() -> None:
    """What all cases before have made is gone."""
    live = (ctypes.c_int64 * 7).in_dll(ctypes.CDLL(os.environ["APYFAL_TEST_DRIVERS"]), "apf_live_now")
    assert list(live) == [0] * 7


CASES: dict[str, Callable[[], None]] = {
    name: function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", None) == __name__ and name[0].islower()
}
