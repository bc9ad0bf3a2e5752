"""What the service counts, in Prometheus' text format; with several workers each writes a file,
and any of them sums all files."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # where workers write; prometheus_client reads it when it is imported
TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)


class Measures:
    """Counters of one process.

    ``paths`` are the only values of the label ``path``; every other one counts as "other",
    so that no client can add series.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._registry = CollectorRegistry()
        requests = Counter(
            "alkd_requests", "Requests by path and status", ["path", "status"], registry=self._registry
        )
        seconds = Histogram(
            "alkd_request_seconds", "From the head of a request to the end of its answer", ["path"],
            buckets=_BUCKETS,
            registry=self._registry,
        )  # fmt: skip
        self._requests = requests
        self._seen: dict[tuple[str, int], Counter] = {}
        self._seconds = {path: seconds.labels(path) for path in (*paths, "other")}
        self.unknown = Counter(
            "alkd_unknown_items", "Ids of sessions that are not in the catalogue", registry=self._registry
        )
        self.popular = Counter(
            "alkd_popular", "Sessions served by popularity, as nothing was known", registry=self._registry
        )
        self.reloads = Counter(
            "alkd_reloads", "Reloads of the bundle, by result", ["result"], registry=self._registry
        )
        self.items = Gauge(
            "alkd_items",
            "Items of the bundle that was loaded last",
            multiprocess_mode="mostrecent",
            registry=self._registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        place = self._seconds.get(path)
        if place is None:
            path, place = "other", self._seconds["other"]
        place.observe(seconds)
        counter = self._seen.get((path, status))
        if counter is None:
            counter = self._seen[path, status] = self._requests.labels(path, str(status))
        counter.inc()

    def text(self) -> bytes:
        """All counts, of every worker."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
