"""/metrics of a fed worker, read by promtool and by a real Prometheus."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from kpis.catalog import labels_of
from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Series, event, fetch, names, sample, series, until
from tests.parts.prometheus_server import PrometheusServer, promtool_faults

pytestmark = pytest.mark.integration

OPERATIONS: Final = {
    "leadkpi_events_total",
    "leadkpi_rejects_total",
    "leadkpi_revisions_total",
    "leadkpi_commit_seconds_bucket",
    "leadkpi_event_to_publish_seconds_bucket",
    "leadkpi_lag_records",
    "leadkpi_complete_until_timestamp_seconds",
    "leadkpi_parked_events",
    "leadkpi_shards",
    "leadkpi_publisher_up",
    "leadkpi_scopes",
    "leadkpi_scopes_overflow_total",
    "leadkpi_cost_last_reported_timestamp_seconds",
    "leadkpi_build_info",
}
"""Contract, section 7."""

BUSINESS: Final = {
    *("leadkpi_impressions", "leadkpi_clicks", "leadkpi_leads", "leadkpi_leads_gross"),
    *("leadkpi_cost_amount", "leadkpi_revenue_gross_amount", "leadkpi_revenue_net_amount"),
    *("leadkpi_sales", "leadkpi_new_customers", "leadkpi_converted", "leadkpi_stage_entered"),
    *("leadkpi_stage_current", "leadkpi_ctr_ratio", "leadkpi_cpc_amount", "leadkpi_cpm_amount"),
    *("leadkpi_cpl_amount", "leadkpi_cpl_gross_amount", "leadkpi_click_to_lead_ratio"),
    *("leadkpi_stage_conversion_ratio", "leadkpi_conversion_ratio", "leadkpi_cac_amount"),
    *("leadkpi_purchase_cycle_mean_seconds", "leadkpi_revenue_per_lead_amount"),
    *("leadkpi_net_profit_per_lead_amount", "leadkpi_average_revenue_per_sale_amount"),
    *("leadkpi_roi_ratio", "leadkpi_roas_ratio", "leadkpi_visitors", "leadkpi_mature"),
    *("leadkpi_visitor_to_lead_ratio", "leadkpi_purchase_cycle_p90_seconds"),
    *("leadkpi_cac_media_amount", "leadkpi_mql_to_close_ratio", "leadkpi_cost_coverage_ratio"),
    *("leadkpi_cohort_maturity_ratio", "leadkpi_conversion_within_ratio", "leadkpi_reached"),
    *("leadkpi_target_attainment_ratio", "leadkpi_pacing_ratio"),
    *("leadkpi_unattributed_share_ratio", "leadkpi_closed_from"),
}
SUFFIXES: Final = ("_amount", "_ratio", "_seconds")
WINDOWS: Final = {
    "lifetime": "lifetime",
    "last_1h": "last_1h",
    "last_24h": "last_24h",
    "last_7d": "last_7d",
    "last_28d": "last_28d",
    "1d": "today",
    "1mo": "month",
}
STARTS: Final = {"today": "%Y-%m-%d", "month": "%Y-%m-01"}


def events() -> list[Any]:
    now = datetime.now(UTC)
    paid = {"channel": "google_ads", "campaign_id": "brand"}
    old = (now - timedelta(days=40)).isoformat()
    ago = [(now - timedelta(minutes=n)).isoformat() for n in range(10)]
    row = {"period_start": ago[9], "period_end": ago[5], "reported_at": ago[4]}
    return [
        *(event("impressions", "impression.served", ago[7], **paid) for _ in range(20)),
        *(event("clicks", "click.recorded", ago[6], click_id=f"k{n}", **paid) for n in range(4)),
        event("costs", "cost.snapshot", ago[4], cost_source="x", amount="6", currency="EUR", **paid, **row),
        event("leads", "lead.created", ago[3], lead_id="a", **paid),
        event("leads", "lead.created", ago[3], lead_id="b", **paid),
        event("stage-changes", "lead.stage_changed", ago[2], lead_id="a", to_stage="mql"),
        event("sales", "sale.created", ago[1], sale_id="s", lead_id="a", amount="30", currency="EUR"),
        # Clicks without impressions, cost or leads: much of it is undefined.
        event("clicks", "click.recorded", ago[1], channel="linkedin_ads", campaign_id="cfo"),
        event("visits", "visit.started", ago[1], visit_id="v", visitor_id="w", **paid),
        # A lead of 40 days ago is mature.
        event("leads", "lead.created", old, lead_id="c", **paid),
        event("targets", "target.set", ago[1], kpi="leads", period="month", value="10", period_start=f"{now:%Y-%m-01}", reported_at=ago[1], **paid),
        event("leads", "lead.created", ago[1], lead_id=""),
    ]  # fmt: skip


def check_kpis(exposed: Series, records: dict[str, dict[str, Any]]) -> int:
    """Compare every KPI that is shown with its record, and return how many are undefined."""
    undefined = 0
    for record in records.values():
        window = WINDOWS.get(record["window"]["kind"])
        start = record["window"]["start"]
        if window is None or (
            window in STARTS and not start.startswith(f"{datetime.now(UTC):{STARTS[window]}}")
        ):
            continue
        labels = {
            "basis": record["basis"],
            "window": window,
            "channel": record["scope"]["channel"] or "_all",
            "campaign": record["scope"]["campaign_id"] or "_all",
        }
        for name, kpi in record["kpis"].items():
            base = name.partition(".")[0]
            own = dict(labels_of(name))
            shown = [
                value
                for suffix in SUFFIXES
                if (value := sample(exposed, f"leadkpi_{base}{suffix}", **labels, **own))
                is not None
            ]
            assert shown == ([] if kpi["value"] is None else [kpi["value"]]), (name, labels)
            undefined += kpi["value"] is None
    return undefined


async def fed(deployment: Deployment, url: str) -> str:
    await deployment.send(events())
    await deployment.settle()

    async def shows_all() -> bool:
        exposed = series(fetch(url))
        until_seconds = sample(exposed, "leadkpi_complete_until_timestamp_seconds")
        # NaN until all shards have told how far they are.
        return until_seconds == until_seconds and sample(exposed, "leadkpi_scopes") == 5

    await until(shows_all, "five scopes and a time until which all is counted")
    return fetch(url)


async def test_metrics_have_the_names_of_the_contract_and_prometheus_reads_them(
    deploy: Deploy,
) -> None:
    deployment = await deploy()
    worker = deployment.worker()
    text = await fed(deployment, worker.metrics_url)
    assert promtool_faults(text) == ""
    exposed = series(text)
    assert names(exposed) >= OPERATIONS | BUSINESS
    assert check_kpis(exposed, await deployment.kpi_records()) > 20
    assert not {name for name, value in exposed.items() if value != value}
    amounts = {labels for name, labels in exposed if name == "leadkpi_cpl_amount"}
    assert all(("currency", "EUR") in labels for labels in amounts)
    assert sample(exposed, "leadkpi_shards") == deployment.partitions
    assert sample(exposed, "leadkpi_lag_records") == 0
    assert fetch(worker.metrics_url.replace("/metrics", "/healthz")) == "ok\n"

    target = worker.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with PrometheusServer(target) as prometheus:
        wanted = 'leadkpi_cpl_amount{basis="period",window="last_28d",channel="google_ads",campaign="brand"}'

        async def answers() -> bool:
            return [value for _, value in prometheus.query(wanted)] == [3.0]

        await until(answers, wanted)
        assert [value for _, value in prometheus.query("up")] == [1.0]
    assert worker.stop() == 0
