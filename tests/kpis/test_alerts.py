"""From finding to finding: hold, cooldown, updates, silence."""

from fractions import Fraction

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.alert_rules import Rule
from kpis.alerts import QUIET, Alert, Condition, Evidence, Finding, Standing, gone, is_past, step
from kpis.facts import Scope
from kpis.spans import Window

RULE = Rule(
    name="cpl_spike",
    kind="cpl_spike",
    evaluations=2,
    cooldown_minutes=30,
    update_minutes=10,
    silent_minutes=40,
)
SCOPE = Scope("google_ads", "brand")
START = 29_000_000
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Standing)

Conditions = list[tuple[Condition, int, int]]
stories = st.lists(
    st.tuples(
        st.sampled_from(("fires", "fires", "well", "well", "between", "silent")),
        st.integers(1, 4),
        st.sampled_from((0, 0, 0, 1, 2, 5, 40)),
    ),
    max_size=60,
)
"""Conditions, for how many minutes each, and how many minutes nobody looked before."""


def a_finding(condition: Condition, minute: int, ratio: int = 2, kind: str = "last_1h") -> Finding:
    evidence = Evidence(ratio=Fraction(ratio))
    window = Window(kind, minute - 60, minute + 1)
    return Finding(
        rule=RULE, scope=SCOPE, minute=minute, window=window, condition=condition, evidence=evidence
    )


def told(story: Conditions, *, is_restarted: bool = False) -> list[tuple[int, Condition, Alert]]:
    standing, minute = QUIET, START
    found = []
    for condition, minutes, gap in story:
        minute += gap
        for _ in range(minutes):
            minute += 1
            finding = a_finding(condition, minute, ratio=2 + minute % 3)
            standing, alert = step(standing, finding, minute * 60_000)
            if alert is not None:
                found.append((minute, condition, alert))
            if is_restarted:
                standing = _DECODER.decode(_ENCODER.encode(standing))
                standing, again = step(standing, finding, minute * 60_000)
                if standing.evaluated_minute == minute:
                    assert again is None
    return found


@given(stories)
@settings(max_examples=300)
def test_an_incident_is_fired_once_and_resolved_once_and_updated_only_between(
    story: Conditions,
) -> None:
    is_firing, since = False, 0
    for _, condition, alert in told(story):
        match alert.state:
            case "fired":
                assert not is_firing
                assert (alert.number, condition) == (1, "fires")
                is_firing, since = True, alert.since_ms
            case "updated":
                assert is_firing
                assert (alert.since_ms, condition) == (since, "fires")
            case "resolved":
                assert is_firing
                assert alert.since_ms == since
                assert condition in ("well", "silent")
                is_firing = False


@given(stories)
@settings(max_examples=300)
def test_ids_never_repeat_and_the_same_story_tells_the_same(story: Conditions) -> None:
    first, again = told(story), told(story, is_restarted=True)
    assert [alert.id for _, _, alert in first] == [alert.id for _, _, alert in again]
    assert len({alert.id for _, _, alert in first}) == len(first)


@given(stories)
def test_the_cooldown_and_the_pause_between_updates_are_kept(story: Conditions) -> None:
    resolved = before = None
    for minute, _, alert in told(story):
        if alert.state == "fired" and resolved is not None:
            assert minute - resolved >= RULE.cooldown_minutes
        if alert.state == "updated":
            assert before is not None
            assert minute - before >= RULE.update_minutes
        if alert.state == "resolved":
            resolved = minute
        before = minute


@given(stories)
def test_silence_alone_neither_fires_nor_resolves_before_its_time(story: Conditions) -> None:
    for minute, condition, alert in told(story):
        if condition == "silent":
            assert alert.state == "resolved"
            # Judging is noted each quarter of an hour only.
            assert minute - alert.since_ms // 60_000 >= RULE.silent_minutes - 15


def run(text: str) -> str:
    """Step through F(ires), W(ell), B(etween), S(ilent), x (nobody looks) and return what was told."""
    names: dict[str, Condition] = {"F": "fires", "W": "well", "B": "between", "S": "silent"}
    standing, out = QUIET, []
    for minute, letter in enumerate(text, START):
        alert = None
        if letter in names:
            standing, alert = step(standing, a_finding(names[letter], minute), minute * 60_000)
        out.append("." if alert is None else alert.state[0])
    return "".join(out)


def test_two_evaluations_running_fire_and_two_resolve() -> None:
    assert run("FBFWFF") == ".....f"
    assert run("FFWBWFWW") == ".f.....r"


def test_after_a_gap_of_more_than_three_minutes_the_hold_begins_anew() -> None:
    assert run("FxxF") == "...f"
    assert run("FxxxF") == "....."


def test_waiting_for_its_turn_is_no_gap() -> None:
    for gap, waited, is_told in ((10, 7, True), (10, 6, False), (3, 0, True)):
        standing, _ = step(QUIET, a_finding("fires", START), START * 60_000)
        later = START + gap
        _, alert = step(standing, a_finding("fires", later), later * 60_000, waited)
        assert (alert is not None) is is_told, (gap, waited)


def test_an_incident_is_remembered_for_25_hours_or_the_cooldown() -> None:
    ended_ms = START * 60_000
    standing = Standing(evaluated_minute=START, resolved_ms=ended_ms)
    for cooldown_minutes, minutes in ((0, 25 * 60), (25 * 60, 25 * 60), (26 * 60, 26 * 60)):
        for after, is_over in ((minutes - 1, False), (minutes, True)):
            assert is_past(standing, cooldown_minutes, ended_ms + after * 60_000) is is_over
    for minute, is_over in ((START + 25 * 60 - 1, False), (START + 25 * 60, True)):
        following, _ = step(standing, a_finding("well", minute), minute * 60_000)
        assert (following == QUIET) is is_over


def test_after_a_resolve_the_cooldown_passes_and_then_the_hold() -> None:
    story = "FFWW" + "F" * 35
    assert run(story) == ".f.r" + "." * 30 + "f" + "...."


def test_an_alert_that_nothing_is_known_of_any_more_is_resolved_in_the_end() -> None:
    assert run("FF" + "S" * 41) == ".f" + "." * 39 + "r."


def test_a_quiet_standing_is_the_same_object_so_that_nothing_is_written() -> None:
    for condition in ("well", "between", "silent"):
        standing, alert = step(QUIET, a_finding(condition, START), START * 60_000)
        assert standing is QUIET
        assert alert is None


def test_an_update_is_told_when_the_window_or_the_ratio_by_a_quarter_changed() -> None:
    standing = QUIET
    for minute in (START, START + 1):
        standing, _ = step(standing, a_finding("fires", minute, 8), minute * 60_000)
    later = START + 20
    for ratio, kind, is_told in (
        (9, "last_1h", False),
        (10, "last_1h", True),
        (8, "last_6h", True),
    ):
        _, alert = step(standing, a_finding("fires", later, ratio, kind), later * 60_000)
        assert (alert is not None and alert.state == "updated") is is_told
    _, alert = step(standing, a_finding("fires", START + 5, 80), (START + 5) * 60_000)
    assert alert is None


def test_what_is_no_longer_watched_is_resolved_if_it_fires() -> None:
    assert gone(QUIET, "old", SCOPE, START, START * 60_000) == (QUIET, None)
    standing = QUIET
    for minute in (START, START + 1):
        standing, _ = step(standing, a_finding("fires", minute), minute * 60_000)
    following, alert = gone(standing, "cpl_spike", SCOPE, START + 2, (START + 2) * 60_000)
    assert not following.is_firing
    assert alert is not None
    assert (alert.state, alert.number) == ("resolved", 2)
