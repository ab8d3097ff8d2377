from datetime import timedelta

import pytest

from streams.clock import ManualClock, SystemClock


def test_manual_clock_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(1_000)
    assert (clock.now_ms(), clock.monotonic_seconds()) == (1_000, 0.0)

    clock.advance(timedelta(seconds=2.5))

    assert (clock.now_ms(), clock.monotonic_seconds()) == (3_500, 2.5)


def test_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="not negative"):
        ManualClock(0).advance(timedelta(milliseconds=-1))


def test_system_clock_gives_milliseconds_of_this_century() -> None:
    clock = SystemClock()
    assert 1_700_000_000_000 < clock.now_ms() < 4_200_000_000_000
    assert clock.monotonic_seconds() <= clock.monotonic_seconds()
