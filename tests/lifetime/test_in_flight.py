"""Whatever a program does while a run is in flight: an error or a wait, never a crash.

Each case is a script in a process of its own, since some end the interpreter. The card hangs or is slow, so that the
run is surely in flight.
"""

from __future__ import annotations

import os
import textwrap
import time

import forked
import pytest

PRELUDE = """
import faulthandler, gc, os, sys, threading, time
faulthandler.enable()
import numpy as np
import apyfal
from apyfal._core import errors
from apyfal._core.buffer import Buffer
from apyfal._core.device import Device
from apyfal._core.run import SYNC_FROM, SYNC_TO, Arguments
from apyfal.exceptions import *

def start(options, nbytes=1 << 20):
    '''A loopback run over two pooled arrays; returns all objects that take part.'''
    device = Device("emulator", None, options)
    src, dst = apyfal.empty(nbytes, "u1"), apyfal.empty(nbytes, "u1")
    src[...] = 7
    kernel = device.load("loopback")
    arguments = Arguments(3)
    for index, array, flag in ((0, src, SYNC_TO), (1, dst, SYNC_FROM)):
        bo, offset = device.import_memory(array)
        arguments.set_buffer(index, bo, offset, nbytes, flag)
    arguments.set_scalar(2, "uint64", nbytes)
    return device, src, dst, kernel, arguments.start(kernel)

SLOW = {"run_latency": "300000"}
HANG = {"hang_run": "1"}
STUCK = {"hang_run": "1", "ignore_cancel": "1"}
"""

CASES = {
    "delete the arrays": """
        device, src, dst, kernel, run = start(SLOW)
        view = dst[:5]
        del src, dst
        gc.collect()
        run.wait()
        assert set(view) == {7}
    """,
    "delete everything": """
        device, src, dst, kernel, run = start(SLOW)
        del device, src, dst, kernel, run
        gc.collect()
        assert errors.live()["runs"] == 0
    """,
    "delete everything, hanging": """
        device, src, dst, kernel, run = start(HANG)
        del device, src, dst, kernel, run
        gc.collect()
        assert errors.live()["runs"] == 0
    """,
    "delete a run that cannot be cancelled": """
        device, src, dst, kernel, run = start(STUCK)
        while device.counters()["to_device"] < 1 << 20: time.sleep(0.01)
        time.sleep(0.2)  # until it hangs, which is the next thing it does: a cancel before that works
        before = errors.live()["buffers"]
        del device, src, dst, kernel, run
        gc.collect()
        assert errors.live()["buffers"] == before, "its memory is kept away from the pool"
        fresh = [apyfal.empty(1 << 20, "u1") for _ in range(8)]
    """,
    "a reference cycle": """
        device, src, dst, kernel, run = start(SLOW)
        class Holder: pass
        holder = Holder()
        holder.me, holder.all = holder, (device, src, dst, kernel, run)
        del holder, device, src, dst, kernel, run
        gc.collect()
        assert errors.live()["runs"] == 0
    """,
    "close and resize a buffer": """
        device = Device("emulator", None, SLOW)
        buffer = Buffer(1 << 20)
        kernel = device.load("loopback")
        arguments = Arguments(3)
        bo, offset = device.import_memory(buffer)
        arguments.set_buffer(0, bo, offset, 100, SYNC_TO)
        arguments.set_buffer(1, bo, offset + 4096, 100, SYNC_FROM)
        arguments.set_scalar(2, "uint64", 100)
        run = arguments.start(kernel)
        del bo, arguments
        for call in (buffer.close, lambda: buffer.resize(10), lambda: buffer.resize(1 << 22)):
            try:
                call()
                raise SystemExit("it was allowed")
            except BufferInUse as error:
                assert "alive" in str(error) or "run" in str(error), error
        run.wait()
        del run
        buffer.resize(1 << 22)
        buffer.close()
    """,
    "close the device": """
        device, src, dst, kernel, run = start(SLOW)
        try:
            device.close()
            raise SystemExit("it was allowed")
        except BufferInUse as error:
            assert "1 runs are in flight" in str(error)
        run.wait()
        device.close()
        try:
            device.alloc(10)
            raise SystemExit("it was allowed")
        except ClosedError:
            pass
        assert errors.live()["devices"] == 0
        del device, kernel, run
        assert errors.live()["kernels"] == errors.live()["bos"] == 0, "what was left were shells"
    """,
    "numpy's own resize": """
        device, src, dst, kernel, run = start(SLOW)
        try:
            dst.resize(10, refcheck=False)
            raise SystemExit("it was allowed")
        except ValueError:
            pass
        run.wait()
    """,
    "an exception": """
        def work():
            device, src, dst, kernel, run = start(HANG)
            raise LookupError
        try:
            work()
        except LookupError:
            pass
        gc.collect()
        assert errors.live()["runs"] == 0
    """,
    "cancel": """
        device, src, dst, kernel, run = start(HANG)
        threading.Timer(0.1, run.cancel).start()
        try:
            run.wait()
            raise SystemExit("it ended well")
        except RunCancelled:
            pass
        try:
            run.wait()
            raise SystemExit("it ended well")
        except RunCancelled:
            pass
    """,
    "wait from two threads": """
        device, src, dst, kernel, run = start(SLOW)
        threads = [threading.Thread(target=run.wait) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert set(dst) == {7}
    """,
    "a lost device": """
        device, src, dst, kernel, run = start(SLOW)
        device.control("lose_device", 1)
        try:
            device.alloc(100)
            raise SystemExit("it was allowed")
        except DeviceLost:
            pass
        try:
            run.wait()
            raise SystemExit("it ended well")
        except DeviceLost:
            pass
        device.close()
    """,
    "interrupt": """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
        device, src, dst, kernel, run = start(HANG)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        try:
            run.wait()
            raise SystemExit("it ended well")
        except KeyboardInterrupt:
            assert time.monotonic() - began < 20
    """,
    "fork": """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads is what is tested
        device, src, dst, kernel, run = start(SLOW)
        child = os.fork()
        if child == 0:
            for call in (run.wait, lambda: device.alloc(1), lambda: device.load("loopback"), run.cancel):
                try:
                    call()
                    os._exit(2)
                except ForkedProcess as error:
                    assert "fork" in str(error)
            array = apyfal.empty(100, "u1")
            array[...] = 3
            own = Device("emulator")
            own.import_memory(array)
            own.close()
            device.close()
            del device, src, dst, kernel, run
            gc.collect()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        run.wait()
        assert set(dst) == {7}
    """,
    "fork while others register models": """
        import warnings
        from apyfal._core.model import register_model
        warnings.simplefilter("ignore", DeprecationWarning)

        def register(name):
            while True:
                register_model(name, print)

        for name in ("one", "two"):
            threading.Thread(target=register, args=(name,), daemon=True).start()
        for _ in range(200):
            child = os.fork()
            if child == 0:
                register_model("own", print)
                own = Device("emulator")
                own.load("own")
                own.close()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
        os._exit(0)
    """,
    "fork with an accelerator": """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        accelerator = apyfal.Accelerator("loopback", emulator=SLOW)
        future = accelerator.process_submit(b"abc")
        time.sleep(0.05)
        child = os.fork()
        if child == 0:
            try:
                accelerator.process(b"abc", timeout=5)
                os._exit(2)
            except ForkedProcess:
                pass
            with apyfal.Accelerator("loopback") as own:
                assert bytes(own.process(b"abc")) == b"abc"
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert bytes(future.result()) == b"abc"
    """,
    "spawn": """
        import multiprocessing
        device, src, dst, kernel, run = start(SLOW)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(len, (b"abc",)) == 3
        run.wait()
    """,
    "pickle": """
        import pickle
        accelerator = apyfal.Accelerator("loopback")
        try:
            pickle.dumps(accelerator)
            raise SystemExit("it was allowed")
        except TypeError as error:
            assert "pickled" in str(error)
        array = apyfal.empty(10, "u1")
        array[...] = 1
        assert (pickle.loads(pickle.dumps(array)) == array).all()
    """,
    "exit": "objects = start(SLOW)",
    "exit, hanging": "objects = start(HANG)",
    "exit, stuck": "objects = start(STUCK)",
    "exit with an accelerator at work": """
        accelerator = apyfal.Accelerator("loopback", emulator=HANG)
        futures = [accelerator.process_submit(np.ones(30 << 20, "u1")) for _ in range(5)]
        time.sleep(0.3)
    """,
    "exit with a stuck accelerator": """
        accelerator = apyfal.Accelerator("loopback", emulator=STUCK)
        future = accelerator.process_submit(b"abc")
        time.sleep(0.2)
    """,
    "exit with a model at work": """
        @apyfal.accelerators.model("sleeper", dtype="uint8")
        def sleeper(src, dst):
            time.sleep(300)
        accelerator = apyfal.Accelerator("sleeper")
        future = accelerator.process_submit(b"abc")
        time.sleep(0.2)
    """,
    "stop with jobs at work": """
        accelerator = apyfal.Accelerator("loopback", emulator=HANG)
        futures = [accelerator.process_submit(np.ones(30 << 20, "u1")) for _ in range(5)]
        time.sleep(0.3)
        accelerator.stop()
        for future in futures:
            try:
                future.result(timeout=5)
                raise SystemExit("it ended well")
            except (RunCancelled, ClosedError, __import__("concurrent.futures").futures.CancelledError):
                pass
        assert errors.live()["runs"] == errors.live()["devices"] == 0, errors.live()
    """,
    "drop an accelerator": """
        accelerator = apyfal.Accelerator("loopback")
        accelerator.process(b"abc")
        del accelerator
        gc.collect()
        assert errors.live()["devices"] == 0
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_never_a_crash(tmp_path, case):
    start = time.monotonic()
    done = forked.run([], tmp_path, os.environ, code=PRELUDE + textwrap.dedent(CASES[case]), seconds=60)
    assert (done.status, done.error.decode()) == (0, "")
    assert time.monotonic() - start < 40
