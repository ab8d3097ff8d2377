"""Sales of a shard: what each is worth, and what it tells the lead that it names."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec import msgpack

from kpis.calendar import MINUTE_MS
from kpis.contributions import Contribution, correction
from kpis.events import SaleCreated
from kpis.ledger import Causes, causes_of
from kpis.orders import Outcome, Waiting, take_orphans
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
from streams.entity_rows import Rows, TakenUp, Work
from streams.messages import Forwarded, SaleEvent, SaleTold, entity_key, lead_key
from streams.rate_rows import RateRows
from streams.waiting import Parking, waiting_of

SALE: Final = b"s"


class _Shown(NamedTuple):
    """What a sale adds by itself, what it tells which lead, what was refunded too much, what waits."""

    contribution: Contribution
    lead_id: str | None
    state: SaleState | None
    excess_micros: int
    waiting: int


class SaleRows(Rows[Sale, _Shown]):
    """The sales that live in one shard."""

    def __init__(self, work: Work, rates: RateRows, parking: Parking) -> None:
        super().__init__(work, msgpack.Decoder(Sale).decode)
        self._rates = rates
        self._parking = parking
        self._park_ms = work.deployment.park_ms

    def apply(self, event: SaleEvent, item: Forwarded) -> Outcome:
        """Take in an event of a sale."""
        key = entity_key(event)
        sale = self.take_up(key, causes_of(event)).entity
        if isinstance(event, SaleCreated):
            outcome = create_sale(sale, event, item.timestamp_ms, self._park_ms)
        else:
            outcome = tell_sale(sale, waiting_of(item), self._park_ms)
        if outcome is Outcome.PARKED:
            self._parking.park(key, item.timestamp_ms)
        for told in take_mismatches(sale):
            self._reject_mismatch(told)
        return outcome

    def take_up_all(self, keys: Iterable[bytes], causes: Causes) -> None:
        """Take up the sales that a rate is about to convert anew."""
        for key in keys:
            if key.startswith(SALE):
                self.take_up(key, causes)

    def expire(self, key: bytes, complete_until_ms: int) -> None:
        """Give up what no `created` can reach any more."""
        sale = self.take_up(key).entity
        for orphan in take_orphans(sale, complete_until_ms, self._park_ms):
            self._parking.reject_orphan(orphan, "sale")

    def _reject_mismatch(self, told: Waiting) -> None:
        currency = getattr(told.event, "currency", None)
        message = f"currency: expected the one of its sale, got {currency!r}"
        self._parking.reject(told, "currency_mismatch", "currency", message)

    def _new(self) -> Sale:
        return Sale()

    def _is_empty(self, entity: Sale) -> bool:
        return entity.created is None and not entity.waiting

    def _show(self, key: bytes, entity: Sale) -> _Shown:
        del key
        convert = self._rates.rates.convert
        return _Shown(
            sale_contribution(entity, convert),
            None if entity.created is None else entity.created.lead_id,
            state_for_lead(entity, convert),
            excess_micros(entity),
            len(entity.waiting),
        )

    def _settle(self, key: bytes, taken: TakenUp[Sale, _Shown]) -> None:
        before, now = taken.before, self._show(key, taken.entity)
        change = correction(now.contribution, before.contribution)
        self._work.deltas.add(change, taken.causes)
        self._tell(key[len(SALE) :].decode(), taken, now)
        if now.excess_micros > before.excess_micros:
            self._work.tally.remarked("over_refund")
        self._parking.count(now.waiting - before.waiting)
        self._index(key, taken.entity)

    def _tell(self, sale_id: str, taken: TakenUp[Sale, _Shown], now: _Shown) -> None:
        before, work = taken.before, self._work
        if before.lead_id is not None and before.lead_id != now.lead_id:
            gone = SaleTold(before.lead_id, sale_id, None, taken.causes)
            work.tell(lead_key(before.lead_id), gone)
        known = before.state if before.lead_id == now.lead_id else None
        if now.lead_id is not None and now.state != known:
            told = SaleTold(now.lead_id, sale_id, now.state, taken.causes)
            work.tell(lead_key(now.lead_id), told)

    def _index(self, key: bytes, sale: Sale) -> None:
        at_ms = sale_ms(sale)
        foreign = currencies(sale, self._rates.rates.reporting_currency)
        if at_ms is None or not foreign:
            self._rates.index(key, None, range(0))
            return
        day = self._work.deployment.buckets.calendar.ordinal(at_ms // MINUTE_MS)
        self._rates.index(key, foreign.pop(), range(day, day + 1))
