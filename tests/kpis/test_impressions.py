"""Impressions with an id, where they are deduplicated: counted once while they are remembered."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from kpis.events import ImpressionServed
from kpis.impressions import (
    Impression,
    forget_impression_ms,
    impression_contribution,
    take_impression,
)
from kpis.orders import Outcome
from kpis.remembered import begins_anew
from tests.examples import A_PROPERTY
from tests.kpis.journeys import DAY, KEEP_MS, envelope, facts_at, total

AT = 100 * DAY
Told = tuple[ImpressionServed, int]


def served(
    at: int, channel: str = "seo", *, viewable: bool = False, is_bot: bool = False
) -> ImpressionServed:
    told = envelope(at, ("served", channel, viewable, is_bot))
    return ImpressionServed(told, "i", channel, "c", viewable, is_bot)


def an_impression(*events: Told) -> Impression:
    impression = Impression()
    for event, timestamp_ms in events:
        take_impression(impression, event, timestamp_ms, KEEP_MS)
    return impression


REMEMBERED = st.lists(
    st.tuples(
        st.builds(
            served,
            st.integers(0, 3),
            st.sampled_from(("seo", "email")),
            viewable=st.booleans(),
            is_bot=st.booleans(),
        ),
        st.integers(AT, AT + KEEP_MS - 1),
    ),
    max_size=4,
)


@given(REMEMBERED)
@A_PROPERTY
def test_any_order_of_impressions_while_the_id_is_remembered_leaves_the_same(
    events: list[Told],
) -> None:
    expected = an_impression(*events)
    for order in permutations(events):
        impression = an_impression(*order)
        assert impression == expected
        assert msgpack.decode(msgpack.encode(impression), type=Impression) == impression


@pytest.mark.parametrize(
    ("event", "facts"),
    [
        (served(7), {"impressions": 1}),
        (served(7, viewable=True), {"impressions": 1, "viewable_impressions": 1}),
        (served(7, viewable=True, is_bot=True), {"invalid_impressions": 1}),
    ],
)
def test_an_impression_counts_at_its_minute(event: ImpressionServed, facts: dict[str, int]) -> None:
    contribution = impression_contribution(an_impression((event, AT)))
    assert facts_at(contribution, 7) == total(contribution) == facts
    assert {(place.channel, place.campaign_id) for place in contribution} == {("seo", "c")}
    assert impression_contribution(Impression()) == {}


def test_the_first_impression_counts_and_another_is_a_conflict() -> None:
    impression = Impression()
    assert take_impression(impression, served(5), AT, KEEP_MS) is Outcome.ACCEPTED
    assert take_impression(impression, served(5), AT, KEEP_MS) is Outcome.DUPLICATE
    assert take_impression(impression, served(6, viewable=True), AT, KEEP_MS) is Outcome.CONFLICT
    assert take_impression(impression, served(4, "email"), AT, KEEP_MS) is Outcome.CONFLICT
    (place,) = impression_contribution(impression)
    assert (place.channel, place.bucket) == ("email", 4)


@pytest.mark.parametrize(
    ("after_ms", "expected"), [(KEEP_MS - 1, Outcome.DUPLICATE), (KEEP_MS, Outcome.ACCEPTED)]
)
def test_an_impression_counts_again_when_its_id_is_forgotten(
    after_ms: int, expected: Outcome
) -> None:
    impression = an_impression((served(1), AT))
    later_ms = AT + after_ms
    assert begins_anew(impression, later_ms, KEEP_MS) is (expected is Outcome.ACCEPTED)
    assert take_impression(impression, served(1), later_ms, KEEP_MS) is expected
    assert impression.timestamp_ms == (later_ms if expected is Outcome.ACCEPTED else AT)


def test_an_impression_is_forgotten_when_no_repeat_can_be_one_any_more() -> None:
    assert forget_impression_ms(an_impression((served(1), AT)), KEEP_MS) == AT + KEEP_MS
    assert forget_impression_ms(Impression(), KEEP_MS) == 0
