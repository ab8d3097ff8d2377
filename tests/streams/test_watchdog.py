"""Hangs, and what only looks like one. Source of the rule: design, section 4, rule 3."""

import threading
from collections.abc import Hashable

import pytest

from streams import watchdog
from streams.watchdog import LOOP_TICKS, PROGRESS_TICKS, Stall, Watchdog

Progress = dict[str, tuple[Hashable, bool]]


def looks(dog: Watchdog, count: int, *, beats: bool = True) -> str | None:
    """Return what stands still at the last of `count` looks; the ones before found nothing."""
    for _ in range(count - 1):
        if beats:
            dog.beat()
        assert dog.look() is None
    if beats:
        dog.beat()
    return dog.look()


def watching(progress: Progress) -> Watchdog:
    return Watchdog(lambda: progress, lambda _why: None)


def test_a_loop_that_turns_is_well() -> None:
    assert looks(watching({}), 10 * LOOP_TICKS) is None


def test_a_loop_without_a_turn_for_ten_seconds_is_a_hang() -> None:
    dog = watching({})
    assert looks(dog, LOOP_TICKS, beats=False) is None
    assert "event loop: expected a turn within 10 s" in str(dog.look())


def test_of_a_hang_it_is_said_where_the_loop_is() -> None:
    has_begun, end = threading.Event(), threading.Event()
    dog = watching({})

    def a_callback_that_hangs() -> None:
        dog.beat()
        has_begun.set()
        end.wait()

    loop = threading.Thread(target=a_callback_that_hangs)
    loop.start()
    has_begun.wait()
    try:
        assert looks(dog, LOOP_TICKS, beats=False) is None
        assert "in a_callback_that_hangs" in str(dog.look())
    finally:
        end.set()
        loop.join()


def test_one_turn_is_enough_to_begin_counting_anew() -> None:
    dog = watching({})
    for _ in range(3):
        assert looks(dog, LOOP_TICKS, beats=False) is None
        dog.beat()


def test_lag_without_progress_for_a_minute_is_a_hang() -> None:
    dog = watching({"shard 3": (17, True)})
    assert looks(dog, PROGRESS_TICKS) is None
    assert looks(dog, 1) == "shard 3: expected progress within 60 s, got none"


def test_progress_of_any_kind_is_well() -> None:
    progress: Progress = {}
    dog = watching(progress)
    for reached in range(3 * PROGRESS_TICKS):
        progress["shard 3"] = (reached, True)
        dog.beat()
        assert dog.look() is None


def test_a_shard_with_nothing_to_do_is_well() -> None:
    assert looks(watching({"shard 3": (17, False)}), 3 * PROGRESS_TICKS) is None


def test_a_shard_that_comes_back_is_a_new_one() -> None:
    progress: Progress = {"shard 3": (17, True)}
    dog = watching(progress)
    looks(dog, PROGRESS_TICKS)
    del progress["shard 3"]
    looks(dog, 1)
    progress["shard 3"] = (17, True)
    assert looks(dog, PROGRESS_TICKS) is None


def test_ticks_are_counted_and_not_time_so_a_paused_process_is_not_stalled() -> None:
    stall = Stall(2)
    assert [stall.tick(1) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("is_stopped_before", [False, True])
def test_the_thread_stops_a_worker_that_hangs_unless_it_was_ended(
    monkeypatch: pytest.MonkeyPatch, is_stopped_before: bool
) -> None:
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.001)
    stopped = threading.Event()
    dog = Watchdog(dict, lambda _why: stopped.set())
    if is_stopped_before:
        dog.stop()
    dog.start()
    assert stopped.wait(0.2 if is_stopped_before else 10) is not is_stopped_before
    dog.stop()
