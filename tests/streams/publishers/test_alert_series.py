from prometheus_client import CollectorRegistry

from kpis.facts import OVERALL
from streams.publishers import AlertView, Snapshot
from streams.publishers.alert_series import AlertCollector
from tests.streams.publishers.views import CAMPAIGN, alert_view, version


def registry_with(*alerts: AlertView) -> CollectorRegistry:
    """Return a registry where alerts are exported; of the shards only 0 is live."""
    snapshot = Snapshot()
    for alert in alerts:
        snapshot.replace_alert(alert)
    registry = CollectorRegistry()
    registry.register(AlertCollector(snapshot, lambda shard: shard == 0))
    return registry


def firing(registry: CollectorRegistry) -> list[dict[str, str]]:
    """Return the labels of all series, each of which is 1."""
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert {(sample.name, sample.value) for sample in samples} <= {("leadkpi_alert_firing", 1)}
    return [dict(sample.labels) for sample in samples]


def test_a_firing_alert_is_one_by_rule_channel_and_campaign() -> None:
    registry = registry_with(
        alert_view("fired"),
        alert_view("updated", OVERALL),
        alert_view("resolved", rule="cost_missing"),
    )

    assert firing(registry) == [
        {"rule": "cpl_spike", "channel": "google_ads", "campaign": "c-42"},
        {"rule": "cpl_spike", "channel": "_all", "campaign": "_all"},
    ]


def test_a_resolved_alert_has_no_series_and_neither_has_one_that_is_shown_no_more() -> None:
    fired = alert_view("fired")

    assert not firing(registry_with(fired, alert_view("resolved", at=version(11))))
    assert not firing(registry_with(fired, alert_view(None, at=version(11))))


def test_only_who_owns_the_shard_exports_its_alerts() -> None:
    assert not firing(registry_with(alert_view("fired", CAMPAIGN, shard=1)))
