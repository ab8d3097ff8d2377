"""Durations counted in buckets that grow with them, so that quantiles can be told and counts subtracted.

Source: contract, section 5, purchase_cycle_p50 and _p90 (relative error at most 1 %).
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

FACT: Final = "cycle_histogram"
"""The name of the facts, `cycle_histogram.<bucket>`, and of the one object that records show."""

_PREFIX: Final = f"{FACT}."
# A bucket is as wide as a fiftieth of where it begins: half of that is 1 %.
_PARTS: Final = 50
# No two event times are further apart: they lie in the years 2000 to 2100.
_LONGEST_MS: Final = 101 * 366 * 24 * 3_600_000


def _bounds() -> Iterator[int]:
    start = 0
    while start <= _LONGEST_MS:
        yield start
        start += max(1, start // _PARTS)


BOUNDS: Final = tuple(_bounds())
"""Where each bucket begins, in ms; it ends where the next begins. Stored facts rest on them."""


def bucket_of(duration_ms: int) -> int:
    """Return the bucket that contains a duration of at least 0 ms.

    Raises:
        ValueError: if it is negative: time that ran backwards is no duration.
    """
    if duration_ms < 0:
        msg = f"duration_ms: expected at least 0, got {duration_ms}"
        raise ValueError(msg)
    return bisect_right(BOUNDS, duration_ms) - 1


@lru_cache(maxsize=len(BOUNDS))
def fact_name(bucket: int) -> str:
    """Return the name of the fact that counts a bucket."""
    return f"{_PREFIX}{bucket}"


def counts_of(facts: Mapping[str, int]) -> dict[int, int]:
    """Return the counts by bucket that are among `facts`."""
    begin = len(_PREFIX)
    return {int(name[begin:]): count for name, count in facts.items() if name.startswith(_PREFIX)}


def middle_ms(bucket: int) -> int:
    """Return the duration that stands for all of a bucket, in ms; at most 1 % away from each."""
    start = BOUNDS[bucket]
    return start + max(0, start // _PARTS - 1) // 2


def quantile(counts: Mapping[int, int], permille: int) -> int | None:
    """Return the duration, in ms, that `permille` of the counted ones do not exceed; None without any.

    It is the nearest rank's: at least one duration lies within 1 % of it.
    """
    rank = -(-permille * sum(counts.values()) // 1000)
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0 < counts[bucket]:
            return middle_ms(bucket)
    return None
