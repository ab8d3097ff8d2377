"""Rates of exchange by business date, and amounts of any currency in the reporting one.

Source: contract, section 2, "Amounts".
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from msgspec import msgpack

from kpis.calendar import MINUTE_MS, Calendar
from kpis.events import FxRateSet
from kpis.money import apportion, half_even
from kpis.orders import correction_order
from kpis.spread import DailySpread, Spread

LONGEST_WAIT_DAYS: Final = 7
"""A day without a rate takes that of the nearest earlier day, at most this many days before."""

# Bills of periods to come are looked at every minute, and a year's bill has 365 days. Per currency.
_REMEMBERED_DAYS: Final = 200_000

_ONE: Final = Fraction(1)

_decode = msgpack.Decoder(FxRateSet).decode


class _Bills:
    """Converted bills of one currency, as long as its rates stay the same."""

    def __init__(self) -> None:
        self._converted: dict[Spread, DailySpread] = {}
        self._days = 0

    def find(self, bill: Spread) -> DailySpread | None:
        return self._converted.get(bill)

    def remember(self, bill: Spread, converted: DailySpread) -> None:
        self._converted[bill] = converted
        self._days += len(converted.starts)
        while self._days > _REMEMBERED_DAYS:
            # The last ones first: who goes through all bills again and again finds most of them.
            _, forgotten = self._converted.popitem()
            self._days -= len(forgotten.starts)


class Rates:
    """The latest rate of each currency and day, by correction order among both directions of the pair.

    What has the reporting currency on neither side says nothing to us.
    """

    def __init__(self, reporting_currency: str, calendar: Calendar) -> None:
        self.reporting_currency = reporting_currency
        self._calendar = calendar
        self._latest: dict[str, dict[int, FxRateSet]] = {}
        self._values: dict[str, dict[int, Fraction]] = {}
        self._bills: dict[str, _Bills] = {}

    # ------------------------------------------------------------------------- setting

    def currency_of(self, event: FxRateSet) -> str | None:
        """Return the foreign currency that a rate is of; None for a pair that is not ours."""
        if (event.base == self.reporting_currency) == (event.quote == self.reporting_currency):
            return None
        return event.quote if event.base == self.reporting_currency else event.base

    def is_news(self, event: FxRateSet) -> bool:
        """Tell whether a rate is of a pair of ours and newer than the known one of its day."""
        currency = self.currency_of(event)
        if currency is None:
            return False
        known = self._latest.get(currency, {}).get(event.day)
        return known is None or correction_order(event) > correction_order(known)

    def set(self, event: FxRateSet) -> bool:
        """Take in a rate; tell whether it is now the one of its currency and day, to be stored."""
        currency = self.currency_of(event)
        if currency is None or not self.is_news(event):
            return False
        self._latest.setdefault(currency, {})[event.day] = event
        self._values.setdefault(currency, {})[event.day] = self._value(event)
        self._bills.pop(currency, None)
        return True

    def days_changed(self, event: FxRateSet) -> range:
        """Return the ordinals of the days whose rate `event` may decide: its own and at most 7 later ones.

        The same before and after `set`; empty for a pair that is not ours. A bill with one of these
        days may change on its other days too: what it sums to is rounded over all of them.
        """
        currency = self.currency_of(event)
        if currency is None:
            return range(0)
        known = self._values.get(currency, {})
        end = event.day + 1
        while end <= event.day + LONGEST_WAIT_DAYS and end not in known:
            end += 1
        return range(event.day, end)

    def _value(self, event: FxRateSet) -> Fraction:
        if event.base == self.reporting_currency:
            return Fraction(event.rate_denominator, event.rate_numerator)
        return Fraction(event.rate_numerator, event.rate_denominator)

    # ------------------------------------------------------------------------- converting

    def rate(self, currency: str, day: int) -> Fraction | None:
        """Return what one `currency` is in the reporting one on the day with this ordinal, if known."""
        if currency == self.reporting_currency:
            return _ONE
        known = self._values.get(currency)
        if known is not None:
            for earlier in range(day, day - LONGEST_WAIT_DAYS - 1, -1):
                value = known.get(earlier)
                if value is not None:
                    return value
        return None

    def convert(self, currency: str, at_ms: int, micros: int) -> int | None:
        """Return an amount of the instant's business day in micros of the reporting currency.

        Rounded half to even; None without a rate.
        """
        if currency == self.reporting_currency:
            return micros
        rate = self.rate(currency, self._calendar.ordinal(at_ms // MINUTE_MS))
        if rate is None:
            return None
        return half_even(micros * rate.numerator, rate.denominator)

    def convert_between(self, currency: str, at_ms: int, start: int, stop: int) -> int | None:
        """Return what [start, stop) micros of an amount are in the reporting currency.

        Parts that cover the amount without holes sum to the converted amount, however it is cut.
        """
        until_start = self.convert(currency, at_ms, start)
        until_stop = self.convert(currency, at_ms, stop)
        return None if until_start is None or until_stop is None else until_stop - until_start

    def convert_bill(self, currency: str, bill: Spread) -> DailySpread:
        """Return a bill in the reporting currency: each day's part at the rate of the day.

        The exact parts of the days that have a rate are rounded by largest remainder, so that they
        sum to the rounded whole.
        """
        bills = self._bills.setdefault(currency, _Bills())
        known = bills.find(bill)
        if known is None:
            known = self._converted_bill(currency, bill)
            bills.remember(bill, known)
        return known

    def _converted_bill(self, currency: str, bill: Spread) -> DailySpread:
        edges = [bill.start_minute]
        rates: list[Fraction | None] = []
        while (first := edges[-1]) < bill.end_minute:
            rates.append(self.rate(currency, self._calendar.ordinal(first)))
            day_end = self._calendar.day_end(self._calendar.day_start(first))
            edges.append(min(day_end, bill.end_minute))
        exact = [
            rate * bill.between(first, stop)
            for first, stop, rate in zip(edges[:-1], edges[1:], rates, strict=True)
            if rate is not None
        ]
        rounded = iter(apportion(exact))
        amounts = tuple(None if rate is None else next(rounded) for rate in rates)
        return DailySpread(tuple(edges[:-1]), bill.end_minute, amounts)

    # ------------------------------------------------------------------------- storing

    def key(self, event: FxRateSet) -> tuple[str, str]:
        """Return under what a rate is stored: currency and day; a pair of ours in either direction."""
        return self.currency_of(event) or "", str(event.day)

    def items(self) -> Iterator[FxRateSet]:
        """Return the rates that count, by currency and day."""
        for currency in sorted(self._latest):
            days = self._latest[currency]
            yield from (days[day] for day in sorted(days))

    @staticmethod
    def encode(event: FxRateSet) -> bytes:
        """Return a rate as the row to store."""
        return msgpack.encode(event)

    def load(self, row: bytes) -> None:
        """Take in a stored row."""
        self.set(_decode(row))
