"""Every number that is wrong, missing or too many is found; what is right is not."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.catalog import Catalog
from kpis.facts import OVERALL, Scope
from kpis.fold import window_facts
from kpis.leads import Funnel
from kpis.retention import Buckets
from kpis.windows import ROLLING, WindowValues, record
from streams.comparison import (
    Comparison,
    Expected,
    compare_hashes,
    compare_records,
    compare_rejects,
    complete_until_ms,
    shown_by_hash,
    shown_by_record,
)
from streams.publishers import SLOTS
from streams.publishers.redis_hashes import fields_of
from tests.kpis.streams_of_records import (
    ALL_KEPT,
    CHANGES,
    MINUTE_MS,
    PARIS,
    Record,
    fold_of,
    ms,
    singles,
)
from tests.kpis.streams_of_records import record as a_record

CATALOG = Catalog(Funnel().stages)
NOON_MS = ms("2026-03-29T12:00:00+02:00")
NOON = NOON_MS // MINUTE_MS
SEO = Scope("seo", None)
Records = dict[bytes, bytes]
Hashes = dict[tuple[Scope, str], dict[str, str]]


def expected_of(records: list[Record]) -> Expected:
    result = fold_of(records)
    return Expected(
        result,
        CATALOG,
        lambda channel: channel.endswith("_ads"),
        Buckets(Calendar(PARIS), ALL_KEPT),
    )


def values(expected: Expected, scope: Scope, slot: str, minute: int) -> WindowValues | None:
    """Return what a worker would publish in a slot."""
    window = expected.window(slot, minute)
    facts = window_facts(expected._result, scope, window)
    if not facts:
        return None
    numbers = expected.numbers(scope, window)
    assert numbers is not None
    return WindowValues("period", scope, window, facts, dict(numbers.kpis), NOON_MS, NOON_MS)


def published_records(expected: Expected, minute: int = NOON) -> Records:
    """Return the records of a worker that makes no mistakes."""
    records: Records = {}
    for scope, window in expected.stored():
        facts = window_facts(expected._result, scope, window)
        numbers = expected.numbers(scope, window)
        assert numbers is not None
        kpis = dict(numbers.kpis)
        shown = WindowValues("period", scope, window, facts, kpis, NOON_MS, NOON_MS)
        written = record(shown, PARIS, "EUR")
        records[written.key] = written.value
    for scope in expected.scopes:
        for kind in ROLLING:
            if (rolling := values(expected, scope, kind, minute)) is not None:
                written = record(rolling, PARIS, "EUR")
                records[written.key] = written.value
    return records


def published_hashes(expected: Expected, minute: int = NOON) -> Hashes:
    hashes: Hashes = {}
    for scope in expected.scopes:
        for slot in SLOTS:
            shown = values(expected, scope, slot, minute)
            fields = [] if shown is None else fields_of(shown, "1.1.a", PARIS, "EUR")
            hashes[scope, slot] = dict(zip(fields[::2], fields[1::2], strict=True))
    return hashes


def differences(expected: Expected, records: Records, minute: int = NOON) -> list[str]:
    found = Comparison()
    compare_records(expected, records, minute, found)
    return [str(one) for one in found.differences]


def hash_differences(expected: Expected, hashes: Hashes, minute: int = NOON) -> list[str]:
    found = Comparison()
    compare_hashes(expected, hashes, minute, found)
    return [str(one) for one in found.differences]


def a_day() -> Expected:
    click: dict[str, Any] = {"channel": "seo", "campaign_id": "c"}
    times = [NOON_MS - minute * MINUTE_MS for minute in (0, 1, 30, 60, 61, 300, 2000)]
    return expected_of([a_record("clicks", "click.recorded", at_ms, **click) for at_ms in times])


@given(st.lists(singles(), max_size=8))
@settings(max_examples=25)
def test_what_is_published_without_mistakes_is_exact(records: list[Record]) -> None:
    expected = expected_of(records)
    minute = CHANGES[PARIS][0] // MINUTE_MS
    assert differences(expected, published_records(expected, minute), minute) == []
    assert hash_differences(expected, published_hashes(expected, minute), minute) == []


def test_every_fact_and_kpi_is_counted_once() -> None:
    expected, found = a_day(), Comparison()
    records = published_records(expected)
    compare_records(expected, records, NOON, found)
    told = [json.loads(value) for value in records.values()]
    assert found.values == sum(len(one["facts"]) + len(one["kpis"]) for one in told)


def test_a_wrong_fact_is_told_with_its_place() -> None:
    expected = a_day()
    records = published_records(expected)
    key = b"period|lifetime|-|seo|c"
    records[key] = records[key].replace(b'"clicks":7', b'"clicks":8')
    assert differences(expected, records) == [
        "period|lifetime|-|seo|c clicks: expected 7, got 8",
    ]


def test_a_wrong_kpi_a_missing_one_and_one_too_many_are_told() -> None:
    expected = a_day()
    records = published_records(expected)
    key = b"period|lifetime|-|seo|c"
    told = json.loads(records[key])
    told["kpis"]["cpc"]["value"] = 0.5
    told["kpis"]["other"] = {"value": None, "undefined_reason": "no_data"}
    del told["kpis"]["ctr"]
    records[key] = json.dumps(told).encode()
    assert sorted(differences(expected, records)) == [
        "period|lifetime|-|seo|c cpc: expected 0.0, got 0.5",
        "period|lifetime|-|seo|c ctr: expected null (no_impressions), got nothing",
        "period|lifetime|-|seo|c other: expected nothing, got null (no_data)",
    ]


@pytest.mark.parametrize("kind", ["1m", "1h", "1d", "lifetime", "last_1h", "last_24h"])
def test_a_missing_record_is_told(kind: str) -> None:
    expected = a_day()
    records = published_records(expected)
    key = max(key for key in records if key.split(b"|")[1] == kind.encode())
    del records[key]
    (told,) = differences(expected, records)
    assert told.startswith(key.decode())
    assert told.endswith("got nothing")


@pytest.mark.parametrize(
    "key",
    [
        b"period|1h|2026-03-28T12:00:00+01:00|email|_all",
        b"period|1m|2020-01-01T00:00:00+01:00|seo|c",
        b"cohort|lifetime|-|_all|_all",
        b"period|lifetime|-|_all|c",
        b"nonsense",
    ],
)
def test_a_record_too_many_is_told(key: bytes) -> None:
    expected = a_day()
    records = published_records(expected)
    records[key] = records[b"period|lifetime|-|seo|c"]
    (told,) = differences(expected, records)
    assert told.startswith(f"{key.decode()}: expected no record, got")


def test_a_record_that_cannot_be_read_is_told() -> None:
    expected = a_day()
    records = published_records(expected) | {b"period|lifetime|-|seo|c": b"{}"}
    (told,) = differences(expected, records)
    assert told.startswith("period|lifetime|-|seo|c: expected a record of KPIs, got KeyError")


def test_a_rolling_window_is_compared_over_its_own_span_even_if_it_stands_still() -> None:
    expected = a_day()
    records = published_records(expected, NOON)
    assert differences(expected, records, NOON + 500) == []
    key = b"period|last_1h|-|seo|c"
    records[key] = records[key].replace(b'"clicks":4', b'"clicks":5')
    assert differences(expected, records, NOON + 500) == [
        f"{key.decode()} clicks: expected 4, got 5"
    ]


def test_a_rolling_record_without_facts_has_to_be_gone() -> None:
    expected = a_day()
    records = published_records(expected)
    key = b"period|last_1h|-|seo|c"
    told = json.loads(records[key])
    told["window"] |= {"start": "2026-03-01T00:00:00Z", "end": "2026-03-01T01:00:00Z"}
    records[key] = json.dumps(told).encode()
    assert any(
        one.startswith(f"{key.decode()}: expected nothing")
        for one in differences(expected, records)
    )


# ----------------------------------------------------------------------------- Redis


@pytest.mark.parametrize("slot", SLOTS)
def test_a_wrong_a_missing_and_a_surplus_hash_are_told(slot: str) -> None:
    expected = a_day()
    hashes = published_hashes(expected)
    place = (SEO, slot)
    clicks = int(hashes[place]["clicks"])
    wrong = hashes | {place: hashes[place] | {"clicks": str(clicks + 1)}}
    assert hash_differences(expected, wrong) == [
        f"leadkpi:v1:period:{slot}:seo:_all clicks: expected {clicks}, got {clicks + 1}"
    ]
    (missing,) = hash_differences(expected, hashes | {place: {}})
    assert missing.endswith("got nothing")
    (surplus,) = hash_differences(expected, hashes | {(Scope("email", None), slot): hashes[place]})
    assert surplus.startswith(f"leadkpi:v1:period:{slot}:email:_all: expected nothing, got")


def test_hashes_of_windows_that_are_over_are_passed_over_when_nobody_publishes() -> None:
    expected = a_day()
    assert hash_differences(expected, published_hashes(expected, NOON), NOON + 3000) == []


def test_a_hash_that_stayed_behind_is_told_while_others_move() -> None:
    expected = a_day()
    hashes = published_hashes(expected, NOON)
    hashes[SEO, "1m"] = published_hashes(expected, NOON - 1)[SEO, "1m"]
    (told,) = hash_differences(expected, hashes, NOON)
    assert told.startswith("leadkpi:v1:period:1m:seo:_all: expected clicks 1")


def test_lifetime_is_always_compared() -> None:
    expected = a_day()
    hashes = published_hashes(expected, NOON) | {(OVERALL, "lifetime"): {}}
    assert len(hash_differences(expected, hashes, NOON + 3000)) == 1


def test_a_hash_and_a_record_show_the_same() -> None:
    expected = a_day()
    hashes, records = published_hashes(expected), published_records(expected)
    shown = shown_by_hash(hashes[SEO, "last_24h"])
    assert shown == shown_by_record(records[b"period|last_24h|-|seo|_all"])


def test_up_to_when_a_record_is_complete_is_read_to_the_millisecond() -> None:
    assert complete_until_ms(b'{"complete_until":"2026-03-29T12:00:00.412Z"}') == ms(
        "2026-03-29T12:00:00.412Z"
    )
    assert complete_until_ms(b'{"complete_until":null}') is None


# ----------------------------------------------------------------------------- rejects


def test_each_reject_is_there_once_and_no_other() -> None:
    good, orphan, twice, strange = (("t", 0, offset, "malformed") for offset in range(4))
    found = Comparison()
    compare_rejects(
        "rejects",
        [good, twice],
        {good, twice, orphan},
        Counter([good, twice, twice, strange]),
        found,
    )
    assert [str(one) for one in found.differences] == [
        "rejects t/0/2: expected malformed once, got 2 times",
        "rejects t/0/3: expected nothing, got malformed",
    ]
    compare_rejects("rejects", [good], {good, orphan}, Counter([orphan]), found)
    assert str(found.differences[-1]) == "rejects t/0/0: expected malformed, got nothing"
