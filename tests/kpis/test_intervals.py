from fractions import Fraction
from itertools import pairwise
from math import exp, factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.intervals import poisson_limits, wilson
from kpis.money import MICROS
from tests.examples import A_PROPERTY

Z = Fraction(1_959_963_984_540_054, 10**15)


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_limits_of_a_share_are_wilsons(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson(successes, trials) == pytest.approx((low * MICROS, high * MICROS), abs=50)


# Garwood, Biometrika 28 (1936), as in every table of the exact limits of a Poisson count.
@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        (0, 0.0, 3.6889),
        (1, 0.0253, 5.5716),
        (2, 0.2422, 7.2247),
        (5, 1.6235, 11.6683),
        (10, 4.7954, 18.3904),
        (20, 12.2165, 30.8884),
        (50, 37.1110, 65.9188),
        (100, 81.3640, 121.6268),
    ],
)
def test_limits_of_a_count_are_garwoods(count: int, low: float, high: float) -> None:
    assert poisson_limits(count) == pytest.approx((low * MICROS, high * MICROS), abs=60)


@pytest.mark.parametrize("count", [1, 7, 60, 130])
def test_each_tail_of_a_count_holds_one_in_forty(count: int) -> None:
    low, high = (limit / MICROS for limit in poisson_limits(count))

    def at_most(most: int, mean: float) -> float:
        return sum(exp(-mean) * mean**each / factorial(each) for each in range(most + 1))

    assert 1 - at_most(count - 1, low) == pytest.approx(0.025, abs=1e-6)
    assert at_most(count, high) == pytest.approx(0.025, abs=1e-6)


def test_where_the_formula_takes_over_the_limits_go_on_smoothly() -> None:
    limits = [poisson_limits(count) for count in range(195, 206)]
    steps = [
        tuple(after - before for before, after in zip(one, next_one, strict=True))
        for one, next_one in pairwise(limits)
    ]

    assert all(0.9 * MICROS < low < 1.0 * MICROS < high < 1.1 * MICROS for low, high in steps)


@A_PROPERTY
@given(st.integers(1, 10**15).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_of_a_share_solve_wilsons_equation(counts: tuple[int, int]) -> None:
    successes, trials = counts
    share = Fraction(successes, trials)

    def is_within(limit: Fraction) -> bool:
        return (share - limit) ** 2 * trials <= Z * Z * limit * (1 - limit)

    low, high = wilson(successes, trials)

    assert 0 <= low <= round(share * MICROS) <= high <= MICROS
    # Two steps of rounding inside each limit a share is plausible, two outside it is not.
    if high - low > 4:
        assert is_within(Fraction(low + 2, MICROS))
        assert is_within(Fraction(high - 2, MICROS))
    if low > 2:
        assert not is_within(Fraction(low - 2, MICROS))
    if high < MICROS - 2:
        assert not is_within(Fraction(high + 2, MICROS))


@given(count=st.integers(1, 10**12))
def test_limits_of_a_count_enclose_it_and_grow_with_it(count: int) -> None:
    low, high = poisson_limits(count)

    assert 0 < low < count * MICROS < high
    assert poisson_limits(count - 1) < (low, high)
