"""Events as values: they travel as msgpack and come back equal."""

from typing import get_args

import msgspec
import pytest

from kpis.events import (
    TOPICS,
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
    TargetRemoved,
    TargetSet,
    VisitStarted,
    newest_ms,
    reported_ms_of,
)

OCCURRED_MS = 1_772_452_800_000
REPORTED_MS = OCCURRED_MS + 60_000
LONG_AFTER_MS = OCCURRED_MS + 10**9
ENVELOPE = Envelope("e-1", "/crm", OCCURRED_MS, None, b"12345678")
AD = ("seo", "-", "", "")
TARGET = ("leads", "seo", None, "day", 0, 1440)

ROWS: tuple[Event, ...] = (
    CountsReported(ENVELOPE, "clicks.reported", *AD, 0, 60_000, 60_000, 7, REPORTED_MS),
    CostSnapshot(
        *(ENVELOPE, "bills", "", *AD, "media", 0, 60_000, 60_000, 1, "EUR", False, REPORTED_MS)
    ),
    CostDeleted(ENVELOPE, "bills", "", *AD, "media", 0, 60_000, True, REPORTED_MS),
)
TARGETS: tuple[Event, ...] = (
    TargetSet(ENVELOPE, *TARGET, 100_000_000, "linear", REPORTED_MS),
    TargetRemoved(ENVELOPE, *TARGET, REPORTED_MS),
)
RATE = FxRateSet(ENVELOPE, "USD", "EUR", 739_677, 23, 25)
SINGLES: tuple[Event, ...] = (
    ImpressionServed(ENVELOPE, "i", "seo", "-", viewable=False, is_bot=True),
    ClickRecorded(ENVELOPE, None, "seo", "-", is_bot=True),
    ClickVoided(ENVELOPE, "k-1", None),
    VisitStarted(ENVELOPE, "v-1", "seo", "-", is_bot=False),
    LeadCreated(ENVELOPE, "l-1", None, None, "k-1", None, "lead"),
    LeadUpdated(ENVELOPE, "l-1", "seo", None),
    LeadDisqualified(ENVELOPE, "l-1", "too small"),
    LeadRequalified(ENVELOPE, "l-1", None),
    LeadMerged(ENVELOPE, "l-1", "l-2"),
    LeadInvalidated(ENVELOPE, "l-1", "spam"),
    LeadStageChanged(ENVELOPE, "l-1", "mql", "lead", None),
    SaleCreated(ENVELOPE, "s-1", "l-1", 12_500_000, "EUR", "new", None),
    SaleAmended(ENVELOPE, "s-1", 0, "USD"),
    SaleRefunded(ENVELOPE, "r-1", "s-1", 1, "USD"),
    SaleCancelled(ENVELOPE, "s-1", None),
    SaleVoided(ENVELOPE, "s-1", None),
)
ONE_OF_EACH: tuple[Event, ...] = (*SINGLES, *ROWS, *TARGETS, RATE)


def by_type(event: Event) -> str:
    return type(event).__name__


def test_there_is_one_of_each() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(get_args(Event))
    assert len({event.__struct_config__.tag for event in ONE_OF_EACH}) == len(ONE_OF_EACH)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=by_type)
def test_event_comes_back_equal_from_msgpack(event: Event) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=by_type)
def test_event_travels_as_array_that_begins_with_its_tag_and_envelope(event: Event) -> None:
    tag, envelope, *_ = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    assert tag == event.__struct_config__.tag
    assert envelope == ["e-1", "/crm", OCCURRED_MS, None, b"12345678"]


def test_no_type_belongs_to_two_topics() -> None:
    types = [name for names in TOPICS.values() for name in names]
    assert len(types) == len(set(types))


def test_default_type_of_each_topic_is_the_single_event() -> None:
    assert [names[0] for names in TOPICS.values()] == [
        "impression.served",
        "click.recorded",
        "visit.started",
        "lead.created",
        "lead.stage_changed",
        "sale.created",
        "cost.snapshot",
        "target.set",
        "fxrate.set",
    ]


@pytest.mark.parametrize("event", SINGLES, ids=by_type)
def test_single_event_is_as_new_as_it_happened(event: Event) -> None:
    assert newest_ms(event, LONG_AFTER_MS) == OCCURRED_MS
    assert newest_ms(event, OCCURRED_MS - 7) == OCCURRED_MS - 7
    assert reported_ms_of(event) is None


@pytest.mark.parametrize("event", ROWS, ids=by_type)
def test_row_is_as_new_as_its_report(event: Event) -> None:
    assert newest_ms(event, LONG_AFTER_MS) == REPORTED_MS
    assert newest_ms(event, OCCURRED_MS + 7) == OCCURRED_MS + 7
    assert reported_ms_of(event) == REPORTED_MS


@pytest.mark.parametrize("kind", [CountsReported, CostSnapshot])
def test_row_for_a_time_to_come_is_as_new_as_what_of_it_has_passed(kind: type[Event]) -> None:
    row = next(event for event in ROWS if isinstance(event, kind))
    ahead = msgspec.structs.replace(row, as_of_ms=REPORTED_MS + 9)
    assert newest_ms(ahead, LONG_AFTER_MS) == REPORTED_MS + 9
    assert newest_ms(ahead, REPORTED_MS + 7) == REPORTED_MS + 7


@pytest.mark.parametrize("event", [*TARGETS, RATE], ids=by_type)
def test_target_or_rate_moves_no_retention(event: Event) -> None:
    assert newest_ms(event, LONG_AFTER_MS) == 0
