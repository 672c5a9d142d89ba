"""Calls that type checkers refuse: an ignore that neither needs would itself be an error. Never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

import apyfal


def refuse(info: dict[str, Any]) -> None:
    """Data that is none, keywords of a wrong type, and misspelt ones whose values no parameter can have."""
    with apyfal.Accelerator("scale") as card:
        card.process(12345)  # type: ignore[call-overload]
        card.process([1, 2, 3])  # type: ignore[call-overload]
        card.process("in", 3.5)  # type: ignore[call-overload]
        card.process("in", copy="no")  # type: ignore[call-overload]
        card.process("in", timeout=[1])  # type: ignore[call-overload]
        card.process("in", report="yes")  # type: ignore[call-overload]
        card.process("in", infodict=info)  # type: ignore[call-overload]
        card.process("in", progres=lambda done, total: None)  # type: ignore[call-overload]
        card.process_submit(12345)  # type: ignore[call-overload]
        card.process_map([1, 2])  # type: ignore[list-item]
        card.proces("in")  # type: ignore[attr-defined]
    with apyfal.AcceleratorPoolExecutor("scale") as pool:
        pool.process(12345)  # type: ignore[call-overload]
        pool.process_submit(12345)  # type: ignore[call-overload]
        pool.process_map(12345)  # type: ignore[call-overload]
    apyfal.Acelerator("scale")  # type: ignore[attr-defined]
    apyfal.storage.no_such_function(1)  # type: ignore[attr-defined]
    raise apyfal.exceptions.NoSuchError  # type: ignore[attr-defined]


def accept(path: Path, values: np.ndarray[Any, np.dtype[np.float32]], everything: dict[str, Any]) -> None:
    """What they must take, with the types that come back."""
    with apyfal.Accelerator("scale") as card, path.open("rb") as file:
        for one in ("s3://b/k", path, values, b"x", bytearray(2), memoryview(b"x"), file, values[0]):
            card.process(one, None, a=2, b=np.float32(1), range=(0, 10), name="x")
        card.process({"x": values, "y": path}, {"total": values}, **everything)
        card.process(card.put(values), card.device_empty(3))
        card.enqueue(card.put(values), {"total": card.device_empty(3)}, a=2).result(timeout=2).get()
        report: apyfal.JobReport = card.process(values, report=True)
        of_submit: Future[apyfal.JobReport] = card.process_submit(values, report=True)
        of_map: Iterator[apyfal.JobReport] = card.process_map([values], report=True)
        of_prepared: apyfal.JobReport = card.prepare(values)(report=True)
        print(report.bytes_in + 1, report.seconds["total"] + 0.5, of_submit, of_map, of_prepared.limit.upper())
    names: list[str] = apyfal.storage.glob("*")
    print(names, issubclass(apyfal.exceptions.StorageError, Exception))
