"""The data sets hold what their totals say, in the shape of the contract."""

from collections import Counter

import pytest

from kpis.events import ClickRecorded, ImpressionServed
from kpis.reading import Rules, read
from tests.bench.data_sets import DRAFTS, SPAN_SECONDS, DataSet

END_MS = 1_770_000_000_123


@pytest.mark.parametrize("events", [0, 7, DRAFTS, 2 * DRAFTS + 3])
def test_totals_are_those_of_the_events(events: int) -> None:
    data_set = DataSet(4000, events, END_MS)

    counted = Counter(
        (event.campaign_id, topic)
        for topic, value in data_set.read()
        if isinstance(
            event := read(topic, value, END_MS, Rules()).event, ImpressionServed | ClickRecorded
        )
    )

    assert counted == data_set.totals()
    assert counted.total() == events


def test_events_are_accepted_without_a_remark_and_lie_in_the_ten_minutes() -> None:
    for topic, value in DataSet(100, 500, END_MS).read():
        reading = read(topic, value, END_MS, Rules())

        assert (reading.is_test, reading.unknown_fields) == (False, 0)
        assert END_MS - SPAN_SECONDS * 1000 <= reading.event.envelope.occurred_ms < END_MS


def test_every_event_has_an_id_of_its_own() -> None:
    readings = (read(t, v, END_MS, Rules()) for t, v in DataSet(100, 500, END_MS).read())

    assert len({reading.event.envelope.event_id for reading in readings}) == 500
