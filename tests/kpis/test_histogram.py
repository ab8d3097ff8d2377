from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.facts import Facts, add, difference
from kpis.histogram import BOUNDS, bucket_of, counts_of, fact_name, middle_ms, quantile
from tests.examples import A_PROPERTY

LONGEST_MS = 101 * 366 * 86_400_000
durations = st.integers(0, 200) | st.integers(0, 10**9) | st.integers(0, LONGEST_MS)
some_durations = st.lists(durations, min_size=1, max_size=30)


def facts_of(cycles: list[int]) -> Facts:
    facts: Facts = {}
    for cycle in cycles:
        add(facts, {fact_name(bucket_of(cycle)): 1})
    return facts


def test_buckets_follow_each_other_in_whole_milliseconds() -> None:
    assert BOUNDS[0] == 0
    assert all(isinstance(bound, int) for bound in BOUNDS)
    assert all(earlier < later for earlier, later in pairwise(BOUNDS))
    assert BOUNDS[-1] <= LONGEST_MS < BOUNDS[-1] * 1.02
    assert len(BOUNDS) < 1_400


def test_a_bucket_begins_at_its_bound() -> None:
    for bucket, bound in enumerate(BOUNDS):
        assert bucket_of(bound) == bucket
        assert bucket == 0 or bucket_of(bound - 1) == bucket - 1


def test_time_that_runs_backwards_has_no_bucket() -> None:
    with pytest.raises(ValueError, match="duration_ms: expected at least 0, got -1"):
        bucket_of(-1)


def test_without_durations_there_is_no_quantile() -> None:
    assert quantile({}, 500) is None
    assert quantile({7: 0}, 500) is None


def test_the_median_of_two_is_the_lesser() -> None:
    assert quantile({3: 1, 8: 1}, 500) == 3
    assert quantile({3: 1, 8: 1}, 501) == 8
    assert quantile({3: 9, 8: 1}, 900) == 3


@A_PROPERTY
@given(duration_ms=durations)
def test_a_bucket_stands_for_its_durations_within_one_percent(duration_ms: int) -> None:
    assert abs(middle_ms(bucket_of(duration_ms)) - duration_ms) * 100 <= duration_ms


@A_PROPERTY
@given(cycles=some_durations, permille=st.sampled_from((500, 900)) | st.integers(1, 1000))
def test_a_quantile_is_within_one_percent_of_the_nearest_ranks(
    cycles: list[int], permille: int
) -> None:
    exact = sorted(cycles)[ceil(len(cycles) * permille / 1000) - 1]

    estimate = quantile(counts_of(facts_of(cycles)), permille)

    assert estimate is not None
    assert abs(estimate - exact) * 100 <= exact


@given(cycles=some_durations, gone=some_durations)
def test_what_was_counted_can_be_taken_back(cycles: list[int], gone: list[int]) -> None:
    total = facts_of(cycles + gone)

    add(total, difference({}, facts_of(gone)))

    assert total == facts_of(cycles)


def test_counts_are_found_among_other_facts() -> None:
    assert counts_of({"clicks": 3, "cycle_count": 2, "cycle_histogram.12": 2}) == {12: 2}
