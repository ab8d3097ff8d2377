"""The worked example of the contract without a broker: every fact and KPI, on both bases."""

from collections.abc import Mapping
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from kpis import visitors
from kpis.calendar import MINUTE_MS, Calendar
from kpis.catalog import Catalog, Undefined
from kpis.coverage import CostReports
from kpis.evaluation import Surroundings, derived
from kpis.facts import AMOUNTS, Facts, Scope, Subject
from kpis.fold import HORIZON_MS, Fold, FoldResult
from kpis.instants import DAY_MS, instant_ms
from kpis.leads import Funnel
from kpis.money import MICROS
from kpis.reading import Rules
from kpis.retention import Buckets, Retention
from kpis.spans import Spans
from kpis.surroundings import coverage, is_overall, is_reached, mature, unattributed_leads
from tests.golden.example import (
    AS_OF,
    EXPECTED,
    MONTH_START,
    ORDERS,
    ZONE,
    Expected,
    Line,
    rounded,
    shown,
)

pytestmark = pytest.mark.skipif(not visitors.AVAILABLE, reason="visitors need datasketches")

NOW_MS: Final = instant_ms(AS_OF)
WEEK_MS: Final = 7 * DAY_MS
CALENDAR: Final = Calendar(ZoneInfo(ZONE))
MARCH: Final = Spans(Buckets(CALENDAR, Retention())).tumbling(
    "1mo", instant_ms(MONTH_START) // MINUTE_MS
)
CATALOG: Final = Catalog(("visitor", "lead", "mql", "sql", "customer"))


def fold_of(lines: list[Line]) -> FoldResult:
    rules = Rules(time_zone=CALENDAR.zone)
    fold = Fold(rules, Funnel(), CALENDAR, Retention(), WEEK_MS, WEEK_MS)
    for offset, (topic, value) in enumerate(lines):
        fold.add(topic, 0, offset, value, NOW_MS)
    return fold.result(NOW_MS)


@pytest.fixture(scope="module", params=list(ORDERS))
def result(request: pytest.FixtureRequest) -> FoldResult:
    return fold_of(ORDERS[request.param])


def surroundings(result: FoldResult, subject: Subject) -> Surroundings:
    reports = CostReports()
    for row in result.reports:
        reports.add(*row)
    cost = coverage(result, subject, MARCH, lambda channel: channel.endswith("_ads"), reports)
    old = mature(result, subject, MARCH, NOW_MS, HORIZON_MS, CALENDAR)
    return Surroundings(
        expected=cost.expected,
        covered=cost.covered,
        unattributed_leads=unattributed_leads(result, subject.basis, MARCH),
        mature_leads=old.leads,
        mature_converted=old.converted,
        cost_until_reached=is_reached(MARCH, cost.until_minute, NOW_MS),
        is_overall=is_overall(subject),
    )


def in_euros(facts: Mapping[str, int]) -> Facts:
    return {name: fact // MICROS if name in AMOUNTS else fact for name, fact in facts.items()}


def subject_of(expected: Expected) -> Subject:
    channel = None if expected.channel == "_all" else expected.channel
    return Subject(expected.basis, Scope(channel, None))


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda one: f"{one.basis} {one.channel}")
def test_golden_month_gives_every_fact(result: FoldResult, expected: Expected) -> None:
    subject = subject_of(expected)
    facts = derived(result.facts(subject, MARCH), expected.basis)
    whole = [fact for name, fact in facts.items() if name in AMOUNTS]
    assert all(micros % MICROS == 0 for micros in whole)
    # `leads` is written down on the cohort basis, where it is stored.
    assert shown(expected.basis, in_euros(facts)) == expected.facts
    assert surroundings(result, subject).mature_leads == expected.mature


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda one: f"{one.basis} {one.channel}")
def test_golden_month_gives_every_kpi(result: FoldResult, expected: Expected) -> None:
    subject = subject_of(expected)
    facts, around = result.facts(subject, MARCH), surroundings(result, subject)
    values = CATALOG.evaluate(expected.basis, facts, around)
    for name, kpi in expected.kpis.items():
        is_defined = kpi["value"] is not None
        wanted = rounded(kpi["value"]) if is_defined else Undefined(kpi["undefined_reason"])
        assert values[name] == wanted, name
    assert not CATALOG.partial(expected.basis, facts, around)


def test_golden_month_has_no_reject(result: FoldResult) -> None:
    assert result.rejects == []
