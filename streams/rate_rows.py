"""The rates of exchange as a shard knows them, and which of its rows each of them converts."""

from typing import Final

from msgspec import msgpack

from kpis.events import FxRateSet
from kpis.fx import Rates
from kpis.orders import Outcome
from streams.entity_rows import Work

RATE: Final = b"f"
FOREIGN: Final = b"x"

_STRIDE_DAYS: Final = 8
"""Rows are looked up by spans of so many days: a rate is in force for at most eight."""

_decode_foreign = msgpack.Decoder(tuple[str, int, int]).decode


class RateRows:
    """All rates, and an index of the rows with money in another currency by the days of their rates."""

    def __init__(self, work: Work) -> None:
        deployment = work.deployment
        self.rates = Rates(deployment.rules.currency, deployment.buckets.calendar)
        self._table = work.table
        self._days: dict[bytes, tuple[str, int, int]] = {}
        self._keys: dict[tuple[str, int], set[bytes]] = {}

    def restore(self, key: bytes, row: bytes) -> None:
        """Take up a stored rate."""
        del key
        self.rates.load(row)

    def restore_index(self, key: bytes, row: bytes) -> None:
        """Take up what is stored of a row with foreign money."""
        self._remember(key[len(FOREIGN) :], _decode_foreign(row))

    def set(self, event: FxRateSet) -> Outcome:
        """Take in a rate; whoever it concerns is to be taken up before."""
        if self.rates.currency_of(event) is None:
            return Outcome.ACCEPTED
        if not self.rates.set(event):
            return Outcome.DUPLICATE
        currency, day = self.rates.key(event)
        self._table.put(RATE + f"{currency}{day}".encode(), self.rates.encode(event))
        return Outcome.ACCEPTED

    def concerned(self, event: FxRateSet) -> list[bytes]:
        """Return the keys of the rows whose money a rate may convert anew; none if it is old news."""
        if not self.rates.is_news(event):
            return []
        currency, days = self.rates.currency_of(event), self.rates.days_changed(event)
        if currency is None:
            return []
        found: set[bytes] = set()
        for stride in _strides(days.start, days.stop):
            found |= self._keys.get((currency, stride), set())
        return sorted(key for key in found if self._overlaps(key, days))

    def index(self, key: bytes, currency: str | None, days: range) -> None:
        """Remember in which currency and on which days a row has money."""
        is_foreign = currency not in (None, self.rates.reporting_currency) and bool(days)
        now = (currency or "", days.start, days.stop) if is_foreign else None
        known = self._days.get(key)
        if now == known:
            return
        if known is not None:
            self._forget(key, known)
        if now is not None:
            self._remember(key, now)
            self._table.put(FOREIGN + key, msgpack.encode(now))
        else:
            self._table.delete(FOREIGN + key)

    def _overlaps(self, key: bytes, days: range) -> bool:
        _, start, stop = self._days[key]
        return start < days.stop and days.start < stop

    def _remember(self, key: bytes, foreign: tuple[str, int, int]) -> None:
        currency, start, stop = self._days[key] = foreign
        for stride in _strides(start, stop):
            self._keys.setdefault((currency, stride), set()).add(key)

    def _forget(self, key: bytes, foreign: tuple[str, int, int]) -> None:
        del self._days[key]
        currency, start, stop = foreign
        for stride in _strides(start, stop):
            keys = self._keys[currency, stride]
            keys.discard(key)
            if not keys:
                del self._keys[currency, stride]


def _strides(start: int, stop: int) -> range:
    return range(start // _STRIDE_DAYS, (stop - 1) // _STRIDE_DAYS + 1)
