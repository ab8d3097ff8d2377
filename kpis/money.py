"""Money as whole micros, read and divided exactly; no float ever touches an amount.

Source: contract, section 2 "Amounts" and section 5 "Value of a KPI".
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

MICROS: Final = 1_000_000
"""Micros in one unit of a currency; also the scale of every KPI value."""

LARGEST_MICROS: Final = 10**12 * MICROS
"""The largest amount of one event: 10^12 units."""

AMOUNT: Final = "a decimal number up to 10^12 with at most 6 decimals"

# Thirteen digits are enough for 10^12, so that no long text is ever turned into a number.
_AMOUNT: Final = re.compile(r"(-?)([0-9]{1,13})(?:\.([0-9]{1,6}))?")

RATE: Final = "a decimal number above 0, up to 10^6, with at most 12 decimals"

LARGEST_RATE: Final = 10**6
"""The largest rate: with 12 decimals its numerator still fits into 63 bits."""

_RATE: Final = re.compile(r"-?[0-9]{1,7}(?:\.[0-9]{1,12})?")

_ISO_4217: Final = (
    # List one, with funds, metals and the codes for testing and for no currency.
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN "
    "BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR "
    "FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY "
    "KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU "
    "MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON "
    "RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP "
    "TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XAG XAU XBA XBB "
    "XBC XBD XCD XCG XDR XOF XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG "
    # Withdrawn from 2021 to 2026: bills of those years still name them.
    "ANG BGN CUC HRK SLL ZWL"
)

CURRENCY: Final = "a currency code of ISO 4217"

CURRENCIES: Final = frozenset(_ISO_4217.split())
"""The currency codes of ISO 4217."""


class AmountError(ValueError):
    """A text that is no amount of money."""


class RateError(ValueError):
    """A text that is no rate of exchange."""


def amount_micros(text: str) -> int:
    """Return the amount that a decimal text names, in micros, exactly.

    Minus is read; whether an amount may be negative is for the caller to say.

    Raises:
        AmountError: for exponents, grouping, a plus sign, more than 6 decimals or more than 10^12.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise AmountError(_message(text))
    minus, units, decimals = match.groups()
    micros = int(units) * MICROS
    if decimals is not None:
        micros += int(decimals.ljust(6, "0"))
    if micros > LARGEST_MICROS:
        raise AmountError(_message(text))
    return -micros if minus else micros


def exchange_rate(text: str) -> Fraction:
    """Return the rate of exchange that a decimal text names, exactly and in lowest terms.

    Raises:
        RateError: for exponents, grouping, a plus sign, more than 12 decimals, 0 or less, and more
            than 10^6.
    """
    if _RATE.fullmatch(text) is not None:
        rate = Fraction(text)
        if 0 < rate <= LARGEST_RATE:
            return rate
    msg = f"expected {RATE}, got {text[:40]!r}"
    raise RateError(msg)


def _message(text: str) -> str:
    return f"expected {AMOUNT}, got {text[:40]!r}"


def scaled_quotient(numerator: int, denominator: int) -> int:
    """Return numerator / denominator in millionths, exact and rounded half to even.

    Raises:
        ValueError: unless the denominator is positive; a KPI without one is undefined.

    Source: contract, section 5, "rounded half-even to 6 decimals".
    """
    if denominator <= 0:
        msg = f"denominator: expected a positive number, got {denominator}"
        raise ValueError(msg)
    return half_even(numerator * MICROS, denominator)


def half_even(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded half to even; the denominator is positive."""
    whole, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1):
        return whole + 1
    return whole


def apportion(parts: Sequence[Fraction]) -> list[int]:
    """Return parts rounded by largest remainder: they sum to their sum rounded half to even.

    No part is off by 1 or more; of equal remainders the earlier part is larger. What is less than 0 in
    sum is rounded as if it were positive, so that the opposite of every part gives the opposite result.

    Source: contract, section 2, "Amounts".
    """
    total = _exact_sum(parts)
    if total < 0:
        return [-part for part in apportion([-part for part in parts])]
    divided = [divmod(part.numerator, part.denominator) for part in parts]
    rounded = [whole for whole, _ in divided]
    missing = half_even(total.numerator, total.denominator) - sum(rounded)
    if missing:
        remainders = [
            Fraction(rest, part.denominator) for (_, rest), part in zip(divided, parts, strict=True)
        ]
        largest = sorted(range(len(parts)), key=lambda index: -remainders[index])
        for index in largest[:missing]:
            rounded[index] += 1
    return rounded


def _exact_sum(parts: Sequence[Fraction]) -> Fraction:
    # Many parts share few denominators; adding fractions of different ones is dear.
    numerators: dict[int, int] = {}
    for part in parts:
        denominator = part.denominator
        numerators[denominator] = numerators.get(denominator, 0) + part.numerator
    return sum(
        (Fraction(numerator, denominator) for denominator, numerator in numerators.items()),
        Fraction(0),
    )
