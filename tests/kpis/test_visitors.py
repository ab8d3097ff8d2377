"""Visitors: about how many there were, in whatever order and grouping they came."""

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.visitors import Sketch

EXAMPLES = max(1_000, settings().max_examples)
WITHOUT_LIBRARY = """
import sys
sys.modules["datasketches"] = None
from kpis.cells import Cell, Cells
from kpis.retention import Buckets, Grain, Retention
from kpis.calendar import Calendar
from kpis.spans import LIFETIME_WINDOW, Spans
from kpis.visitors import AVAILABLE, MissingLibraryError, Sketch
from zoneinfo import ZoneInfo

assert not AVAILABLE
try:
    Sketch()
except MissingLibraryError as error:
    print(error)
cells = Cells(Spans(Buckets(Calendar(ZoneInfo("UTC")), Retention())))
cells.unpack_visitors(Cell(Grain.LIFETIME, 0), b"stored")
print(cells.add(Grain.LIFETIME, 0, {"clicks": 1}, 0, b"new"))
print(cells.facts(LIFETIME_WINDOW), cells.has(LIFETIME_WINDOW))
cells.forget(())
print(cells.take_changed_visitors(), cells.pack_visitors(Cell(Grain.LIFETIME, 0)))
"""


def sketch_of(visitors: range) -> Sketch:
    sketch = Sketch()
    for visitor in visitors:
        sketch.update(f"v-{visitor}")
    return sketch


# Groups that overlap, the small ones a list, the large ones registers.
GROUPS = [range(3), range(2, 9), range(5, 400), range(300, 1_100), range(1_000, 1_700)]
GROUPS += [range(1_500, 2_600), range(6_000), range(5_000, 5_040), range(20_000, 28_000)]
SKETCHES = [sketch_of(group).to_bytes() for group in GROUPS]


def merged(chosen: list[int]) -> Sketch:
    sketch = Sketch()
    for index in chosen:
        sketch.merge(SKETCHES[index])
    return sketch


CHOSEN = st.lists(st.integers(0, len(GROUPS) - 1), min_size=1, max_size=9)


@given(CHOSEN, st.randoms(use_true_random=False), st.integers(0, 9))
@settings(max_examples=EXAMPLES)
def test_the_estimate_does_not_depend_on_order_or_grouping(
    chosen: list[int], chance: Random, cut: int
) -> None:
    expected = merged(chosen).estimate()
    shuffled = chosen * 2
    chance.shuffle(shuffled)
    left, right = merged(shuffled[:cut]), merged(shuffled[cut:])
    left.merge(right)
    assert left.estimate() == expected
    stored = Sketch(right.to_bytes())
    stored.merge(merged(shuffled[:cut]).to_bytes())
    assert stored.estimate() == expected


@given(CHOSEN)
@settings(max_examples=EXAMPLES)
def test_the_estimate_is_within_two_per_cent(chosen: list[int]) -> None:
    visitors = set().union(*(GROUPS[index] for index in chosen))
    assert merged(chosen).estimate() == pytest.approx(len(visitors), rel=0.02, abs=0.5)


@given(CHOSEN, st.integers(0, len(GROUPS) - 1))
@settings(max_examples=EXAMPLES)
def test_merge_tells_whether_a_visitor_was_new(chosen: list[int], more: int) -> None:
    sketch = merged(chosen)
    before, stored = sketch.estimate(), sketch.to_bytes()
    is_news = sketch.merge(SKETCHES[more])
    if not is_news:
        assert sketch.estimate() == before == Sketch(stored).estimate()
        assert sketch.to_bytes() == stored
    elif set().union(*(GROUPS[index] for index in chosen)).issuperset(GROUPS[more]):
        # Only a large sketch that meets a large one may be mistaken, and only once.
        assert len(stored) > 8_000
    sketch.merge(SKETCHES[more])
    assert not sketch.merge(SKETCHES[more])


@given(CHOSEN)
@settings(max_examples=EXAMPLES)
def test_single_visitors_and_sketches_of_them_are_the_same(chosen: list[int]) -> None:
    single = Sketch()
    for index in chosen[:3]:
        for visitor in GROUPS[index][:50]:
            single.update(f"v-{visitor}")
    together = Sketch()
    for index in reversed(chosen[:3]):
        together.merge(sketch_of(GROUPS[index][:50]))
    assert single.estimate() == together.estimate()


@pytest.mark.parametrize("visitors", [0, 1, 2, 100, 1_535, 1_537, 5_000, 30_000, 200_000])
def test_few_visitors_are_counted_exactly_and_many_nearly(visitors: int) -> None:
    estimate = sketch_of(range(10**6, 10**6 + visitors)).estimate()
    assert estimate == pytest.approx(visitors, rel=0 if visitors < 200 else 0.02, abs=0)


def test_a_sketch_is_small() -> None:
    assert len(sketch_of(range(1)).to_bytes()) <= 12
    assert len(sketch_of(range(50)).to_bytes()) < 300
    assert len(sketch_of(range(100_000)).to_bytes()) < 8_500


def test_without_the_library_visits_are_not_counted_and_nothing_is_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "visitors: expected the extra `visitors` (datasketches) to be installed, got none",
        "[Cell(grain=<Grain.LIFETIME: 3>, bucket=0)]",
        "{'clicks': 1} True",
        "[] b'stored'",
    ]


def test_the_library_is_loaded_only_when_it_is_needed() -> None:
    # It brings numpy, which takes a third of a second and 30 MB.
    program = "import sys, kpis.cells; print('datasketches' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
