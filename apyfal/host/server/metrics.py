"""Prometheus metrics of the daemon."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from apyfal.host.server.channel.routes import Channels
    from apyfal.host.server.jobs.manager import JobManager
    from apyfal.host.server.jobs.sessions import Sessions
    from apyfal.host.server.policy.quotas import Quota

__all__ = ["Metrics", "metrics_of"]

#: upper limits in seconds of the times that are counted together; longer ones count in one more
_LIMITS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class _Times:
    """How many requests of an operation took how long."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_LIMITS) + 1)
        self.seconds = 0.0


class Metrics:
    """Counts requests, and reads all other values from the daemon when they are collected.

    Parameters
    ----------
    gauges
        For each name: help text, and a function that returns the value.
    counters
        As `gauges`, for values that only grow. A function can return a value for each ``state`` label.
    """

    def __init__(
        self,
        gauges: dict[str, tuple[str, Callable[[], float]]],
        counters: dict[str, tuple[str, Callable[[], float | dict[str, int]]]],
    ) -> None:
        from prometheus_client import CollectorRegistry

        self._gauges = gauges
        self._counters = counters
        # counted here: the counters of `prometheus_client` take three locks a request, which a small job would feel
        self._requests: dict[tuple[str, int], int] = {}
        self._times: dict[str, _Times] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, operation: str, status: int, seconds: float) -> None:
        """Count one request. Called on the event loop."""
        self._requests[operation, status] = self._requests.get((operation, status), 0) + 1
        times = self._times.get(operation)
        if times is None:
            times = self._times[operation] = _Times()
        times.counts[bisect.bisect_left(_LIMITS, seconds)] += 1
        times.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield all values; called by the registry, on the event loop."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily("apyfal_requests", "Requests answered", labels=["operation", "status"])
        for (operation, status), number in self._requests.items():
            requests.add_metric([operation, str(status)], number)
        yield requests
        seconds = HistogramMetricFamily("apyfal_request_seconds", "Time to answer a request", labels=["operation"])
        for operation, times in self._times.items():
            limits = [*map(str, _LIMITS), "+Inf"]
            counts = itertools.accumulate(times.counts)
            seconds.add_metric([operation], list(zip(limits, counts, strict=True)), times.seconds)
        yield seconds
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        for name, (text, count) in self._counters.items():
            value = count()
            if isinstance(value, dict):
                family = CounterMetricFamily(name, text, labels=["state"])
                for state, number in value.items():
                    family.add_metric([state], number)
                yield family
            else:
                yield CounterMetricFamily(name, text, value=value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


def metrics_of(manager: JobManager, sessions: Sessions, channels: Channels, memory: Quota) -> Metrics:
    """Return the metrics of a daemon with these parts."""
    return Metrics(
        {
            "apyfal_jobs_waiting": ("Waiting jobs", lambda: manager.waiting),
            "apyfal_jobs_running": ("Running jobs", lambda: manager.running),
            "apyfal_sessions": ("Open sessions", lambda: len(sessions)),
            "apyfal_channels": ("Open data channels", lambda: len(channels)),
            "apyfal_memory_bytes": ("Memory for bodies, outputs and shared memory", lambda: memory.used),
        },
        {
            "apyfal_jobs": ("Jobs ended", lambda: dict(manager.finished)),
            "apyfal_job_seconds": ("Run time of jobs", lambda: manager.seconds),
            "apyfal_received_bytes": ("Bytes of jobs' inputs", lambda: manager.bytes_in),
            "apyfal_sent_bytes": ("Bytes of jobs' outputs", lambda: manager.bytes_out),
        },
    )
