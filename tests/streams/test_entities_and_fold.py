"""However entities are shared, read and interrupted, they come to what all events at once come to."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.events import ClickRecorded, ImpressionServed, VisitStarted
from kpis.facts import Facts
from kpis.fold import Fold, FoldResult
from kpis.leads import Funnel
from kpis.reading import Refused, Rules, read
from kpis.retention import Grain
from streams.settings import load
from tests.examples import examples
from tests.kpis.streams_of_records import (
    ALL_KEPT,
    KEEP_MS,
    PARIS,
    PARK_MS,
    Record,
    any_impressions,
    any_records,
)
from tests.streams.entity_shards import EntityShards

SETTINGS: Final = load(
    {
        "LEADPULSE_CONFIG": "",
        "LEADPULSE_TIME_ZONE": "Europe/Paris",
        "LEADPULSE_DEDUP_IMPRESSIONS": "true",
    }
)
RULES: Final = Rules(time_zone=PARIS, dedup_impressions=True)
YEAR_MS: Final = 366 * 86_400_000

Draw = Callable[[int], int]


def of_entities(records: Sequence[Record]) -> list[Record]:
    """Return the records that are forwarded, in the order in which they arrived."""

    def is_forwarded(record: Record) -> bool:
        try:
            event = read(record.topic, record.value, record.timestamp_ms, RULES).event
        except Refused:
            return False
        match event:
            case ClickRecorded(click_id=None) | ImpressionServed(impression_id=None):
                return False
            case _:
                return not isinstance(event, VisitStarted)

    return sorted(filter(is_forwarded, records), key=lambda record: record.timestamp_ms)


def fold_of(records: Sequence[Record]) -> Fold:
    fold = Fold(RULES, Funnel(), Calendar(PARIS), ALL_KEPT, PARK_MS, KEEP_MS)
    for offset, (topic, value, timestamp_ms) in enumerate(records):
        fold.add(topic, 0, offset, value, timestamp_ms)
    return fold


def worked(records: Sequence[Record], draw: Draw, end_ms: int) -> EntityShards:
    """Return shards that took the records, with pauses, marks and crashes as drawn."""
    shards = EntityShards(1 + draw(3), SETTINGS)
    numbered = [*enumerate(records), (len(records), None)]
    for (offset, record), (_, following) in pairwise(numbered):
        assert record is not None
        topic, value, timestamp_ms = record
        shards.forward(topic, value, timestamp_ms, offset)
        if following is not None and draw(2):
            # As intake does: everything that arrived before the next record was forwarded.
            shards.mark(following.timestamp_ms)
        for _ in range(draw(4)):
            interrupt(shards, draw)
    shards.mark(end_ms)
    shards.settle(lambda waiting: draw(waiting + 1) or min(1, waiting))
    return shards


def interrupt(shards: EntityShards, draw: Draw) -> None:
    """Let one shard read something and commit it, or lose it."""
    number = draw(shards.partitions)
    shards.read(number, lambda waiting: draw(waiting + 1))
    if draw(4):
        shards.commit(number)
    else:
        shards.crash(number)


def daily(result: FoldResult) -> dict[tuple[object, ...], Facts]:
    """Return the facts of campaigns by day; what has no day, over lifetime."""
    cells: dict[tuple[object, ...], Facts] = {}
    for (basis, (channel, campaign_id)), by_grain in result.cells.items():
        if campaign_id is None:
            continue
        for bucket, facts in by_grain.get(Grain.DAY, {}).items():
            cells[basis, channel, campaign_id, Grain.DAY, bucket] = facts
        for bucket, facts in by_grain.get(Grain.LIFETIME, {}).items():
            timeless = {name: n for name, n in facts.items() if name.startswith("stage_current.")}
            if timeless:
                cells[basis, channel, campaign_id, Grain.LIFETIME, bucket] = timeless
    return cells


@given(records=any_records(), rng=st.randoms(use_true_random=False))
def test_shards_come_to_what_all_events_at_once_come_to(records: list[Record], rng: Random) -> None:
    check(records, rng)


@given(records=any_impressions(), rng=st.randoms(use_true_random=False))
@examples(200)
def test_shards_count_impressions_with_an_id_as_often_as_all_at_once_do(
    records: list[Record], rng: Random
) -> None:
    check(records, rng)


def check(records: list[Record], rng: Random) -> None:
    forwarded = of_entities(records)
    end_ms = max((record.timestamp_ms for record in forwarded), default=0) + YEAR_MS
    shards = worked(forwarded, rng.randrange, end_ms)
    fold = fold_of(forwarded)
    expected = fold.result(end_ms)
    assert shards.daily() == daily(expected)
    assert_rejects(shards, fold, end_ms)
    reports = {
        (shard, channel, minute): count
        for shard in range(shards.partitions)
        for channel, minute, count in expected.reports
    }
    assert shards.reported() == reports
    targets = [told.target for told in shards.targets().values() if told.target is not None]
    assert sorted(map(repr, targets)) == sorted(
        repr(target) for of_scope in expected.targets.values() for target in of_scope
    )
    assert shards.is_empty()
    assert {mark for told in shards.merged for mark in told.marks[-1:]} >= {end_ms}


def assert_rejects(shards: EntityShards, fold: Fold, end_ms: int) -> None:
    """Assert that orphans were rejected once, and one event of each refund in a currency of its own."""
    told = [(str(reject["reason"]), int(reject["offset"])) for reject in shards.rejects]
    assert len(told) == len(set(told))
    orphans = {(reject.reason, reject.offset) for reject in fold.orphans(end_ms)}
    mismatches = {one for one in told if one[0] == "currency_mismatch"}
    assert set(told) - mismatches == orphans
    assert mismatches <= {(one.reason, one.offset) for one in fold.possible_mismatches()}
    for events in fold.mismatches():
        assert sum((one.reason, one.offset) in mismatches for one in events) == 1
