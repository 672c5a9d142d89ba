"""How many small jobs make a batch: by their size, and by the time that the card needs for each."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import apyfal
from apyfal.batching.policy import BatchSizePolicy
from apyfal.definition.models import model


def settled(policy: BatchSizePolicy, nbytes: int, seconds: float) -> int:
    """Let a policy learn from batches of such jobs until it has grown."""
    for _ in range(8):
        policy.learn_of_batch(nbytes, seconds)
    return policy()


@pytest.mark.parametrize(
    ("nbytes", "seconds", "jobs"),
    [(32, 0.0, 256), (32, 20e-6, 256), (32, 1e-3, 20), (32, 5e-3, 4), (32, 0.3, 1), (32, 3600, 1), (1 << 30, 0, 1)],
)
def test_a_batch_takes_no_longer_than_the_policy_allows(nbytes: int, seconds: float, jobs: int) -> None:
    assert settled(BatchSizePolicy(), nbytes, seconds) == jobs


def test_jobs_that_become_fast_form_batches_again() -> None:
    policy = BatchSizePolicy()
    assert settled(policy, 32, 0.3) == 1
    policy.learn(32, 0.3)
    assert policy() == 1
    for _ in range(8):
        policy.learn(32, 1e-3)
    assert policy() == 20
    assert settled(policy, 32, 0.0) == 256


def test_a_slow_store_alone_makes_no_smaller_batches() -> None:
    policy = BatchSizePolicy()
    policy.learn(32, 0.5)  # of one job nobody knows what took so long
    assert policy() == 4
    assert settled(policy, 32, 20e-6) == 256


def test_no_batch_is_large_before_one_was_measured() -> None:
    policy = BatchSizePolicy()
    for _ in range(8):
        policy.learn(32, 0.5)
    assert policy() == 4
    for _ in range(8):
        policy.learn(32, 1e-3)
    assert policy() == 20  # they took no longer, whatever it was


def test_slow_jobs_end_one_by_one_and_can_be_cancelled() -> None:
    ran, go = [], threading.Event()

    @model("slow_jobs_of_policy")
    def slow_jobs_of_policy(src: np.ndarray, dst: np.ndarray) -> None:
        ran.append(1)
        time.sleep(0.03 if not go.is_set() else 0.2)
        dst[...] = src

    with apyfal.Accelerator("slow_jobs_of_policy") as card:
        one = np.ones(32, np.uint8)
        list(card.process_map([one] * 12))
        ran.clear()
        go.set()
        futures = [card.process_submit(one) for _ in range(30)]
        futures[0].result(timeout=20)
        assert sum(future.done() for future in futures) < 8
        assert sum(future.cancel() for future in futures) > 15
        assert len(ran) < 15
