"""Builders of what merge hands to the publishers."""

from datetime import UTC, datetime

from kpis.catalog import Catalog
from kpis.facts import Facts, Scope
from kpis.windows import Window, WindowValues
from streams.publishers import ScopeView

CATALOG = Catalog(("visitor", "lead", "mql", "sql", "customer"))
NOON_MS = int(datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp()) * 1000
NOON = NOON_MS // 60_000
CAMPAIGN = Scope("google_ads", "c-42")
LINEAGE = "5f3a"

WINDOWS = {
    "1m": Window("1m", NOON, NOON + 1),
    "1h": Window("1h", NOON, NOON + 60),
    # The day on which Paris goes to summer time: 23 hours.
    "1d": Window("1d", NOON - 13 * 60, NOON + 10 * 60),
    "lifetime": Window("lifetime", None, None),
    "last_1h": Window("last_1h", NOON - 59, NOON + 1),
    "last_24h": Window("last_24h", NOON - 23 * 60, NOON + 60),
    "1m@previous": Window("1m", NOON - 1, NOON),
    "1h@previous": Window("1h", NOON - 60, NOON),
    "1d@previous": Window("1d", NOON - 37 * 60, NOON - 13 * 60),
}


def values(
    slot: str, facts: Facts, scope: Scope = CAMPAIGN, *, cost_expected: bool = True
) -> WindowValues:
    """Return the numbers of a slot with the given facts."""
    return WindowValues(
        basis="period",
        scope=scope,
        window=WINDOWS[slot],
        facts=facts,
        kpis=CATALOG.evaluate(facts, cost_expected=cost_expected),
        complete_until_ms=NOON_MS - 5_000,
        computed_at_ms=NOON_MS + 412,
    )


def version(position: int, epoch: int = 1, lineage: str = LINEAGE) -> str:
    """Return the version of a commit."""
    return f"{position}.{epoch}.{lineage}"


def view(
    slots: dict[str, Facts],
    scope: Scope = CAMPAIGN,
    *,
    shard: int = 0,
    at: str = version(10),
    cost_expected: bool = True,
) -> ScopeView:
    """Return a view with the given facts by slot, committed at version `at`."""
    return ScopeView(
        shard,
        at,
        scope,
        {
            slot: values(slot, facts, scope, cost_expected=cost_expected)
            for slot, facts in slots.items()
        },
    )
