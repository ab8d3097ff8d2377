import math

from prometheus_client import CollectorRegistry

from streams.metrics import Metrics


def test_every_operations_metric_of_the_contract_is_there() -> None:
    registry = CollectorRegistry()
    Metrics(registry, "1.2.3")

    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }

    assert names == {
        "leadkpi_events_total",
        "leadkpi_rejects_total",
        "leadkpi_remarks_total",
        "leadkpi_revisions_total",
        "leadkpi_commit_seconds",
        "leadkpi_event_to_publish_seconds",
        "leadkpi_lag_records",
        "leadkpi_complete_until_timestamp_seconds",
        "leadkpi_parked_events",
        "leadkpi_shards",
        "leadkpi_publisher_up",
        "leadkpi_webhook_deliveries_total",
        "leadkpi_alerts_total",
        "leadkpi_scopes",
        "leadkpi_scopes_overflow_total",
        "leadkpi_cost_last_reported_timestamp_seconds",
        "leadkpi_build_info",
    }


def test_labels_are_those_of_the_contract() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "1.2.3")

    metrics.events.labels(topic="clicks", outcome="accepted").inc(3)
    metrics.rejects.labels(reason="bad_time").inc()
    metrics.revisions.labels(cause="late_event").inc()
    metrics.alerts.labels(rule="cpl_spike", state="fired").inc()
    metrics.lag_records.labels(topic="clicks", partition="0").set(5)
    metrics.publisher_up.labels(publisher="redis").set(1)
    metrics.cost_last_reported.labels(channel="google_ads").set(7)

    sample = registry.get_sample_value
    assert sample("leadkpi_revisions_total", {"cause": "late_event"}) == 1
    assert sample("leadkpi_revisions_total", {"cause": "fx_restated"}) == 0
    assert sample("leadkpi_events_total", {"topic": "clicks", "outcome": "accepted"}) == 3
    assert sample("leadkpi_lag_records", {"topic": "clicks", "partition": "0"}) == 5
    assert sample("leadkpi_build_info", {"version": "1.2.3"}) == 1


def test_completeness_is_no_number_until_it_is_known() -> None:
    registry = CollectorRegistry()
    Metrics(registry, "1.2.3")

    until = registry.get_sample_value("leadkpi_complete_until_timestamp_seconds")

    assert until is not None
    assert math.isnan(until)


def test_two_workers_in_one_process_do_not_share_metrics() -> None:
    one, other = (Metrics(CollectorRegistry(), "1.2.3") for _ in range(2))

    one.shards.set(3)

    assert other.registry.get_sample_value("leadkpi_shards") == 0
