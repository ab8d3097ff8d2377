"""Money is read and divided exactly."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.money import (
    CURRENCIES,
    LARGEST_MICROS,
    MICROS,
    AmountError,
    RateError,
    amount_micros,
    exchange_rate,
    scaled_quotient,
)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("12.50", 12_500_000),
        ("12", 12_000_000),
        ("0", 0),
        ("-0", 0),
        ("0.000001", 1),
        ("-12.5", -12_500_000),
        ("1000000000000", LARGEST_MICROS),
        ("1000000000000.000000", LARGEST_MICROS),
        ("-1000000000000", -LARGEST_MICROS),
        ("0.1", 100_000),
        ("007.5", 7_500_000),
    ],
)
def test_amount_is_exact_to_the_micro(text: str, micros: int) -> None:
    assert amount_micros(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.0000000",
        "0.1234567",
        "1000000000000.000001",
        "1000000000001",
        "9" * 5000,
        "1e3",
        "1E3",
        "1,000",
        "1 000",
        "1_000",
        "1'000",
        "12,50",
        "+1",
        "--1",
        ".5",
        "5.",
        " 5",
        "5\n",
        "0x10",
        "NaN",
        "Infinity",
        "٣",
        "€5",
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(AmountError, match="expected a decimal number"):
        amount_micros(text)


@given(st.integers(-LARGEST_MICROS, LARGEST_MICROS))
def test_amount_comes_back_from_its_text(micros: int) -> None:
    sign = "-" if micros < 0 else ""
    units, decimals = divmod(abs(micros), MICROS)
    assert amount_micros(f"{sign}{units}.{decimals:06}") == micros


@given(st.decimals(-(10**12), 10**12, places=6))
def test_amount_agrees_with_decimal(amount: Decimal) -> None:
    assert amount_micros(f"{amount:f}") == int(amount.scaleb(6))


@given(st.text("0123456789.,-+eE_ "))
def test_any_text_is_an_amount_within_bounds_or_refused(text: str) -> None:
    try:
        micros = amount_micros(text)
    except AmountError:
        return
    assert abs(micros) <= LARGEST_MICROS
    assert Fraction(text) * MICROS == micros


@given(st.decimals(Decimal("1e-12"), 10**6, places=12))
def test_rate_is_exact_and_its_parts_fit_into_63_bits(rate: Decimal) -> None:
    read = exchange_rate(f"{rate:f}")
    assert read == Fraction(rate)
    assert 0 < read.numerator < 1 << 63
    assert 0 < read.denominator < 1 << 63


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "0.0", "-1", "1000000.000000000001", "1000001", "0.1234567890123", ""),
        *("1e3", "1/2", "+1", "1,5", ".5", "5.", " 1", "1\n", "NaN", "٣", "1_0", "9" * 5000),
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(RateError, match="expected a decimal number above 0"):
        exchange_rate(text)


@given(st.text("0123456789.,-+eE_/ "))
def test_any_text_is_a_rate_within_bounds_or_refused(text: str) -> None:
    try:
        rate = exchange_rate(text)
    except RateError:
        return
    assert 0 < rate <= 10**6
    assert Fraction(text) == rate


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (600, 28, 21_428_571),
        (1, 3, 333_333),
        (2, 3, 666_667),
        (-1, 3, -333_333),
        (1, 2_000_000, 0),
        (3, 2_000_000, 2),
        (5, 2_000_000, 2),
        (-1, 2_000_000, 0),
        (-3, 2_000_000, -2),
        (0, 7, 0),
    ],
)
def test_quotient_is_rounded_half_to_even(numerator: int, denominator: int, expected: int) -> None:
    assert scaled_quotient(numerator, denominator) == expected


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**40))
def test_quotient_agrees_with_decimal_of_many_digits(numerator: int, denominator: int) -> None:
    with localcontext(prec=200):
        exact = Decimal(numerator) * MICROS / denominator
        # A quotient that is no tie within 200 digits is none at all: denominators have 40.
        assert scaled_quotient(numerator, denominator) == int(
            exact.to_integral_value(ROUND_HALF_EVEN)
        )


@given(st.integers(-(10**6), 10**6), st.sampled_from([1, 2, 4, 2_000_000, 4_000_000]))
def test_quotient_agrees_with_pythons_own_half_even(numerator: int, denominator: int) -> None:
    expected = round(Fraction(numerator * MICROS, denominator))
    assert scaled_quotient(numerator, denominator) == expected


@pytest.mark.parametrize("denominator", [0, -1])
def test_quotient_needs_a_positive_denominator(denominator: int) -> None:
    with pytest.raises(ValueError, match="denominator: expected a positive number"):
        scaled_quotient(1, denominator)


def test_currencies_are_three_capital_letters() -> None:
    assert {"EUR", "USD", "CHF", "JPY"} <= CURRENCIES
    assert all(len(code) == 3 and code.isalpha() and code.isupper() for code in CURRENCIES)
    assert "EURO" not in CURRENCIES
