"""Every number that is wrong, missing or too many is found; what is right is not."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given

from kpis.catalog import Catalog
from kpis.facts import COHORT, OVERALL, PERIOD, Scope, Subject
from kpis.fold import HORIZON_MS, FoldResult
from kpis.leads import Funnel
from kpis.retention import Retention
from kpis.spans import LIFETIME, ROLLING, TUMBLING, Window
from kpis.windows import WindowValues, record
from streams.comparison import (
    Comparison,
    Expected,
    Wanted,
    WantedRejects,
    compare_hashes,
    compare_records,
    compare_rejects,
    wrong_in_all,
)
from streams.publishers import SLOTS
from streams.publishers.redis_hashes import fields_of
from streams.shown import Numbers, complete_until_ms, view_of_hash, view_of_record
from tests.examples import examples
from tests.kpis.streams_of_records import (
    CHANGES,
    MINUTE_MS,
    PARIS,
    Record,
    any_records,
    fold_of,
    ms,
)
from tests.kpis.streams_of_records import record as a_record

CATALOG = Catalog(Funnel().stages)
NOON_MS = ms("2026-03-29T12:00:00+02:00")
NOON = NOON_MS // MINUTE_MS
SEO = Subject(PERIOD, Scope("seo", None))
Records = dict[bytes, bytes]
Hashes = dict[tuple[Subject, str], dict[str, str]]


def expected_of(records: list[Record], complete_until_ms: int | None = NOON_MS) -> Expected:
    return expected_from(fold_of(records, complete_until_ms=complete_until_ms))


def expected_from(result: FoldResult) -> Expected:
    return Expected(result, CATALOG, lambda channel: channel.endswith("_ads"), HORIZON_MS)


def published(
    expected: Expected, subject: Subject, window: Window, until_ms: int = NOON_MS
) -> WindowValues | None:
    """Return what a worker would publish of a window."""
    facts = expected.facts(subject, window)
    if not facts:
        return None
    around = expected.surroundings(subject, window, until_ms)
    return WindowValues(
        basis=subject.basis,
        scope=subject.scope,
        window=window,
        facts=facts,
        kpis=CATALOG.evaluate(subject.basis, facts, around),
        complete_until_ms=until_ms,
        computed_at_ms=until_ms,
        surroundings=around,
    )


def published_records(expected: Expected, minute: int = NOON) -> Records:
    """Return the records of a worker that makes no mistakes."""
    places = [*expected.stored()]
    places += [(s, expected.window(kind, minute)) for s in expected.subjects for kind in ROLLING]
    records: Records = {}
    for subject, window in places:
        if (shown := published(expected, subject, window)) is not None:
            written = record(shown, CATALOG, PARIS, "EUR")
            records[written.key] = written.value
    return records


def published_hashes(expected: Expected, minute: int = NOON) -> Hashes:
    hashes: Hashes = {}
    for subject in expected.subjects:
        for slot in SLOTS:
            shown = published(expected, subject, expected.window(slot, minute))
            fields = [] if shown is None else fields_of(shown, "1.1.a", CATALOG, PARIS, "EUR")
            hashes[subject, slot] = dict(zip(fields[::2], fields[1::2], strict=True))
    return hashes


def differences(expected: Expected, records: Records, minute: int = NOON) -> list[str]:
    found = Comparison()
    compare_records(expected, records, minute, found)
    return [str(one) for one in found.differences]


def hash_differences(expected: Expected, hashes: Hashes, minute: int = NOON) -> list[str]:
    found = Comparison()
    compare_hashes(expected, hashes, minute, found)
    return [str(one) for one in found.differences]


MINUTES_AGO = (0, 1, 30, 60, 61, 300, 2000, 10 * 1440, 40 * 1440)
"""So that the current window of each kind, and the one before it, have facts."""


def a_day() -> Expected:
    click: dict[str, Any] = {"channel": "seo", "campaign_id": "c"}
    times = [NOON_MS - minute * MINUTE_MS for minute in MINUTES_AGO]
    return expected_of([a_record("clicks", "click.recorded", at_ms, **click) for at_ms in times])


@given(any_records(max_size=8))
@examples(25)
def test_what_is_published_without_mistakes_is_exact(records: list[Record]) -> None:
    expected = expected_from(fold_of(records, PARIS, Retention(), NOON_MS))
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
    records[key] = records[key].replace(b'"clicks":9', b'"clicks":8')
    assert differences(expected, records) == [
        "period|lifetime|-|seo|c clicks: expected 9, got 8",
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


@pytest.mark.parametrize("kind", [*TUMBLING, LIFETIME, *ROLLING])
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


# ----------------------------------------------------------------------------- both bases


def a_cohort() -> Expected:
    """Return two leads of one day, of which one bought within the horizon and one after it."""
    records = []
    for name, days in (("a", 10), ("b", 40)):
        lead: dict[str, Any] = {"lead_id": name, "channel": "google_ads"}
        sale: dict[str, Any] = {"lead_id": name, "amount": "5", "currency": "EUR"}
        at_ms = NOON_MS + days * 1440 * MINUTE_MS
        records += [
            a_record("leads", "lead.created", NOON_MS, **lead),
            a_record("sales", "sale.created", at_ms, sale_id=name, **sale),
        ]
    return expected_of(records)


def tampered(records: Records, key: bytes, **changes: Any) -> Records:
    """Return the records with another value of one KPI, which is given as KPI=value."""
    told = json.loads(records[key])
    for name, change in changes.items():
        told["kpis"][name] |= change
    return records | {key: json.dumps(told).encode()}


DAY = b"cohort|1d|2026-03-29T00:00:00+01:00|google_ads|_all"


def test_both_bases_are_compared() -> None:
    expected = a_cohort()
    records = published_records(expected)
    assert differences(expected, records) == []
    wrong = tampered(records, DAY, conversion={"value": 0.5})
    (told,) = differences(expected, wrong)
    assert told.startswith(f"{DAY.decode()} conversion: expected 1.0 [")
    del records[DAY]
    (told,) = differences(expected, records)
    assert told.startswith(f"{DAY.decode()}: expected ")
    hashes = published_hashes(expected)
    place = (Subject(COHORT, OVERALL), "lifetime")
    assert hash_differences(expected, hashes) == []
    (told,) = hash_differences(expected, hashes | {place: hashes[place] | {"sales": "9"}})
    assert told == "leadkpi:v1:cohort:lifetime:_all:_all sales: expected 2, got 9"


def test_what_depends_on_reading_is_computed_as_of_the_record() -> None:
    expected = a_cohort()
    window = expected.spans.tumbling("1d", NOON)
    subject = Subject(COHORT, Scope("google_ads", None))
    for days, value in ((30, '"undefined_reason":"no_data"'), (31, '"value":0.5')):
        shown = published(expected, subject, window, NOON_MS + days * 1440 * MINUTE_MS)
        assert shown is not None
        written = record(shown, CATALOG, PARIS, "EUR")
        assert value in written.value.decode().partition('"conversion_within":')[2]
        records = published_records(expected) | {written.key: written.value}
        assert differences(expected, records) == []
        too_early = written.value.replace(b'"mature":2', b'"mature":1')
        found = differences(expected, records | {written.key: too_early})
        assert found == ([f"{DAY.decode()} mature: expected 2, got 1"] if days > 30 else [])


@pytest.mark.parametrize("change", [{"partial": True}, {"interval": [0.1, 0.9]}])
def test_what_is_said_about_a_value_is_compared(change: dict[str, Any]) -> None:
    expected = a_cohort()
    records = tampered(published_records(expected), DAY, conversion=change)
    (told,) = differences(expected, records)
    assert told.startswith(f"{DAY.decode()} conversion: expected 1.0")


def test_a_window_that_never_ends_is_provisional() -> None:
    expected = a_day()
    records = published_records(expected)
    key = b"period|lifetime|-|seo|c"
    records[key] = records[key].replace(b'"provisional","revision":0', b'"final","revision":1')
    assert differences(expected, records) == [
        f"{key.decode()} state: expected provisional, got final 1"
    ]


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
    (surplus,) = hash_differences(
        expected, hashes | {(Subject(PERIOD, Scope("email", None)), slot): hashes[place]}
    )
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
    hashes = published_hashes(expected, NOON) | {(Subject(PERIOD, OVERALL), "lifetime"): {}}
    assert len(hash_differences(expected, hashes, NOON + 3000)) == 1


def test_a_hash_and_a_record_show_the_same() -> None:
    expected = a_day()
    hashes, records = published_hashes(expected), published_records(expected)
    by_hash = view_of_hash(hashes[SEO, "last_24h"])
    by_record = view_of_record(records[b"period|last_24h|-|seo|_all"])
    facts, kpis = by_record.numbers
    assert by_hash.numbers.facts == facts
    assert by_hash.numbers.kpis == {name: kpi._replace(interval=None) for name, kpi in kpis.items()}
    assert by_hash[:6] == by_record[:6]


def test_up_to_when_a_record_is_complete_is_read_to_the_millisecond() -> None:
    assert complete_until_ms(b'{"complete_until":"2026-03-29T12:00:00.412Z"}') == ms(
        "2026-03-29T12:00:00.412Z"
    )
    assert complete_until_ms(b'{"complete_until":null}') is None


# ----------------------------------------------------------------------------- rejects


def test_each_reject_is_there_once_and_no_other() -> None:
    good, orphan, twice, strange = (("t", 0, offset, "malformed") for offset in range(4))
    found = Comparison()
    wanted = WantedRejects([good, twice], [], {good, twice, orphan})
    compare_rejects("rejects", wanted, Counter([good, twice, twice, strange]), found)
    assert [str(one) for one in found.differences] == [
        "rejects t/0/2: expected malformed once, got 2 times",
        "rejects t/0/3: expected nothing, got malformed",
    ]
    wanted = WantedRejects([good], [], {good, orphan})
    compare_rejects("rejects", wanted, Counter([orphan]), found)
    assert str(found.differences[-1]) == "rejects t/0/0: expected malformed, got nothing"


@pytest.mark.parametrize(
    ("offsets", "told"),
    [
        ((1,), []),
        ((2,), []),
        ((), ["rejects t/0/1: expected currency_mismatch once, got nothing"]),
        ((1, 2), ["rejects t/0/1: expected currency_mismatch once, got 2 times"]),
    ],
)
def test_of_events_that_are_the_same_refund_exactly_one_is_rejected(
    offsets: tuple[int, ...], told: list[str]
) -> None:
    places = [("t", 0, offset, "currency_mismatch") for offset in (1, 2)]
    got = Counter(place for place in places if place[2] in offsets)
    found = Comparison()
    compare_rejects("rejects", WantedRejects([], [places], places), got, found)
    assert [str(one) for one in found.differences] == told


def test_a_record_is_wrong_only_if_it_is_at_every_minute() -> None:
    # A fact has to be that of one and the same minute as the others of its record.
    facts = [{"cost": 1, "cost_records": 1}, {"cost": 2, "cost_records": 2}]
    shown = {"early": facts[0], "late": facts[1], "torn": {"cost": 1, "cost_records": 2}}
    found = []
    for minute in facts:
        comparison = Comparison()
        for key, got in shown.items():
            comparison.numbers(key, Wanted(Numbers(minute, {})), Numbers(got, {}))
        comparison.add("rejects", "one", "none")
        found.append(comparison)

    wrong = wrong_in_all(found)
    assert {one.record for one in wrong.differences} == {"torn", "rejects"}
    assert [str(one) for one in wrong.differences] == [
        "torn cost_records: expected 1, got 2",
        "rejects: expected one, got none",
    ]
    assert wrong.values == 6
