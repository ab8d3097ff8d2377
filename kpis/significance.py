"""Chances of counts: is what is seen more than noise?

Plain Python, one-sided to the low side: P(so few or fewer).
"""

from functools import lru_cache
from math import exp, isinf, lgamma, log, log1p, pi, sqrt
from typing import Final

_ALMOST_NOTHING: Final = 1e-18
"""A term this much smaller than the sum so far ends it: what follows falls faster than geometrically."""
_STIRLING_FROM: Final = 16


@lru_cache(maxsize=1 << 14)
def poisson_at_most(count: int, expected: float) -> float:
    """Return the chance that a Poisson count with mean `expected` is at most `count`.

    Right to about 1e-12 of itself wherever it can be written, also with a mean of a million: the
    terms are summed from the largest down, on the side of the mean where they are few.

    Raises:
        ValueError: unless `expected` is a finite number from 0 on.
    """
    if not expected >= 0 or isinf(expected):
        msg = f"expected: expected a finite number from 0 on, got {expected!r}"
        raise ValueError(msg)
    if count < 0:
        return 0.0
    if expected == 0:
        return 1.0
    if count < expected:
        return _poisson_term(count, expected) * _sum_down(count, expected)
    above = _poisson_term(count + 1, expected) * _sum_up(count + 1, expected)
    return max(0.0, 1.0 - above)


def _sum_down(count: int, expected: float) -> float:
    """Return the terms of 0 to `count` over the last of them."""
    term = total = 1.0
    for each in range(count, 0, -1):
        term *= each / expected
        total += term
        if term < _ALMOST_NOTHING * total:
            break
    return total


def _sum_up(count: int, expected: float) -> float:
    """Return the terms from `count` on over the first of them; `count` is above `expected`."""
    term = total = 1.0
    each = count
    while term >= _ALMOST_NOTHING * total:
        each += 1
        term *= expected / each
        total += term
    return total


def _poisson_term(count: int, expected: float) -> float:
    """Return the chance of exactly `count`.

    By the saddle point: count ln(mean) - mean - ln(count!) of a million each would leave 9 digits.

    Source: C. Loader, Fast and accurate computation of binomial probabilities, 2000.
    """
    if count == 0:
        return exp(-expected)
    return exp(-_stirling_rest(count) - _deviance(count, expected)) / sqrt(2 * pi * count)


def _stirling_rest(count: int) -> float:
    """Return ln(n!) less Stirling's sqrt(2 pi n) (n / e)^n."""
    if count < _STIRLING_FROM:
        return lgamma(count + 1) - (count + 0.5) * log(count) + count - log(2 * pi) / 2
    square = float(count * count)
    tail = 1 / 1260 - (1 / 1680 - (1 / 1188 - 691 / 360360 / square) / square) / square
    return (1 / 12 - (1 / 360 - tail / square) / square) / count


def _deviance(count: float, expected: float) -> float:
    """Return count ln(count / expected) + expected - count, without cancelling where they are near."""
    difference = count - expected
    if abs(difference) > 0.1 * (count + expected):
        return count * log(count / expected) - difference
    ratio = difference / (count + expected)
    total = difference * ratio
    term = 2 * count * ratio
    square = ratio * ratio
    each = 1
    while True:
        term *= square
        each += 2
        following = total + term / each
        if following == total:
            return total
        total = following


# ----------------------------------------------------------------------------- two counts


@lru_cache(maxsize=1 << 14)
def binomial_at_most(count: int, trials: int, share: float) -> float:
    """Return the chance that of `trials`, each of which succeeds with chance `share`, at most `count` do.

    Raises:
        ValueError: unless 0 <= share <= 1 and trials >= 0.
    """
    if not 0 <= share <= 1 or trials < 0:
        msg = f"share and trials: expected 0 to 1 and 0 or more, got {share!r} and {trials!r}"
        raise ValueError(msg)
    if count < 0:
        return 0.0
    if count >= trials or share == 0:
        return 1.0
    if share == 1:
        return 0.0
    if count < trials * share:
        return _binomial_term(count, trials, share) * _binomial_sum_down(count, trials, share)
    # The failures are then few enough: the same from the other side.
    above = trials - count - 1
    first = _binomial_term(above, trials, 1 - share)
    return max(0.0, 1.0 - first * _binomial_sum_down(above, trials, 1 - share))


def _binomial_sum_down(count: int, trials: int, share: float) -> float:
    odds = (1 - share) / share
    term = total = 1.0
    for each in range(count, 0, -1):
        term *= each / (trials - each + 1) * odds
        total += term
        if term < _ALMOST_NOTHING * total:
            break
    return total


def _binomial_term(count: int, trials: int, share: float) -> float:
    if count == 0:
        return exp(trials * log1p(-share))
    if count == trials:
        return exp(trials * log(share))
    rest = trials - count
    exponent = (
        _stirling_rest(trials)
        - _stirling_rest(count)
        - _stirling_rest(rest)
        - _deviance(count, trials * share)
        - _deviance(rest, trials * (1 - share))
    )
    return exp(exponent) * sqrt(trials / (2 * pi * count * rest))


def rate_at_most(count: int, amount: int, usual_count: int, usual_amount: int) -> float:
    """Return the chance of at most `count` on `amount` if it comes as often as usual, told by both.

    The usual is itself a count and may have been lucky: given how many came in all, how many of them
    fell into `amount` is binomial. With a long record of the usual it is Poisson's again.

    Args:
        count: What came, leads say.
        amount: What it came from, cost or time; above 0 or the answer is 1.
        usual_count: What came before.
        usual_amount: From how much.

    Source: J. Przyborowski and H. Wilenski, 1940 (the conditional test of two Poisson means).
    """
    if amount <= 0:
        return 1.0
    whole = amount + max(usual_amount, 0)
    return binomial_at_most(count, count + usual_count, amount / whole)


@lru_cache(maxsize=1 << 14)
def share_at_most(successes: int, trials: int, usual_successes: int, usual_trials: int) -> float:
    """Return the chance of so small a share of `trials` if it is the usual one, told by both.

    Fisher's exact test, however many there are: the normal limit is wrong by factors where successes
    are few. Its steps grow with the root of the successes: ten million take some milliseconds.

    Args:
        successes: From 0 to `trials`.
        trials: What could have succeeded; 0 proves nothing: 1.
        usual_successes: From 0 to `usual_trials`.
        usual_trials: The same of the usual.

    Raises:
        ValueError: if there are more successes than trials.
    """
    if not (0 <= successes <= trials and 0 <= usual_successes <= usual_trials):
        msg = (
            "successes: expected 0 to the number of trials, got "
            f"{successes} of {trials} and {usual_successes} of {usual_trials}"
        )
        raise ValueError(msg)
    if trials == 0 or usual_trials == 0:
        return 1.0
    whole, drawn = trials + usual_trials, successes + usual_successes
    return _hypergeometric_at_most(successes, drawn, trials, whole)


def _hypergeometric_at_most(count: int, drawn: int, marked: int, whole: int) -> float:
    """Return the chance that of `drawn` out of `whole` at most `count` are among the `marked`."""
    low = max(0, drawn + marked - whole)
    if count >= min(drawn, marked):
        return 1.0
    if count * whole < drawn * marked:
        return _hypergeometric_term(count, drawn, marked, whole) * _hypergeometric_sum(
            count, low, drawn, marked, whole
        )
    # The other side: at least count + 1 marked is at most drawn - count - 1 unmarked.
    unmarked, others = drawn - count - 1, whole - marked
    low = max(0, drawn + others - whole)
    first = _hypergeometric_term(unmarked, drawn, others, whole)
    return max(0.0, 1.0 - first * _hypergeometric_sum(unmarked, low, drawn, others, whole))


def _hypergeometric_sum(count: int, low: int, drawn: int, marked: int, whole: int) -> float:
    """Return the terms from `low` to `count` over the last of them."""
    term = total = 1.0
    for each in range(count, low, -1):
        rest = whole - marked - drawn + each
        term *= each * rest / ((marked - each + 1) * (drawn - each + 1))
        total += term
        if term < _ALMOST_NOTHING * total:
            break
    return total


def _hypergeometric_term(count: int, drawn: int, marked: int, whole: int) -> float:
    """Return the chance of exactly `count`, as a quotient of three binomials; any share will do."""
    share = drawn / whole
    if not 0 < share < 1:
        return 1.0
    return (
        _binomial_term(count, marked, share)
        * _binomial_term(drawn - count, whole - marked, share)
        / _binomial_term(drawn, whole, share)
    )
