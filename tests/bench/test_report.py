"""Figures are medians, and a wrong total is told."""

from collections import Counter

import pytest

from tests.bench.measuring import BenchError, Mark, Run, compare
from tests.bench.report import as_json, cpu_ratio, figures, ratio


def a_run(events_per_second: float) -> Run:
    last = Mark(2.0, int(events_per_second), 0.5)
    return Run.between(Mark(1.0, 0, 0.0), last, 50.0, Counter({("c", "clicks"): 1}))


def test_figures_are_medians_with_lowest_and_highest() -> None:
    of = figures([a_run(10), a_run(1000), a_run(30)])

    assert (of.events_per_second, of.lowest, of.highest) == (30, 10, 1000)


def test_ratio_needs_both_engines() -> None:
    runs = {"leadpulse": [a_run(500)], "faust": [a_run(5)]}

    assert ratio("leadpulse", "faust", runs) == 100
    assert ratio("leadpulse", "ceiling", runs) is None
    assert cpu_ratio("leadpulse", "faust", runs) == 100
    assert cpu_ratio("leadpulse", "ceiling", runs) is None


def test_json_names_the_batch_size_unless_it_is_the_one_of_record() -> None:
    written = as_json({100: {"faust": [a_run(5)]}, 4000: {"faust": [a_run(10)]}}, {})

    assert written.keys() == {"batches_of_100", "engines"}


def test_run_between_marks_leaves_out_what_came_before_the_first() -> None:
    run = Run.between(Mark(1.0, 400, 2.0), Mark(3.0, 1000, 3.5), 50.0, Counter())

    assert (run.events, run.events_per_second, run.cpu_seconds) == (600, 300, 1.5)


def test_run_without_events_between_its_marks_is_refused() -> None:
    with pytest.raises(BenchError, match="between first and last"):
        Run.between(Mark(1.0, 5, 0.0), Mark(2.0, 5, 0.1), 50.0, Counter())


@pytest.mark.parametrize(
    "got", [{}, {("c", "clicks"): 2}, {("c", "clicks"): 1, ("d", "clicks"): 1}]
)
def test_wrong_total_is_told(got: dict[tuple[str, str], int]) -> None:
    with pytest.raises(BenchError, match="1 wrong of 1"):
        compare(Counter(got), Counter({("c", "clicks"): 1}))


def test_absent_total_is_zero() -> None:
    compare(Counter({("c", "clicks"): 0}), Counter())
