"""The metrics of the daemon, beside those that Prometheus's own client counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from apyfal.host.server.metrics import Metrics

REQUESTS = [("load", 200, 0.0), ("load", 200, 0.005), ("load", 404, 0.0051), ("save", 200, 10.0), ("save", 200, 99.0)]


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the values of a text by their names and labels, without the times at which counting began."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_requests_and_their_times_are_counted_as_by_the_client_of_prometheus() -> None:
    metrics = Metrics({}, {})
    registry = CollectorRegistry()
    requests = Counter("apyfal_requests", "_", ["operation", "status"], registry=registry)
    seconds = Histogram("apyfal_request_seconds", "_", ["operation"], registry=registry)
    for operation, status, duration in REQUESTS:
        metrics.observe(operation, status, duration)
        requests.labels(operation, str(status)).inc()
        seconds.labels(operation).observe(duration)
    assert samples(metrics.text()) == samples(generate_latest(registry))
    assert samples(metrics.text()) == samples(generate_latest(registry))  # and once more: reading counts nothing


def test_nothing_was_requested() -> None:
    assert not samples(Metrics({}, {}).text())


def test_values_of_the_daemon_are_read_when_they_are_collected() -> None:
    jobs = {"done": 1}
    metrics = Metrics({"waiting": ("_", lambda: len(jobs))}, {"jobs": ("_", lambda: jobs), "sent": ("_", lambda: 7)})
    jobs["failed"] = 2
    assert samples(metrics.text()) == {
        ("waiting", ()): 2.0,
        ("jobs_total", (("state", "done"),)): 1.0,
        ("jobs_total", (("state", "failed"),)): 2.0,
        ("sent_total", ()): 7.0,
    }
