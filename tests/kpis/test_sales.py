"""Sales: what is left of an amount, what went back and when, and in which currency."""

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from kpis.contributions import Place
from kpis.events import SaleCreated
from kpis.facts import PERIOD
from kpis.orders import Outcome, take_orphans
from kpis.retention import Grain
from kpis.sales import (
    Sale,
    SaleState,
    create_sale,
    currencies,
    excess_micros,
    sale_contribution,
    sale_ms,
    state_for_lead,
    take_mismatches,
    tell_sale,
)
from tests.examples import A_PROPERTY
from tests.kpis.journeys import (
    DAY,
    MINUTE,
    PARK_MS,
    SaleEvent,
    amended,
    cancelled,
    convert,
    refunded,
    sold,
    sound,
    total,
    voided,
    waiting,
)

Told = tuple[SaleEvent, int]


def sale_of(events: Sequence[Told]) -> Sale:
    """Return a sale after its events, each with its record's timestamp."""
    sale = Sale()
    for event, timestamp_ms in events:
        if isinstance(event, SaleCreated):
            create_sale(sale, event, timestamp_ms, PARK_MS)
        else:
            tell_sale(sale, waiting(event, timestamp_ms), PARK_MS)
    return sale


def a_sale(*events: SaleEvent) -> Sale:
    return sale_of([(event, 0) for event in events])


def state_of(*events: SaleEvent) -> SaleState:
    state = state_for_lead(a_sale(*events), convert)
    assert state is not None
    return state


def reversals_of(*events: SaleEvent) -> list[tuple[int, int]]:
    """Return (minute, micros) of what went back."""
    return [(at_ms // MINUTE, int(micros)) for at_ms, micros in state_of(*events).reversals]


# ----------------------------------------------------------------------------- order

MINUTES = st.integers(0, 4)
CURRENCIES = st.sampled_from(("EUR", "EUR", "USD", "JPY"))
TIMESTAMPS = st.sampled_from((0, 0, 0, DAY, 7 * DAY, 8 * DAY))
MANY = 5
SOLD = st.builds(
    sold,
    MINUTES,
    st.integers(0, 9),
    st.sampled_from((None, "new")),
    st.sampled_from((None, "l")),
    currency=CURRENCIES,
)
TOLD = st.lists(
    st.tuples(
        st.one_of(
            SOLD,
            st.builds(amended, MINUTES, st.integers(0, 9), currency=CURRENCIES, written=MINUTES),
            st.builds(
                refunded,
                MINUTES,
                st.integers(1, 6),
                st.sampled_from(("r1", "r2", "r3")),
                currency=CURRENCIES,
            ),
            st.builds(cancelled, MINUTES),
            st.builds(voided, MINUTES),
        ),
        TIMESTAMPS,
    ),
    max_size=MANY,
)
EVENTS = st.builds(lambda creation, told: [creation, *told], st.tuples(SOLD, TIMESTAMPS), TOLD)


@given(EVENTS)
@A_PROPERTY
def test_any_order_of_a_sales_events_is_worth_the_same(events: list[Told]) -> None:
    expected = sale_of([*events, *events])
    orders = permutations(events) if len(events) < MANY else (events, events[::-1])
    for order in orders:
        sale = sale_of(order)
        assert state_for_lead(sale, convert) == state_for_lead(expected, convert)
        assert excess_micros(sale) == excess_micros(expected)
    sale = sale_of(events)
    assert sale_contribution(sale, convert) == sale_contribution(expected, convert)
    assert msgpack.decode(msgpack.encode(sale), type=Sale) == sale


@given(EVENTS)
@A_PROPERTY
def test_no_more_goes_back_than_was_paid_and_what_stands_has_something_left(
    events: list[Told],
) -> None:
    state = state_for_lead(sale_of([(sold(1), 0), *events]), convert)
    if state is not None and not state.is_fx_missing:
        assert 0 <= state.reversed_micros <= state.gross_micros
        assert state.stands or state.reversed_micros == state.gross_micros


def test_the_first_created_counts_and_another_is_a_conflict() -> None:
    sale = Sale()
    assert create_sale(sale, sold(5), 0, PARK_MS) is Outcome.ACCEPTED
    assert create_sale(sale, sold(5), 0, PARK_MS) is Outcome.DUPLICATE
    assert create_sale(sale, sold(4, 7, lead_id="m"), 0, PARK_MS) is Outcome.CONFLICT
    assert sale.created is not None
    assert (sale.created.lead_id, sale_ms(sale)) == ("m", 4 * MINUTE)


def test_a_sale_that_was_not_created_tells_nothing() -> None:
    sale = a_sale(refunded(1, 2))
    assert state_for_lead(sale, convert) is None
    assert sale_ms(sale) is None
    assert excess_micros(sale) == 0
    assert currencies(sale, "EUR") == set()


# ----------------------------------------------------------------------------- amounts


def test_the_latest_amendment_in_the_order_of_writing_is_the_amount() -> None:
    state = state_of(sold(1, 5), amended(2, 7, written=9), amended(3, 8, written=8))
    assert state.gross_micros == 7


def test_an_amendment_may_change_the_currency() -> None:
    sale = a_sale(sold(1, 50), amended(2, 50, currency="USD"))
    assert currencies(sale, "EUR") == {"USD"}
    assert state_of(sold(1, 50), amended(2, 50, currency="USD")).gross_micros == 45


def test_a_sale_in_the_reporting_currency_needs_no_rate() -> None:
    assert currencies(a_sale(sold(1)), "EUR") == set()
    assert currencies(a_sale(sold(1, currency="USD"), voided()), "EUR") == set()


def test_refunds_are_taken_in_order_up_to_what_is_left() -> None:
    events = sold(1, 5), refunded(4, 4, "r1"), refunded(3, 3, "r2"), refunded(5, 1, "r3")
    assert reversals_of(*events) == [(3, 3), (4, 2)]
    assert excess_micros(a_sale(*events)) == 3


def test_the_first_event_of_a_refund_counts() -> None:
    assert reversals_of(sold(1, 5), refunded(4, 4), refunded(3, 1)) == [(3, 1)]


def test_a_cancellation_takes_back_the_rest_at_its_own_time() -> None:
    state = state_of(sold(1, 5), refunded(2, 2), cancelled(4), refunded(6, 1, "r2"), cancelled(3))
    assert reversals_of(sold(1, 5), refunded(2, 2), cancelled(3)) == [(2, 2), (3, 3)]
    assert [at_ms // MINUTE for at_ms, _ in state.reversals] == [2, 3]
    assert state.cancelled_ms == 3 * MINUTE
    assert not state.stands


@pytest.mark.parametrize(
    ("events", "stands"),
    [
        ((sold(1, 5),), True),
        ((sold(1, 0),), True),
        ((sold(1, 5), refunded(2, 4)), True),
        ((sold(1, 5), refunded(2, 5)), False),
        ((sold(1, 5), refunded(2, 9)), False),
        ((sold(1, 5), refunded(2, 5), amended(3, 6)), True),
        ((sold(1, 5), refunded(2, 5), amended(3, 0)), True),
        ((sold(1, 0), cancelled(2)), False),
        ((sold(1, 5, currency="JPY"), refunded(2, 5, currency="JPY")), False),
    ],
)
def test_a_sale_stands_while_something_is_left_of_it(
    events: tuple[SaleEvent, ...], stands: bool
) -> None:
    assert state_of(*events).stands is stands


@given(st.integers(1, 30), st.lists(st.integers(1, 9), max_size=6))
@A_PROPERTY
def test_refunds_in_full_take_back_exactly_what_was_booked(amount: int, parts: list[int]) -> None:
    refunds = [refunded(n, part, f"r{n}", currency="USD") for n, part in enumerate(parts, 2)]
    state = state_of(sold(1, amount, currency="USD"), *refunds, cancelled(99))
    assert state.reversed_micros == state.gross_micros == convert("USD", 0, amount)


def test_a_sale_without_a_rate_has_no_amount_but_what_went_back_did() -> None:
    state = state_of(sold(1, 5, currency="JPY"), refunded(2, 2, currency="JPY"))
    assert state.is_fx_missing
    assert state.gross is None
    assert state.reversals == ((2 * MINUTE, 0),)


def test_an_amount_that_msgpack_cannot_carry_travels_as_text() -> None:
    huge = 10**25
    state = state_for_lead(a_sale(sold(1, 5), refunded(2, 5)), lambda *amount: amount[2] * huge)
    assert state is not None
    assert msgpack.decode(msgpack.encode(state), type=SaleState) == state
    assert state.gross_micros == state.reversed_micros == 5 * huge


# ----------------------------------------------------------------------------- another currency


def test_a_refund_in_another_currency_is_not_taken_and_is_rejected_once() -> None:
    sale = a_sale(sold(1, 5))
    told = waiting(refunded(2, 2, currency="USD"))
    assert tell_sale(sale, told, PARK_MS) is Outcome.REJECTED
    assert take_mismatches(sale) == [told]
    assert tell_sale(sale, told, PARK_MS) is Outcome.DUPLICATE
    assert take_mismatches(sale) == []
    state = state_for_lead(sale, convert)
    assert state is not None
    assert state.reversals == ()


def test_a_parked_refund_in_another_currency_is_rejected_when_it_is_applied() -> None:
    sale = a_sale(refunded(2, 2, currency="USD"), refunded(2, 1, "r2"))
    assert take_mismatches(sale) == []
    create_sale(sale, sold(1), 0, PARK_MS)
    assert [told.event for told in take_mismatches(sale)] == [refunded(2, 2, currency="USD")]


@pytest.mark.parametrize("is_amended_first", [True, False])
def test_what_was_parked_together_is_judged_together(is_amended_first: bool) -> None:
    events: list[SaleEvent] = [
        amended(3, 5, currency="USD"),
        refunded(2, 2, currency="USD"),
    ]
    sale = a_sale(*(events if is_amended_first else events[::-1]))
    create_sale(sale, sold(1), 0, PARK_MS)
    assert take_mismatches(sale) == []


def test_a_refund_counts_whenever_its_currency_is_the_sales() -> None:
    sale = a_sale(sold(1, 50), refunded(2, 10, currency="USD"))
    assert len(take_mismatches(sale)) == 1
    tell_sale(sale, waiting(amended(3, 50, currency="USD")), PARK_MS)
    state = state_for_lead(sale, convert)
    assert state is not None
    assert state.reversals == ((2 * MINUTE, 9),)


# ----------------------------------------------------------------------------- what it adds


def test_a_sale_without_a_lead_counts_itself_and_one_with_a_lead_does_not() -> None:
    alone = a_sale(sold(1, 5, "new", lead_id=None), refunded(2, 2), cancelled(3))
    assert sound(sale_contribution(alone, convert)) == {
        Place(PERIOD, "unattributed", "-", Grain.MINUTE, 1): {
            "sales": 1,
            "sales_unattributed": 1,
            "revenue_gross": 5,
            "new_customers": 1,
        },
        Place(PERIOD, "unattributed", "-", Grain.MINUTE, 2): {"refunds": 2},
        Place(PERIOD, "unattributed", "-", Grain.MINUTE, 3): {"refunds": 3, "sales_cancelled": 1},
    }
    assert sale_contribution(a_sale(sold(1)), convert) == {}


def test_a_sale_without_a_lead_is_repeat_unless_it_says_so() -> None:
    facts = total(sale_contribution(a_sale(sold(1, lead_id=None)), convert))
    assert "new_customers" not in facts


def test_created_then_voided_was_never_there() -> None:
    sale = a_sale(sold(1, lead_id=None), refunded(2, 2), cancelled(3), voided())
    assert state_for_lead(sale, convert) is None
    assert sale_contribution(sale, convert) == {}


# ----------------------------------------------------------------------------- parked


@pytest.mark.parametrize("event", [amended(1, 7), refunded(1, 2), cancelled(1), voided(1)])
def test_what_an_event_did_to_a_sale_is_told(event: SaleEvent) -> None:
    sale, told = Sale(), waiting(event)
    assert tell_sale(sale, told, PARK_MS) is Outcome.PARKED
    assert create_sale(sale, sold(0), 0, PARK_MS) is Outcome.ACCEPTED
    assert sale.waiting == []
    assert tell_sale(sale, told, PARK_MS) is Outcome.DUPLICATE
    assert tell_sale(a_sale(sold(0)), told, PARK_MS) is Outcome.ACCEPTED


def test_a_refund_with_the_id_of_another_is_a_conflict() -> None:
    sale = a_sale(sold(1), refunded(2, 2))
    assert tell_sale(sale, waiting(refunded(3, 2)), PARK_MS) is Outcome.DUPLICATE
    assert tell_sale(sale, waiting(refunded(3, 1)), PARK_MS) is Outcome.CONFLICT


@pytest.mark.parametrize(("created_at_ms", "is_applied"), [(PARK_MS, True), (PARK_MS + 1, False)])
def test_an_event_waits_for_its_sale_for_the_time_it_may_park(
    created_at_ms: int, is_applied: bool
) -> None:
    sale = sale_of([(voided(), 0), (sold(1), created_at_ms)])
    assert sale.is_void is is_applied
    assert len(take_orphans(sale, created_at_ms + 1, PARK_MS)) == (not is_applied)
