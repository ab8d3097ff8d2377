"""Builders of what merge hands to the publishers."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from kpis.calendar import Calendar
from kpis.catalog import Catalog, Surroundings
from kpis.facts import OVERALL, PERIOD, Facts, Scope, Subject
from kpis.retention import Buckets, Retention
from kpis.spans import Spans
from kpis.windows import WindowValues
from streams.publishers import AlertView, ScopeView

CATALOG = Catalog(("visitor", "lead", "mql", "sql", "customer"))
NOON_MS = int(datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp()) * 1000
NOON = NOON_MS // 60_000
CAMPAIGN = Scope("google_ads", "c-42")
LINEAGE = "5f3a"

SPANS = Spans(Buckets(Calendar(ZoneInfo("Europe/Paris")), Retention()))
# The day on which Paris goes to summer time: 23 hours.
WINDOWS = {slot.name: slot.window for slot in SPANS.slots(NOON)}


def values(
    slot: str,
    facts: Facts,
    scope: Scope = CAMPAIGN,
    *,
    basis: str = PERIOD,
    around: Surroundings | None = None,
) -> WindowValues:
    """Return the numbers of a slot with the given facts; without `around`, as of a scope by itself."""
    if around is None:
        is_expected = str(scope.channel).endswith("_ads")
        is_covered = is_expected and facts.get("cost_records", 0) > 0
        around = Surroundings(int(is_expected), int(is_covered), is_overall=scope == OVERALL)
    return WindowValues(
        basis=basis,
        scope=scope,
        window=WINDOWS[slot],
        facts=facts,
        kpis=CATALOG.evaluate(basis, facts, around),
        complete_until_ms=NOON_MS - 5_000,
        computed_at_ms=NOON_MS + 412,
        surroundings=around,
    )


def version(position: int, epoch: int = 1, lineage: str = LINEAGE) -> str:
    """Return the version of a commit."""
    return f"{position}.{epoch}.{lineage}"


def view(
    slots: Mapping[str, Facts],
    scope: Scope = CAMPAIGN,
    *,
    basis: str = PERIOD,
    shard: int = 0,
    at: str = version(10),
    around: Surroundings | None = None,
) -> ScopeView:
    """Return a view with the given facts by slot, committed at version `at`."""
    return ScopeView(
        shard,
        at,
        Subject(basis, scope),
        {
            slot: values(slot, facts, scope, basis=basis, around=around)
            for slot, facts in slots.items()
        },
    )


def alert_view(
    state: str | None,
    scope: Scope = CAMPAIGN,
    *,
    rule: str = "cpl_spike",
    shard: int = 0,
    at: str = version(10),
    since: str = "2026-03-29T11:58:30Z",
) -> AlertView:
    """Return the alert of a scope in a state, committed at version `at`; None: it is shown no more."""
    value = {
        "version": 1,
        "rule": rule,
        "state": state,
        "at": "2026-03-29T12:00:00Z",
        "since": since,
        "message_en": "Leads cost too much",
        "message_fr": "Les leads coûtent trop cher",
    }
    encoded = None if state is None else json.dumps(value, ensure_ascii=False).encode()
    return AlertView(shard, at, rule, scope, encoded)
