"""Prometheus metrics of the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Metrics"]


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
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._gauges = gauges
        self._counters = counters
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "apyfal_requests", "Requests answered", ["operation", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "apyfal_request_seconds", "Time to answer a request", ["operation"], registry=self._registry
        )
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._registry.register(self)

    def observe(self, operation: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = self._known.get((operation, status))
        if known is None:  # `labels` formats and locks: done once for each pair
            known = self._requests.labels(operation, str(status)), self._seconds.labels(operation)
            self._known[operation, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield all values; called by the registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

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
