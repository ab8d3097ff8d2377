"""The metrics of the worker itself; those of the business come from publishers.prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from kpis.ledger import Cause

OUTCOMES = (
    "accepted",
    "duplicate",
    "conflict",
    "late",
    "parked",
    "rejected",
    "test",
    "ignored",
)
"""The values of the label `outcome`: those of contract section 7, and null values on costs."""

_COMMIT_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10, 30)
_PUBLISH_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """Every metric of contract section 7 under "operations", on one registry.

    Args:
        registry: Where they are registered; each worker has its own.
        version: The version of this software, for `leadkpi_build_info`.
    """

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"leadkpi_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"leadkpi_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
            return Histogram(f"leadkpi_{name}", text, buckets=bounds, registry=registry)

        # A switch of the whole process: it would add a `_created` series beside each counter.
        disable_created_metrics()  # type: ignore[no-untyped-call] # untyped there
        self.registry = registry
        self.events = counter(
            "events_total", "Events read, by what became of them.", "topic", "outcome"
        )
        self.rejects = counter("rejects_total", "Events that can never be counted.", "reason")
        self.remarks = counter(
            "remarks_total", "Odd things about accepted events, such as unknown fields.", "remark"
        )
        self.revisions = counter("revisions_total", "Changes of final windows.", "cause")
        for cause in Cause:
            # A series that begins at its first event would show no increase by it.
            self.revisions.labels(cause.label)
        self.commit_seconds = histogram(
            "commit_seconds", "How long a shard's transaction took.", _COMMIT_SECONDS
        )
        self.event_to_publish_seconds = histogram(
            "event_to_publish_seconds",
            "From an event's arrival at the broker to the commit of its numbers.",
            _PUBLISH_SECONDS,
        )
        self.lag_records = gauge(
            "lag_records", "Records that wait to be read.", "topic", "partition"
        )
        self.complete_until = gauge(
            "complete_until_timestamp_seconds",
            "Everything that arrived before this instant is counted; NaN until known.",
        )
        self.complete_until.set(float("nan"))
        self.parked_events = gauge("parked_events", "Events that wait for what they belong to.")
        self.shards = gauge("shards", "Shards that this worker owns.")
        self.publisher_up = gauge(
            "publisher_up",
            "Whether the publisher reached its target when it last tried.",
            "publisher",
        )
        self.webhook_deliveries = counter(
            "webhook_deliveries_total", "Alerts posted, by what came of it.", "outcome"
        )
        self.alerts = counter("alerts_total", "Alerts that fired or resolved.", "rule", "state")
        self.scopes = gauge("scopes", "Scopes with numbers in the shards of this worker.")
        self.scopes_overflow = counter(
            "scopes_overflow_total", "Campaign scopes left out because of limits.scopes."
        )
        self.cost_reported_ms: dict[str, int] = {}
        self.cost_last_reported = gauge(
            "cost_last_reported_timestamp_seconds",
            "When the newest cost record of a channel was reported.",
            "channel",
        )
        gauge("build_info", "Always 1; the label tells the version.", "version").labels(
            version
        ).set(1)
