"""Clicks with an id: counted once while they are remembered, asked by leads, made invalid by voids."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from kpis.clicks import (
    Attribution,
    Click,
    answer,
    answers,
    ask_click,
    click_contribution,
    forget_ms,
    take_click,
    void_click,
)
from kpis.events import ClickRecorded
from kpis.orders import Outcome
from kpis.remembered import begins_anew
from tests.examples import A_PROPERTY
from tests.kpis.journeys import (
    DAY,
    KEEP_MS,
    PARK_MS,
    ClickEvent,
    click_voided,
    clicked,
    total,
)

Told = tuple[ClickEvent, int]
AT = 100 * DAY


def a_click(*events: Told) -> Click:
    click = Click()
    for event, timestamp_ms in events:
        if isinstance(event, ClickRecorded):
            take_click(click, event, timestamp_ms, KEEP_MS)
        else:
            void_click(click, timestamp_ms, KEEP_MS)
    return click


def facts_of(click: Click) -> dict[str, int]:
    return total(click_contribution(click, KEEP_MS))


# ----------------------------------------------------------------------------- counted once

REMEMBERED = st.lists(
    st.one_of(
        st.tuples(
            st.builds(clicked, st.integers(0, 3), st.sampled_from(("seo", "email"))),
            st.integers(AT, AT + KEEP_MS - 1),
        ),
        st.tuples(
            st.builds(click_voided, st.integers(0, 3)),
            st.integers(AT - 3 * KEEP_MS, AT + 3 * KEEP_MS),
        ),
    ),
    max_size=4,
)


@given(REMEMBERED)
@A_PROPERTY
def test_any_order_of_clicks_and_voids_while_the_id_is_remembered_adds_the_same(
    events: list[Told],
) -> None:
    expected = facts_of(a_click(*events))
    for order in permutations(events):
        click = a_click(*order)
        assert facts_of(click) == expected
        assert msgpack.decode(msgpack.encode(click), type=Click) == click


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(0, 60))
@A_PROPERTY
def test_voids_that_are_forgotten_void_no_other_click(voids: list[int], at: int) -> None:
    click = Click()
    for timestamp_ms in voids:
        void_click(click, timestamp_ms, 7)
    take_click(click, clicked(1), at, 7)
    is_void = any(abs(timestamp_ms - at) < 7 for timestamp_ms in voids)
    assert ("invalid_clicks" in total(click_contribution(click, 7))) is is_void
    # They lie fourteen apart, two by two, however many come.
    assert len(click.voided_ms) <= 2 * (60 // 14 + 1)


@pytest.mark.parametrize(("between_ms", "is_kept"), [(13, False), (14, True)])
def test_a_void_between_two_others_is_needed_if_they_leave_a_gap(
    between_ms: int, is_kept: bool
) -> None:
    #  0 --keep--)   (--keep-- last
    #         gap?
    click = Click()
    for timestamp_ms in (0, between_ms, 7):
        void_click(click, timestamp_ms, 7)
    assert click.voided_ms == ([0, 7, between_ms] if is_kept else [0, between_ms])
    take_click(click, clicked(1), 7, 7)
    assert total(click_contribution(click, 7)) == {"invalid_clicks": 1}


def test_the_first_click_counts_and_another_is_a_conflict() -> None:
    click = Click()
    assert take_click(click, clicked(5), AT, KEEP_MS) is Outcome.ACCEPTED
    assert take_click(click, clicked(5), AT, KEEP_MS) is Outcome.DUPLICATE
    assert take_click(click, clicked(4, "email"), AT, KEEP_MS) is Outcome.CONFLICT
    (place,) = click_contribution(click, KEEP_MS)
    assert (place.channel, place.bucket) == ("email", 4)


@pytest.mark.parametrize(
    ("after_ms", "expected"), [(KEEP_MS - 1, Outcome.DUPLICATE), (KEEP_MS, Outcome.ACCEPTED)]
)
def test_a_click_counts_again_when_its_id_is_forgotten(after_ms: int, expected: Outcome) -> None:
    click = a_click((clicked(1), 0))
    assert begins_anew(click, after_ms, KEEP_MS) is (expected is Outcome.ACCEPTED)
    assert take_click(click, clicked(1), after_ms, KEEP_MS) is expected
    assert click.timestamp_ms == (after_ms if expected is Outcome.ACCEPTED else 0)


def test_nothing_begins_anew_before_it_began() -> None:
    assert not begins_anew(Click(), AT, KEEP_MS)


def test_a_bots_click_counts_as_invalid_only() -> None:
    assert facts_of(a_click((clicked(1, is_bot=True), AT))) == {"invalid_clicks": 1}
    assert facts_of(Click()) == {}


# ----------------------------------------------------------------------------- voided


@pytest.mark.parametrize("distance_ms", [KEEP_MS - 1, KEEP_MS])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("is_void_first", [True, False])
def test_a_void_finds_a_click_that_is_remembered_then(
    distance_ms: int, sign: int, is_void_first: bool
) -> None:
    events: list[Told] = [(clicked(1), AT), (click_voided(2), AT + sign * distance_ms)]
    click = a_click(*(events[::-1] if is_void_first else events))
    assert facts_of(click) == ({"invalid_clicks": 1} if distance_ms < KEEP_MS else {"clicks": 1})


def test_what_a_void_did_is_told() -> None:
    click = Click()
    assert void_click(click, AT, KEEP_MS) is Outcome.PARKED
    assert void_click(click, AT, KEEP_MS) is Outcome.DUPLICATE
    click = a_click((clicked(1), AT))
    assert void_click(click, AT + 1, KEEP_MS) is Outcome.ACCEPTED
    assert void_click(click, AT + 1, KEEP_MS) is Outcome.DUPLICATE
    assert void_click(click, AT + 2, KEEP_MS) is Outcome.DUPLICATE


def test_a_click_that_begins_anew_is_not_void_by_the_void_of_the_forgotten_one() -> None:
    click = a_click((clicked(1), 0), (click_voided(), DAY), (clicked(1), 9 * DAY))
    assert facts_of(click) == {"clicks": 1}
    void_click(click, 10 * DAY, KEEP_MS)
    assert facts_of(click) == {"invalid_clicks": 1}


# ----------------------------------------------------------------------------- asked


def asked(click: Click, timestamp_ms: int) -> Attribution | None:
    ask_click(click, "l", timestamp_ms)
    assert answers(click, KEEP_MS, PARK_MS) == {"l": answer(click, "l", KEEP_MS, PARK_MS)}
    return answer(click, "l", KEEP_MS, PARK_MS)


@pytest.mark.parametrize(
    ("lead_ms", "is_known"),
    [
        (AT - PARK_MS - 1, False),
        (AT - PARK_MS, True),
        (AT, True),
        (AT + KEEP_MS - 1, True),
        (AT + KEEP_MS, False),
    ],
)
def test_a_lead_knows_a_click_that_comes_in_time_and_is_remembered(
    lead_ms: int, is_known: bool
) -> None:
    #            click
    #  [----park--|--keep----)   leads that know it
    told = asked(a_click((clicked(1, "email", "d"), AT)), lead_ms)
    assert told == (Attribution("email", "d") if is_known else None)


def test_a_click_that_nobody_saw_answers_when_it_comes() -> None:
    click = Click()
    assert asked(click, AT) is None
    take_click(click, clicked(1, "email"), AT + 1, KEEP_MS)
    assert answers(click, KEEP_MS, PARK_MS) == {"l": Attribution("email", "c")}


def test_void_and_bot_clicks_attribute_all_the_same() -> None:
    void = a_click((clicked(1), AT), (click_voided(), AT))
    assert asked(void, AT) == asked(a_click((clicked(1, is_bot=True), AT)), AT) is not None


def test_each_lead_is_answered_by_the_first_click_that_it_knows() -> None:
    click = a_click((clicked(1), 0))
    ask_click(click, "early", DAY)
    ask_click(click, "late", 8 * DAY)
    take_click(click, clicked(2, "email"), 9 * DAY, KEEP_MS)
    ask_click(click, "early, read late", DAY)
    first, second = Attribution("seo", "c"), Attribution("email", "c")
    told = {"early": first, "late": second, "early, read late": first}
    assert answers(click, KEEP_MS, PARK_MS) == told


# ----------------------------------------------------------------------------- forgotten


def test_a_click_is_forgotten_when_no_repeat_can_be_one_any_more() -> None:
    assert forget_ms(a_click((clicked(1), AT)), KEEP_MS, PARK_MS) == AT + KEEP_MS
    assert forget_ms(Click(), KEEP_MS, PARK_MS) == 0


def test_a_void_is_remembered_for_a_click_still_to_come() -> None:
    assert forget_ms(a_click((click_voided(), AT)), KEEP_MS, PARK_MS) == AT + KEEP_MS


def test_who_asks_in_vain_is_remembered_for_as_long_as_a_click_may_come() -> None:
    click = Click()
    ask_click(click, "l", AT)
    last = forget_ms(click, KEEP_MS, PARK_MS) - 1
    take_click(click, clicked(1), last, KEEP_MS)
    assert answer(click, "l", KEEP_MS, PARK_MS) is not None
    assert forget_ms(click, KEEP_MS, PARK_MS) == last + KEEP_MS
    late = Click()
    ask_click(late, "l", AT)
    take_click(late, clicked(1), last + 1, KEEP_MS)
    assert answer(late, "l", KEEP_MS, PARK_MS) is None
