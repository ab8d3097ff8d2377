"""Events as values: they travel as msgpack and come back equal."""

import msgspec
import pytest

from kpis.events import (
    TOPICS,
    ClickRecorded,
    CostSnapshot,
    CountsReported,
    Envelope,
    Event,
    ImpressionServed,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
)

ENVELOPE = Envelope("e-1", "/crm", 1_772_452_800_000, None, b"12345678")

ONE_OF_EACH: tuple[Event, ...] = (
    ImpressionServed(ENVELOPE, "seo", "-", viewable=True, is_bot=False),
    ClickRecorded(ENVELOPE, None, "seo", "-", is_bot=True),
    CountsReported(ENVELOPE, "clicks.reported", "seo", "-", "", "", 0, 60_000, 60_000, 7, 60_000),
    LeadCreated(ENVELOPE, "l-1", None, None, "k-1", None, "lead"),
    LeadInvalidated(ENVELOPE, "l-1", "spam"),
    LeadStageChanged(ENVELOPE, "l-1", "mql", "lead", None),
    SaleCreated(ENVELOPE, "s-1", "l-1", 12_500_000, "new", None),
    SaleVoided(ENVELOPE, "s-1", None),
    CostSnapshot(
        ENVELOPE, "bills", "", "seo", "-", "", "", "media", 0, 60_000, 60_000, 1, False, 60_000
    ),
)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_event_comes_back_equal_from_msgpack(event: Event) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_event_travels_as_array_that_begins_with_its_tag_and_envelope(event: Event) -> None:
    tag, envelope, *_ = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    assert tag == event.__struct_config__.tag
    assert envelope == ["e-1", "/crm", 1_772_452_800_000, None, b"12345678"]


def test_no_type_belongs_to_two_topics() -> None:
    types = [name for names in TOPICS.values() for name in names]
    assert len(types) == len(set(types))


def test_default_type_of_each_topic_is_the_single_event() -> None:
    assert [names[0] for names in TOPICS.values()] == [
        "impression.served",
        "click.recorded",
        "lead.created",
        "lead.stage_changed",
        "sale.created",
        "cost.snapshot",
    ]
