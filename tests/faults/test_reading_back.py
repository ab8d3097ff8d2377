from typing import Any

from tests.faults.reading_back import (
    AlertTold,
    Numbers,
    Revision,
    alert_faults,
    ledger_faults,
    replay_faults,
)

KEY = "period|1d|2026-03-05T00:00:00Z|_all|_all"
OTHER = "cohort|1d|2026-03-05T00:00:00Z|_all|_all"


def numbers(leads: int = 1, **kpis: Any) -> Numbers:
    return {"leads": leads}, {name: {"value": value} for name, value in kpis.items()}


def test_ledger_that_counts_each_window_from_one_is_sound() -> None:
    ledger = [Revision(KEY, 1, "a"), Revision(OTHER, 1, "b"), Revision(KEY, 2, "c")]
    assert ledger_faults(ledger) == []


def test_ledger_may_not_begin_above_one_leave_one_out_or_say_one_twice() -> None:
    assert ledger_faults([Revision(KEY, 2, "a")]) == [f"ledger: {KEY}: expected revision 1, got 2"]
    gap = [Revision(KEY, 1, "a"), Revision(KEY, 3, "b")]
    assert ledger_faults(gap) == [f"ledger: {KEY}: expected revision 2, got 3"]
    twice = [Revision(KEY, 1, "a"), Revision(KEY, 1, "b"), Revision(KEY, 2, "c")]
    assert ledger_faults(twice) == [f"ledger: {KEY}: expected revision 2, got 1"]


def test_ids_of_the_ledger_may_not_repeat() -> None:
    ledger = [Revision(KEY, 1, "a"), Revision(OTHER, 1, "a")]
    assert ledger_faults(ledger) == [f"ledger: {OTHER}: expected an id of its own, got a again"]


def test_alerts_that_fire_change_and_resolve_in_turn_are_sound() -> None:
    states = ("fired", "updated", "updated", "resolved", "fired", "resolved", "fired")
    told = [AlertTold(KEY, state, str(number)) for number, state in enumerate(states)]
    assert alert_faults([*told, AlertTold(OTHER, "fired", "a")]) == []


def test_an_alert_may_not_fire_twice_or_resolve_or_change_unfired() -> None:
    fired = AlertTold(KEY, "fired", "a")
    expected = f"alerts: {KEY}: expected updated or resolved, got fired"
    assert alert_faults([fired, AlertTold(KEY, "fired", "b")]) == [expected]
    for state in ("updated", "resolved"):
        faults = alert_faults([fired, AlertTold(OTHER, state, "b")])
        assert faults == [f"alerts: {OTHER}: expected fired, got {state}"]


def test_ids_of_alerts_may_not_repeat() -> None:
    told = [AlertTold(KEY, "fired", "a"), AlertTold(KEY, "resolved", "a")]
    assert alert_faults(told) == [f"alerts: {KEY}: expected an id of its own, got a again"]


def test_replay_with_the_same_numbers_has_no_fault() -> None:
    first = {KEY: numbers(cpl=20.5), OTHER: numbers()}
    assert replay_faults(first, {OTHER: numbers(), KEY: numbers(cpl=20.5)}) == []


def test_replay_that_differs_says_where() -> None:
    faults = replay_faults({KEY: numbers(leads=1, cpl=20.5)}, {KEY: numbers(leads=2, cpl=10.25)})
    assert faults == [
        f"replay: {KEY}: fact leads: expected 1, got 2",
        f"replay: {KEY}: KPI cpl: expected {{'value': 20.5}}, got {{'value': 10.25}}",
    ]


def test_replay_has_to_have_the_same_keys() -> None:
    faults = replay_faults({KEY: numbers()}, {OTHER: numbers()})
    assert faults == [
        f"replay: {OTHER}: expected a record of both, got one of the replay only",
        f"replay: {KEY}: expected a record of both, got one of the first reading only",
    ]


def test_many_differences_are_cut() -> None:
    first = {f"{KEY}{number}": numbers() for number in range(9)}
    assert replay_faults(first, {}, most=3)[3:] == ["replay: and 6 more"]
