"""95 % intervals of shares and of counts.

Only the four operations and square roots, which every machine rounds alike, and one exponential
whose last digits are cut off: the same numbers everywhere.
"""

from functools import lru_cache
from math import exp, sqrt
from typing import Final

from kpis.money import MICROS

_Z: Final = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
_TAIL: Final = 0.025
_LARGEST_EXACT: Final = 200


@lru_cache(maxsize=16_384)
def wilson(successes: int, trials: int) -> tuple[int, int]:
    """Return the 95 % limits of a share in millionths, by Wilson's score.

    Args:
        successes: From 0 to `trials`.
        trials: At least 1.

    Source: E. B. Wilson, 1927; asked for in contract, section 7.
    """
    square = _Z * _Z
    centre = 2 * successes + square
    spread = _Z * sqrt(square + 4 * successes * (trials - successes) / trials)
    whole = 2 * (trials + square)
    low = 0 if successes == 0 else max(0, round((centre - spread) / whole * MICROS))
    high = MICROS if successes == trials else min(MICROS, round((centre + spread) / whole * MICROS))
    return low, high


@lru_cache(maxsize=4096)
def poisson_limits(count: int) -> tuple[int, int]:
    """Return the 95 % limits, in millionths, of the mean behind a count of at least 0.

    Exact up to 200 (each tail holds 2.5 %), beyond by Byar's formula, which is then right to 4
    digits.

    Source: F. Garwood, 1936; asked for in contract, section 7.
    """
    low = 0.0
    if count > 0:
        low = _mean(count - 1, 1 - _TAIL) if count <= _LARGEST_EXACT else _byar(count, -_Z)
    high = _mean(count, _TAIL) if count < _LARGEST_EXACT else _byar(count + 1, _Z)
    return round(low * MICROS), round(high * MICROS)


def _mean(most: int, chance: float) -> float:
    """Return the mean with which a count of at most `most` has this chance, by halving."""
    low, high = 0.0, 2.0 * most + 10
    for _ in range(60):
        middle = (low + high) / 2
        if _chance_of_at_most(most, middle) > chance:
            low = middle
        else:
            high = middle
    return low


def _chance_of_at_most(most: int, mean: float) -> float:
    term = total = exp(-mean)
    for count in range(1, most + 1):
        term *= mean / count
        total += term
    return total


def _byar(count: int, z: float) -> float:
    root = 1 - 1 / (9 * count) + z / (3 * sqrt(count))
    return count * root * root * root
