"""Sales with their amendments, refunds and cancellations, and what each is worth.

Amounts are whole micros: of the sale's own currency in state, of the reporting currency in what a
sale tells and counts.

Source: contract, sections 2 ("Amounts") and 3 ("Sale").
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from kpis.calendar import MINUTE_MS
from kpis.contributions import Contribution, Place, count
from kpis.events import (
    NO_CAMPAIGN,
    UNATTRIBUTED,
    SaleAmended,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
)
from kpis.facts import PERIOD, add
from kpis.orders import (
    Order,
    Outcome,
    Waiting,
    content_of,
    correction_order,
    is_reached,
    order_of,
    outcome_of,
    smaller,
)
from kpis.retention import Grain

NEW: Final = "new"

Convert = Callable[[str, int, int], int | None]
"""(currency, instant in ms, micros) to micros of the reporting currency; None without a rate."""

_PLAIN: Final = 1 << 62


class FirstSale(Struct, frozen=True, array_like=True, gc=False):
    """The `created` that counts: the first in the common order."""

    order: Order
    lead_id: str | None
    amount_micros: int
    currency: str
    kind: str | None
    content: int


class Amendment(Struct, frozen=True, array_like=True, gc=False):
    """The latest amendment in the order of corrections."""

    order: Order
    amount_micros: int
    currency: str


class Refund(Struct, frozen=True, array_like=True, gc=False):
    """The first event of a refund_id in the common order."""

    order: Order
    amount_micros: int
    currency: str


class Sale(Struct, array_like=True):
    """One `sale_id`; `created_timestamp_ms` is the smallest of its `created` records.

    `unchecked` are refunds whose currency `take_mismatches` has not looked at; `rejected` are the
    refund_ids that were rejected for theirs.
    """

    created: FirstSale | None = None
    created_timestamp_ms: int | None = None
    is_void: bool = False
    amended: Amendment | None = None
    cancelled: Order | None = None
    refunds: dict[str, Refund] = {}
    waiting: list[Waiting] = []
    unchecked: list[Waiting] = []
    rejected: list[str] = []


class SaleState(Struct, frozen=True, array_like=True, gc=False):
    """What a sale that is not void is worth, in micros of the reporting currency.

    `reversals` are (instant in ms, micros) of refunds and of what a cancellation gives back. A `gross`
    of None has no rate: what went back is then 0, and missing too. What msgpack cannot carry as a number
    is text; `gross_micros` and `reversed_micros` are numbers.
    """

    order: Order
    kind: str | None
    gross: int | str | None
    reversals: tuple[tuple[int, int | str], ...]
    cancelled_ms: int | None
    stands: bool

    @property
    def gross_micros(self) -> int:
        """The amount, 0 if it is not known."""
        return int(self.gross or 0)

    @property
    def reversed_micros(self) -> int:
        """What went back of the amount."""
        return sum(int(micros) for _, micros in self.reversals)

    @property
    def is_fx_missing(self) -> bool:
        """Whether there is no rate for the amount."""
        return self.gross is None


# ----------------------------------------------------------------------------- transitions


def create_sale(sale: Sale, event: SaleCreated, timestamp_ms: int, park_ms: int) -> Outcome:
    """Take a `sale.created`; the first in the common order counts, whatever was read first."""
    content = content_of(event)
    outcome = outcome_of(None if sale.created is None else sale.created.content, content)
    order = order_of(event.envelope)
    if sale.created is None or order < sale.created.order:
        sale.created = FirstSale(
            order, event.lead_id, event.amount_micros, event.currency, event.kind, content
        )
    sale.created_timestamp_ms = smaller(sale.created_timestamp_ms, timestamp_ms)
    waiting, sale.waiting = sale.waiting, []
    for told in waiting:
        if is_reached(sale.created_timestamp_ms, told, park_ms):
            _apply(sale, told)
        else:
            sale.waiting.append(told)
    return outcome


def tell_sale(sale: Sale, told: Waiting, park_ms: int) -> Outcome:
    """Take an event that names a sale: apply it, or park it until the sale is created.

    Ask `take_mismatches` after it, and after `create_sale`.
    """
    if not is_reached(sale.created_timestamp_ms, told, park_ms):
        sale.waiting.append(told)
        return Outcome.PARKED
    return _apply(sale, told)


def take_mismatches(sale: Sale) -> list[Waiting]:
    """Return the refunds taken since last asked that are not in the sale's currency, each once.

    They are to be rejected. Should an amendment change the sale's currency to theirs, they count.
    """
    if not sale.unchecked:
        return []
    unchecked, sale.unchecked = sale.unchecked, []
    mismatches = []
    currency = _amount(sale)[1]
    for told in unchecked:
        refund = told.event
        if (
            isinstance(refund, SaleRefunded)
            and refund.currency != currency
            and refund.refund_id not in sale.rejected
        ):
            sale.rejected = [*sale.rejected, refund.refund_id]
            mismatches.append(told)
    return mismatches


def _apply(sale: Sale, told: Waiting) -> Outcome:
    match event := told.event:
        case SaleRefunded():
            return _refund(sale, told, event)
        case SaleAmended():
            order = correction_order(event)
            changes = sale.amended is None or sale.amended.order < order
            if changes:
                sale.amended = Amendment(order, event.amount_micros, event.currency)
        case SaleCancelled():
            changes = sale.cancelled is None
            order = order_of(event.envelope)
            if sale.cancelled is None or order < sale.cancelled:
                sale.cancelled = order
        case _:
            changes = not sale.is_void
            sale.is_void = True
    return Outcome.ACCEPTED if changes else Outcome.DUPLICATE


def _refund(sale: Sale, told: Waiting, event: SaleRefunded) -> Outcome:
    known = sale.refunds.get(event.refund_id)
    order = order_of(event.envelope)
    if known is None or order < known.order:
        sale.refunds[event.refund_id] = Refund(order, event.amount_micros, event.currency)
        sale.unchecked = [*sale.unchecked, told]
    if known is not None:
        is_same = (known.amount_micros, known.currency) == (event.amount_micros, event.currency)
        return Outcome.DUPLICATE if is_same else Outcome.CONFLICT
    return Outcome.ACCEPTED if event.currency == _amount(sale)[1] else Outcome.REJECTED


# ----------------------------------------------------------------------------- what a sale is worth


def sale_ms(sale: Sale) -> int | None:
    """Return when the sale happened, on whose day everything of it is converted."""
    return None if sale.created is None else sale.created.order.at_ms


def currencies(sale: Sale, reporting: str) -> set[str]:
    """Return the currencies whose rates on the day of the sale decide what it is worth."""
    if sale.created is None or sale.is_void:
        return set()
    return {_amount(sale)[1]} - {reporting}


def excess_micros(sale: Sale) -> int:
    """Return how much was refunded beyond what was left, in micros of the sale's currency."""
    return 0 if sale.created is None else _reversals(sale)[1]


def state_for_lead(sale: Sale, convert: Convert) -> SaleState | None:
    """Return what a sale tells its lead: None without a `created` or if it is void."""
    created = sale.created
    if created is None or sale.is_void:
        return None
    amount, currency = _amount(sale)
    at_ms = created.order.at_ms
    gross = convert(currency, at_ms, amount)
    taken = before = 0
    converted = []
    parts, _ = _reversals(sale)
    for part_ms, part in parts:
        taken += part
        # From sum to sum, so that a refund in full takes back exactly what was booked.
        after = convert(currency, at_ms, taken) or 0
        converted.append((part_ms, _carried(after - before)))
        before = after
    return SaleState(
        created.order,
        created.kind,
        None if gross is None else _carried(gross),
        tuple(converted),
        None if sale.cancelled is None else sale.cancelled.at_ms,
        stands=sale.cancelled is None and (amount == 0 or taken < amount),
    )


def _amount(sale: Sale) -> tuple[int, str]:
    told = sale.amended or sale.created
    return (0, "") if told is None else (told.amount_micros, told.currency)


def _reversals(sale: Sale) -> tuple[list[tuple[int, int]], int]:
    """Return (instant, amount) of what went back in the common order, and the excess."""
    left, currency = _amount(sale)
    requests: list[tuple[Order, int | None]] = [
        (refund.order, refund.amount_micros)
        for _, refund in sorted(sale.refunds.items())
        if refund.currency == currency
    ]
    if sale.cancelled is not None:
        requests.append((sale.cancelled, None))
    requests.sort(key=lambda request: request[0])
    parts = []
    excess = 0
    for order, wanted in requests:
        part = left if wanted is None else min(wanted, left)
        excess += 0 if wanted is None else wanted - part
        left -= part
        if part:
            parts.append((order.at_ms, part))
    return parts, excess


def _carried(micros: int) -> int | str:
    return micros if -_PLAIN < micros < _PLAIN else str(micros)


# ----------------------------------------------------------------------------- contributions


def sale_contribution(sale: Sale, convert: Convert) -> Contribution:
    """Return what a sale without a `lead_id` adds; the others count at their lead."""
    result: Contribution = {}
    if sale.created is not None and sale.created.lead_id is None:
        state = state_for_lead(sale, convert)
        if state is not None:
            count_unattributed(result, state)
    return result


def count_unattributed(result: Contribution, sale: SaleState) -> None:
    """Count a sale whose lead is missing, void or unknown."""
    count_sale(result, UNATTRIBUTED, NO_CAMPAIGN, sale, is_new=sale.kind == NEW)
    place = minute_place(PERIOD, UNATTRIBUTED, NO_CAMPAIGN, sale.order.at_ms)
    count(result, place, "sales_unattributed")


def count_sale(
    result: Contribution, channel: str, campaign_id: str, sale: SaleState, *, is_new: bool
) -> None:
    """Count a sale in the period basis: at its own time, what went back when it did."""
    place = minute_place(PERIOD, channel, campaign_id, sale.order.at_ms)
    facts = {
        "sales": 1,
        "revenue_gross": sale.gross_micros,
        "new_customers": int(is_new),
        "fx_missing": int(sale.is_fx_missing),
    }
    add(result.setdefault(place, {}), facts)
    for at_ms, micros in sale.reversals:
        place = minute_place(PERIOD, channel, campaign_id, at_ms)
        count(result, place, "refunds", int(micros))
        count(result, place, "fx_missing", int(sale.is_fx_missing))
    if sale.cancelled_ms is not None:
        place = minute_place(PERIOD, channel, campaign_id, sale.cancelled_ms)
        count(result, place, "sales_cancelled")


def minute_place(basis: str, channel: str, campaign_id: str, at_ms: int) -> Place:
    """Return the place of what happened at an instant."""
    return Place(basis, channel, campaign_id, Grain.MINUTE, at_ms // MINUTE_MS)
