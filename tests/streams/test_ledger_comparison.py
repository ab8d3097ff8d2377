"""A ledger that says what leadgen.kpis.v1 says is right; everything else is named."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from kpis.calendar import MINUTE_MS
from kpis.facts import COHORT, PERIOD, Subject
from kpis.retention import Retention
from kpis.spans import Window
from kpis.windows import record
from streams.comparison import Comparison, Expected
from streams.ledger_comparison import MARGIN_MS, Ledger, compare_ledger
from tests.kpis.streams_of_records import (
    CHANGES,
    DAY_MS,
    PARIS,
    Record,
    any_records,
    fold_of,
    ms,
)
from tests.kpis.streams_of_records import record as a_record
from tests.streams.test_comparison import (
    CATALOG,
    Records,
    expected_from,
    expected_of,
    published,
    published_records,
)

NOON_MS = ms("2026-03-20T12:00:00+01:00")
LATE_MS = NOON_MS + 60 * DAY_MS
HOUR = b"period|1h|2026-03-20T12:00:00+01:00|seo|_all"
Entries = list[tuple[bytes, bytes]]


def issued(expected: Expected, subject: Subject, window: Window, until_ms: int, **told: Any) -> Any:
    """Return the record of a window as a worker would issue it, None if it has no facts."""
    values = published(expected, subject, window, until_ms)
    if values is None:
        return None
    fields = {name: getattr(values, name) for name in values.__struct_fields__}
    return record(type(values)(**{**fields, **told}), CATALOG, PARIS, "EUR")


def a_ledger(expected: Expected, until_ms: int = LATE_MS) -> tuple[Entries, Records]:
    """Return the ledger of a worker that makes no mistakes, and what it says on leadgen.kpis.v1."""
    entries: Entries = []
    records = published_records(expected)
    for subject, window in expected.stored():
        final_minute = expected.spans.final_minute(window)
        if final_minute is not None and final_minute * MINUTE_MS <= until_ms:
            told: dict[str, Any] = {"state": "final", "revision": 1}
            written = issued(expected, subject, window, until_ms, **told)
            entries.append((written.key, written.value))
            records[written.key] = written.value
    return entries, records


def differences(
    expected: Expected,
    entries: Entries,
    records: Records,
    until_ms: int | None = LATE_MS,
    *,
    is_whole: bool = True,
) -> list[str]:
    found = Comparison()
    compare_ledger(expected, Ledger(entries, is_whole), records, until_ms, found)
    return [str(one) for one in found.differences]


def an_hour() -> Expected:
    """Return some clicks and a lead of one hour that bought later."""
    clicks = [
        a_record("clicks", "click.recorded", NOON_MS + n * MINUTE_MS, channel="seo") for n in (0, 7)
    ]
    lead = a_record("leads", "lead.created", NOON_MS, lead_id="l", channel="seo")
    paid: dict[str, Any] = {"sale_id": "s", "amount": "5", "currency": "EUR"}
    sale = a_record("sales", "sale.created", NOON_MS + DAY_MS, lead_id="l", **paid)
    return expected_of([*clicks, lead, sale])


def with_value(entries: Entries, key: bytes, **changes: Any) -> Entries:
    """Return the ledger with changed members in the records of a key."""
    return [
        (each, json.dumps({**json.loads(value), **changes}).encode() if each == key else value)
        for each, value in entries
    ]


def revised(entries: Entries, key: bytes, **changes: Any) -> Entries:
    """Return the ledger with one more record of a key, which is revision 2 unless changed."""
    value = json.loads(dict(entries)[key])
    value |= {"id": "another", "state": "revised", "revision": 2, "cause": "late_event", **changes}
    return [*entries, (key, json.dumps(value).encode())]


def revised_records(records: Records, key: bytes, **changes: Any) -> Records:
    value = json.loads(records[key])
    value |= {"state": "revised", "revision": 2, **changes}
    return records | {key: json.dumps(value).encode()}


@given(any_records(max_size=8))
# A cost of some days makes thousands of windows.
@settings(max_examples=10)
def test_a_ledger_without_mistakes_is_exact(records: list[Record]) -> None:
    until_ms = CHANGES[PARIS][1] + 20 * DAY_MS
    expected = expected_from(fold_of(records, PARIS, Retention(), until_ms))
    assert differences(expected, *a_ledger(expected, until_ms), until_ms) == []


def test_a_revision_of_the_same_facts_is_exact() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    assert differences(expected, revised(entries, HOUR), revised_records(records, HOUR)) == []


def test_a_missing_window_is_told_once_it_is_due_for_some_time() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    del records[HOUR]
    records |= {key: value for key, value in published_records(expected).items() if key == HOUR}
    without = [(key, value) for key, value in entries if key != HOUR]
    (told,) = differences(expected, without, records)
    assert told.startswith(f"ledger {HOUR.decode()}: expected ")
    assert told.endswith("got nothing")
    final_ms = ms("2026-03-20T15:00:00+01:00")
    early = a_ledger(expected, final_ms - 1)
    assert differences(expected, *early, final_ms + MARGIN_MS - 1) == []
    assert any(HOUR.decode() in one for one in differences(expected, *early, final_ms + MARGIN_MS))


def test_a_window_that_was_not_due_is_told() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    early = with_value(entries, HOUR, complete_until="2026-03-20T13:59:59Z")
    (told,) = differences(expected, early, records)
    assert told.startswith(f"ledger {HOUR.decode()} revision 1: expected a window that is complete")
    unknown = with_value(entries, HOUR, complete_until=None)
    assert len(differences(expected, unknown, records)) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"revision": 3}, "revision: expected 2, got 3"),
        ({"revision": 1}, "revision: expected 2, got 1"),
        ({"state": "final"}, "revision 2 state: expected revised, got final"),
        ({"cause": None}, "revision 2 cause: expected a cause, got None"),
        ({"cause": "whim"}, "revision 2 cause: expected a cause, got whim"),
    ],
)
def test_a_revision_that_is_not_the_next_one_is_told(changes: dict[str, Any], told: str) -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    found = differences(
        expected, revised(entries, HOUR, **changes), revised_records(records, HOUR, **changes)
    )
    assert f"ledger {HOUR.decode()} {told}" in found


def test_a_first_record_with_a_cause_or_previous_values_is_told() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    changed = with_value(entries, HOUR, cause="outcome", previous={"cpl": 1.0})
    assert differences(expected, changed, records) == [
        f"ledger {HOUR.decode()} revision 1 cause: expected no cause, got outcome",
        f"ledger {HOUR.decode()} revision 1 previous: expected nothing, got values",
    ]


def test_an_id_that_comes_twice_is_told() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    same = json.loads(dict(entries)[HOUR])["id"]
    (told,) = differences(expected, revised(entries, HOUR, id=same), revised_records(records, HOUR))
    assert told == (
        f"ledger {HOUR.decode()} id: expected one of its own, got that of {HOUR.decode()} revision 1"
    )


def test_where_the_beginning_is_gone_a_later_revision_may_come_first() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    later = {"state": "revised", "revision": 2, "cause": "late_event"}
    entries = with_value(entries, HOUR, **later)
    records = revised_records(records, HOUR)
    assert differences(expected, entries, records, is_whole=False) == []
    assert len(differences(expected, entries, records)) == 1


def test_wrong_facts_and_kpis_of_the_last_record_are_told() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    value = json.loads(dict(entries)[HOUR])
    value["facts"]["clicks"] = 3
    value["kpis"]["click_to_lead"]["value"] = 0.25
    wrong = with_value(entries, HOUR, facts=value["facts"], kpis=value["kpis"])
    clicks, click_to_lead = differences(expected, wrong, records)
    assert clicks == f"ledger {HOUR.decode()} revision 1 clicks: expected 2, got 3"
    assert "click_to_lead: expected 0.5" in click_to_lead
    # What was corrected by a revision counts no more.
    right = [*wrong, *revised([(HOUR, dict(entries)[HOUR])], HOUR)[1:]]
    assert differences(expected, right, revised_records(records, HOUR)) == []


def test_a_change_may_be_pending_for_a_while() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    wrong = with_value(entries, HOUR, facts={"clicks": 1}, computed_at="2026-03-20T15:00:00Z")
    issued_ms = ms("2026-03-20T15:00:00Z")
    pending = revised_records(records, HOUR, state="provisional", revision=1)
    only_hours = [(key, value) for key, value in wrong if key == HOUR]

    def told(until_ms: int) -> list[str]:
        found = differences(expected, only_hours, pending, until_ms)
        return [one for one in found if one.startswith(f"ledger {HOUR.decode()}")]

    assert told(issued_ms + MINUTE_MS + MARGIN_MS) == []
    assert told(issued_ms + MINUTE_MS + MARGIN_MS + 1) == [
        f"ledger {HOUR.decode()}: expected a revision 2, got nothing"
    ]


def test_outcomes_of_a_cohort_may_be_pending_for_a_day() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    key = HOUR.replace(b"period", b"cohort")
    wrong = with_value(entries, key, facts={"leads": 1}, computed_at="2026-03-20T15:00:00Z")
    pending = revised_records(records, key, state="provisional", revision=1)
    issued_ms = ms("2026-03-20T15:00:00Z")
    only_this = [each for each in wrong if each[0] == key]
    for until_ms, times in ((issued_ms + DAY_MS, 0), (issued_ms + DAY_MS + MARGIN_MS + 1, 1)):
        found = differences(expected, only_this, pending, until_ms)
        assert sum(one.startswith(f"ledger {key.decode()}:") for one in found) == times


def test_a_last_record_without_facts_is_as_good_as_none() -> None:
    expected = expected_of([])
    value = json.loads(dict(a_ledger(an_hour())[0])[HOUR])
    gone = json.dumps(value | {"facts": {}, "kpis": {}}).encode()
    assert differences(expected, [(HOUR, gone)], {}) == []
    there = json.dumps(value | {"computed_at": "2026-03-20T15:00:00Z"}).encode()
    assert differences(expected, [(HOUR, there)], {}) == [
        f"ledger {HOUR.decode()}: expected a revision 2, got nothing"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "provisional", "revision": 0},
        {"state": "revised", "revision": 2},
        {"state": "revised", "revision": 1},
    ],
)
def test_a_record_that_says_another_state_than_the_ledger_is_told(changes: dict[str, Any]) -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    (told,) = differences(expected, entries, revised_records(records, HOUR, **changes))
    got = f"{changes['state']} {changes['revision']}"
    assert told == f"{HOUR.decode()} state: expected final 1, got {got}"


@pytest.mark.parametrize("key", [b"period|lifetime|-|seo|_all", b"period|last_1h|-|seo|_all", b"?"])
def test_a_window_that_never_ends_is_in_no_ledger(key: bytes) -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    value = json.dumps(json.loads(dict(entries)[HOUR]) | {"id": "another"}).encode()
    assert differences(expected, [*entries, (key, value)], records) == [
        f"ledger {key.decode()}: expected no record, got one of no window that ends"
    ]


def test_a_record_that_cannot_be_read_is_told() -> None:
    expected = an_hour()
    entries, records = a_ledger(expected)
    (told,) = differences(expected, [*entries, (HOUR, b"{}")], records)
    assert told.startswith(f"ledger {HOUR.decode()}: expected a record of the ledger, got KeyError")


def test_both_bases_are_in_the_ledger() -> None:
    expected = an_hour()
    entries, _ = a_ledger(expected)
    assert {key.split(b"|")[0].decode() for key, _ in entries} == {PERIOD, COHORT}
