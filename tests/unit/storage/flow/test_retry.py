"""Retries, quotas, limits and cancellation."""

from __future__ import annotations

import threading
import time

import pytest
from memory_store import MemoryHandler

from apyfal.exceptions import (
    AccessDenied,
    ChecksumMismatch,
    ObjectNotFound,
    StorageError,
    StoreUnavailable,
    TransferCancelled,
)
from apyfal.storage.flow.cancel import CancelToken, current_cancel
from apyfal.storage.flow.retry import Bandwidth, Memory, Retrying, RetryQuota, retry_removal


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apyfal.storage.flow.retry._BASE_DELAY", 0.0)


def test_a_quota_ends_retries() -> None:
    quota = RetryQuota(3)
    attempts = Retrying(quota, 100, None)
    for _ in range(3):
        attempts.failed(StoreUnavailable("down"), "cannot read 'x'")
    with pytest.raises(StoreUnavailable, match=r"cannot read 'x': down \(not tried again"):
        attempts.failed(StoreUnavailable("down"), "cannot read 'x'")


def test_success_and_progress_give_retries_back() -> None:
    quota = RetryQuota(3)
    for _ in range(50):
        attempts = Retrying(quota, 100, None)
        for _ in range(3):
            attempts.failed(StoreUnavailable("down"), "cannot read 'x'")
        attempts.progress()
        for _ in range(2):
            attempts.failed(StoreUnavailable("down"), "cannot read 'x'")
        attempts.success()


def test_attempts_are_bounded() -> None:
    attempts = Retrying(RetryQuota(), 3, None)
    attempts.failed(StoreUnavailable("down"), "cannot read 'x'")
    attempts.failed(StoreUnavailable("down"), "cannot read 'x'")
    with pytest.raises(StoreUnavailable, match="attempt 3"):
        attempts.failed(StoreUnavailable("down"), "cannot read 'x'")


def test_what_does_not_pass_is_not_tried_again() -> None:
    denied = AccessDenied("no")
    with pytest.raises(AccessDenied) as caught:
        Retrying(RetryQuota(), 3, None).failed(denied, "cannot read 'x'")
    assert caught.value is denied


def test_a_mismatch_is_tried_again_once() -> None:
    attempts = Retrying(RetryQuota(), 100, None)
    attempts.failed(ChecksumMismatch("bits"), "cannot write 'x'")
    with pytest.raises(ChecksumMismatch):
        attempts.failed(ChecksumMismatch("bits"), "cannot write 'x'")


def test_an_error_keeps_what_the_store_said() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        Retrying(RetryQuota(), 1, None).failed(StoreUnavailable("down", code="SlowDown", status=503), "cannot read 'x'")
    assert (caught.value.code, caught.value.status) == ("SlowDown", 503)


def test_retry_after_is_waited_for() -> None:
    begin = time.monotonic()
    Retrying(RetryQuota(), 3, None).failed(StoreUnavailable("down", retry_after=0.2), "cannot read 'x'")
    assert time.monotonic() - begin >= 0.2


def test_bandwidth_is_shared() -> None:
    bandwidth = Bandwidth(1e6)
    begin = time.monotonic()
    threads = [threading.Thread(target=lambda: [bandwidth.take(10_000, None) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 400,000 bytes, of which 100,000 may come at once
    assert time.monotonic() - begin >= 0.28


def test_memory_is_bounded_but_for_each_first_buffer() -> None:
    memory = Memory(100)
    assert memory.try_acquire(60)
    assert not memory.try_acquire(60)
    memory.hold(60)
    memory.release(120)
    assert memory.try_acquire(100)


def test_cancelling_wakes_a_wait() -> None:
    cancel = CancelToken()
    threading.Timer(0.05, cancel.set).start()
    begin = time.monotonic()
    assert cancel.wait(30)
    assert time.monotonic() - begin < 10
    with pytest.raises(TransferCancelled):
        cancel.check()


def test_cancelling_a_parent_cancels_children_and_not_the_reverse() -> None:
    parent = CancelToken()
    child, other = CancelToken(parent), CancelToken(parent)
    child.set()
    assert not parent.is_set()
    assert not other.is_set()
    other.detach()
    parent.set()
    assert not other.is_set()
    assert CancelToken(parent).is_set()


def test_scopes_nest_and_belong_to_a_thread() -> None:
    outer, inner, seen = CancelToken(), CancelToken(), []
    with outer.scope():
        with inner.scope():
            assert current_cancel() is inner
            thread = threading.Thread(target=lambda: seen.append(current_cancel()))
            thread.start()
            thread.join()
        assert current_cancel() is outer
    assert current_cancel() is None
    assert seen == [None]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([None], None),
        ([StoreUnavailable("503"), None], None),
        ([StoreUnavailable("503"), ObjectNotFound("gone")], None),
        ([ObjectNotFound("gone")], ObjectNotFound),
        ([StoreUnavailable("503"), AccessDenied("no")], AccessDenied),
    ],
    ids=["at once", "again", "done by the first", "never there", "denied"],
)
def test_a_removal_whose_response_was_lost_has_worked(
    answers: list[StorageError | None], error: type[Exception] | None
) -> None:
    left = list(answers)

    def remove() -> None:
        if (answer := left.pop(0)) is not None:
            raise answer

    if error is None:
        retry_removal(MemoryHandler(), remove, "cannot remove 'x'")
    else:
        with pytest.raises(error):
            retry_removal(MemoryHandler(), remove, "cannot remove 'x'")
    assert left == []
