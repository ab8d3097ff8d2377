"""Chances of counts, against sums of exact fractions."""

from fractions import Fraction
from math import comb, exp, factorial, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.significance import binomial_at_most, poisson_at_most, rate_at_most, share_at_most

means = st.floats(0.001, 2000, allow_nan=False)


@pytest.mark.parametrize(
    ("count", "expected", "chance"),
    [(0, 6, 0.0025), (2, 6, 0.062), (0, 2, 0.135), (10, 20, 0.0108)],
)
def test_the_chances_that_the_contract_names(count: int, expected: float, chance: float) -> None:
    assert isclose(poisson_at_most(count, expected), chance, rel_tol=0.01)


@given(st.integers(0, 150), st.integers(1, 4000))
def test_poisson_is_the_sum_of_its_terms(count: int, hundredths: int) -> None:
    mean = Fraction(hundredths, 100)
    terms = sum((mean**each / factorial(each) for each in range(count + 1)), Fraction(0))
    assert isclose(poisson_at_most(count, float(mean)), float(terms) * exp(-mean), rel_tol=1e-11)


@pytest.mark.parametrize(
    ("count", "expected", "chance"),
    [
        # From 50 digits of decimal arithmetic.
        (1_000_000, 10.0**6, 0.500265961486284),
        (997_000, 10.0**6, 1.34620371824110e-3),
        (993_000, 10.0**6, 1.21287470221828e-12),
        (99_000, 10.0**5, 7.74200829444739e-4),
    ],
)
def test_a_million_is_no_harder(count: int, expected: float, chance: float) -> None:
    assert isclose(poisson_at_most(count, expected), chance, rel_tol=1e-13)


@given(st.integers(0, 10**6))
def test_neighbours_of_a_million_differ_by_one_term(offset: int) -> None:
    count = 997_000 + offset % 6_000
    here, below = poisson_at_most(count, 1e6), poisson_at_most(count - 1, 1e6)
    assert 0 < here - below < 0.0005


@given(st.integers(0, 3000), means, means)
def test_more_leads_are_likelier_at_most_and_more_expected_make_them_less_so(
    count: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert poisson_at_most(count, low) >= poisson_at_most(count, high) - 1e-15
    assert poisson_at_most(count, low) <= poisson_at_most(count + 1, low) + 1e-15
    assert 0 <= poisson_at_most(count, high) <= 1


def test_what_nothing_is_expected_of_is_certain_and_less_than_nothing_impossible() -> None:
    assert poisson_at_most(0, 0) == 1
    assert poisson_at_most(-1, 3) == 0
    for expected in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="expected a finite number"):
            poisson_at_most(1, expected)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 100))
def test_binomial_is_the_sum_of_its_terms(count: int, trials: int, percent: int) -> None:
    share = Fraction(percent, 100)
    exact = sum(
        (
            comb(trials, each) * share**each * (1 - share) ** (trials - each)
            for each in range(min(count, trials) + 1)
        ),
        Fraction(0),
    )
    assert isclose(
        binomial_at_most(count, trials, float(share)), float(exact), rel_tol=1e-10, abs_tol=1e-15
    )


counts = st.integers(0, 80)


@given(counts, counts, counts, counts)
def test_fisher_is_the_sum_of_its_terms(a: int, b: int, c: int, d: int) -> None:
    trials, usual = a + b, c + d
    drawn = a + c
    if trials and usual:
        low = max(0, drawn - usual)
        ways = sum(comb(trials, each) * comb(usual, drawn - each) for each in range(low, a + 1))
        exact = Fraction(ways, comb(trials + usual, drawn))
        chance = share_at_most(a, trials, c, usual)
        assert isclose(chance, float(exact), rel_tol=1e-9, abs_tol=1e-14)


@pytest.mark.parametrize(
    ("counts", "chance"),
    [
        # From 40 digits of decimal arithmetic.
        ((0, 20_000, 60, 100_000), 1.76947162352866e-5),
        ((10, 60_000, 200, 400_000), 5.57658866340783e-5),
        ((3, 60_000, 50, 150_000), 3.12974867015416e-5),
        ((9_700, 100_000, 100_000, 1_000_000), 1.25086604700775e-3),
        ((98_000, 10**6, 400_000, 4 * 10**6), 1.10165424195162e-9),
        ((101_000, 10**6, 400_000, 4 * 10**6), 0.998550748799206),
    ],
)
def test_fisher_stays_exact_among_many(counts: tuple[int, int, int, int], chance: float) -> None:
    assert isclose(share_at_most(*counts), chance, rel_tol=1e-11)


def test_a_share_without_trials_proves_nothing_and_more_successes_than_trials_are_refused() -> None:
    assert share_at_most(0, 0, 5, 10) == 1
    assert share_at_most(0, 10, 0, 0) == 1
    with pytest.raises(ValueError, match="0 to the number of trials"):
        share_at_most(3, 2, 1, 5)


@given(st.integers(0, 30), st.integers(1, 40))
def test_with_a_long_record_the_conditional_test_is_poisson(count: int, expected: int) -> None:
    chance = rate_at_most(count, expected * 10**6, 10**7, 10**13)
    assert isclose(chance, poisson_at_most(count, float(expected)), rel_tol=1e-3)


@given(st.integers(0, 30), st.integers(1, 40), st.integers(20, 200))
def test_a_short_record_never_makes_few_leads_less_likely(
    count: int, expected: int, usual: int
) -> None:
    plain = poisson_at_most(count, float(expected))
    if count < expected:
        assert rate_at_most(count, expected, usual, usual) >= plain * 0.999
