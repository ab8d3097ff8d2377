"""When windows get a revision, which one, and why."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.events import (
    ClickRecorded,
    ClickVoided,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    Envelope,
    Event,
    FxRateSet,
    ImpressionServed,
    LeadCreated,
    LeadDisqualified,
    LeadInvalidated,
    LeadMerged,
    LeadRequalified,
    LeadStageChanged,
    LeadUpdated,
    SaleAmended,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
    SaleVoided,
    VisitStarted,
)
from kpis.ledger import (
    OUTCOME_MS,
    REVISION_MS,
    Cause,
    Causes,
    Entry,
    causes_of,
    changed,
    decode_entry,
    due_ms,
    encode_entry,
    is_due,
    issued,
    opened,
)

EXAMPLES = max(1_000, settings().max_examples)
NOW = 1_774_000_000_123
MINUTE = 60_000

# ----------------------------------------------------------------------------- causes

E = Envelope("e-1", "/crm", NOW, None, b"")
LATE = Causes(Cause.LATE_EVENT, Cause.LATE_EVENT)
OUTCOME = Causes(Cause.LATE_EVENT, Cause.OUTCOME)
LEAD = Causes(Cause.LEAD_CORRECTED, Cause.LEAD_CORRECTED)
SALE = Causes(Cause.SALE_CORRECTED, Cause.SALE_CORRECTED)
COST = Causes(Cause.COST_RESTATED, Cause.COST_RESTATED)
FX = Causes(Cause.FX_RESTATED, Cause.FX_RESTATED)
BILL = CostSnapshot(E, "ads", "", "seo", "-", "", "", "media", 0, 9, 9, 1, "EUR", False, 9)


@pytest.mark.parametrize(
    ("event", "causes"),
    [
        (ImpressionServed(E, "i", "seo", "-", True, False), LATE),
        (ClickRecorded(E, None, "seo", "-", False), LATE),
        (ClickVoided(E, "c-1", None), LATE),
        (VisitStarted(E, "v-1", "seo", "-", False), LATE),
        (CountsReported(E, "clicks", "seo", "-", "", "", 0, 9, 9, 1, 9), LATE),
        (LeadCreated(E, "l-1", None, None, None, None, "lead"), LATE),
        (BILL, LATE),
        (LeadStageChanged(E, "l-1", "mql", None, None), OUTCOME),
        (SaleCreated(E, "s-1", "l-1", 1, "EUR", None, None), OUTCOME),
        (SaleRefunded(E, "r-1", "s-1", 1, "EUR"), OUTCOME),
        (SaleCancelled(E, "s-1", None), OUTCOME),
        (LeadUpdated(E, "l-1", "seo", None), LEAD),
        (LeadInvalidated(E, "l-1", "spam"), LEAD),
        (LeadMerged(E, "l-1", "l-2"), LEAD),
        (LeadDisqualified(E, "l-1", None), LEAD),
        (LeadRequalified(E, "l-1", None), LEAD),
        (SaleAmended(E, "s-1", 1, "EUR"), SALE),
        (SaleVoided(E, "s-1", None), SALE),
        (CostDeleted(E, "ads", "", "seo", "-", "", "", "media", 0, 9, False, 9), COST),
        (FxRateSet(E, "EUR", "USD", 1, 11, 10), FX),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_event_has_its_causes(event: Event, causes: Causes) -> None:
    assert causes_of(event) == causes


def test_only_a_bill_that_replaces_another_is_a_restatement() -> None:
    assert causes_of(BILL, replaces=True) == COST
    report = CountsReported(E, "clicks", "seo", "-", "", "", 0, 9, 9, 1, 9)
    assert causes_of(report, replaces=True) == LATE


def test_causes_have_the_names_of_the_contract() -> None:
    assert [cause.label for cause in Cause] == [
        "outcome",
        "late_event",
        "lead_corrected",
        "sale_corrected",
        "cost_restated",
        "fx_restated",
    ]


# ----------------------------------------------------------------------------- revisions


def test_a_change_makes_the_next_revision_a_minute_later() -> None:
    #  final          change       due
    #  |--------------|------------|
    #  0              10 s         60 s
    entry = changed(opened(NOW), Cause.LATE_EVENT, {"leads": 1})
    assert due_ms(entry) == NOW + MINUTE
    assert not is_due(entry, NOW + MINUTE - 1)
    assert is_due(entry, NOW + MINUTE)
    assert issued(entry, NOW + MINUTE, {"leads": 2}) == Entry(2, NOW + MINUTE)


def test_without_a_change_nothing_is_due() -> None:
    assert due_ms(opened(NOW)) is None
    assert not is_due(opened(NOW), NOW + 10**9)


def test_mere_outcomes_wait_for_a_day_unless_something_else_changes() -> None:
    entry = changed(opened(NOW), Cause.OUTCOME, {"leads": 1})
    assert due_ms(entry) == NOW + 24 * 60 * MINUTE
    entry = changed(entry, Cause.SALE_CORRECTED, {"leads": 1, "converted": 1})
    assert due_ms(entry) == NOW + MINUTE
    assert changed(entry, Cause.OUTCOME, {"leads": 2}) == entry


def test_what_changes_back_before_it_is_due_makes_no_revision() -> None:
    entry = changed(opened(NOW), Cause.LATE_EVENT, {"leads": 1})
    entry = changed(entry, Cause.LEAD_CORRECTED, {"leads": 2})
    assert issued(entry, NOW + MINUTE, {"leads": 1}) == opened(NOW)


def test_a_window_that_becomes_empty_is_revised_too() -> None:
    entry = changed(opened(NOW), Cause.LEAD_CORRECTED, {"leads": 1})
    assert issued(entry, NOW + MINUTE, {}).revision == 2


def test_a_clock_that_was_set_back_holds_up_no_revision() -> None:
    entry = changed(opened(NOW), Cause.LATE_EVENT, {"leads": 1})
    assert is_due(entry, NOW - 10**9)


@pytest.mark.parametrize(("revision", "size"), [(1, 7), (100, 7), (40_000, 9)])
def test_an_entry_without_a_change_takes_few_bytes(revision: int, size: int) -> None:
    assert len(encode_entry(Entry(revision, NOW))) == size


some_facts = st.dictionaries(st.sampled_from(("leads", "cost", "reached.sql.mql")), st.integers())
entries = st.builds(
    lambda revision, seconds, pending: Entry(revision, seconds * 1_000, *pending),
    st.integers(1, 10**9),
    st.integers(0, 10**10),
    st.one_of(st.just((0, None)), st.tuples(st.integers(1, 6), some_facts)),
)


@given(entries)
@settings(max_examples=EXAMPLES)
def test_a_row_gives_back_its_entry(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@given(st.integers(0, 10**14))
@settings(max_examples=EXAMPLES)
def test_a_row_never_lets_a_revision_be_earlier(now_ms: int) -> None:
    assert 0 <= decode_entry(encode_entry(opened(now_ms))).issued_ms - now_ms < 1_000


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(Cause), st.sampled_from((-1, 1, 2))),
        st.tuples(st.just("time"), st.integers(0, 2 * OUTCOME_MS)),
        st.tuples(st.just("time"), st.integers(0, 2 * REVISION_MS)),
        st.tuples(st.just("clock is wrong"), st.integers(-(10**9), 10**9)),
        st.tuples(st.just("restart")),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=EXAMPLES)
def test_revisions_strictly_rise_and_ids_never_repeat(steps: list[tuple[object, ...]]) -> None:
    now_ms, leads, entry = NOW, 1, opened(NOW)
    records: list[tuple[int, dict[str, int]]] = [(1, {"leads": leads})]
    for step in steps:
        match step:
            case ("change", Cause() as cause, int(more)):
                entry = changed(entry, cause, {"leads": leads})
                leads += more
            case (_, int(passed)):
                now_ms += passed
            case _:
                entry = decode_entry(encode_entry(entry))
        if is_due(entry, now_ms):
            before = entry.facts
            after = issued(entry, now_ms, {"leads": leads})
            assert before == records[-1][1]
            if after.revision != entry.revision:
                records.append((after.revision, {"leads": leads}))
            else:
                assert before == {"leads": leads}
            entry = after
        if not entry.cause:
            assert records[-1] == (entry.revision, {"leads": leads})
    # An id is made of the key, which is one here, the revision and the facts.
    assert [revision for revision, _ in records] == list(range(1, len(records) + 1))
    assert all(old[1] != new[1] for old, new in pairwise(records))


@given(STEPS)
@settings(max_examples=EXAMPLES)
def test_at_most_one_revision_a_minute_and_mere_outcomes_once_a_day(
    steps: list[tuple[object, ...]],
) -> None:
    now_ms, entry, last_ms, leads = NOW, opened(NOW), NOW, 1
    is_mere_outcome = True
    for step in steps:
        match step:
            case ("change", Cause() as cause, int(more)):
                entry = changed(entry, cause, {"leads": leads})
                leads += more
                is_mere_outcome = is_mere_outcome and cause is Cause.OUTCOME
            case ("time", int(passed)):
                now_ms += passed
        if is_due(entry, now_ms):
            after = issued(entry, now_ms, {"leads": leads})
            if after.revision > entry.revision:
                assert now_ms - last_ms >= (OUTCOME_MS if is_mere_outcome else REVISION_MS)
                last_ms = now_ms
            entry, is_mere_outcome = after, True
