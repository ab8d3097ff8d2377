"""A rule tried on a story: it fires and resolves when the plain formula says, and not on what came later."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from kpis.alert_rules import CPL_SPIKE, DEFAULTS, Rule
from kpis.alerts import FIRES, Finding, Standing
from kpis.calendar import MINUTE_MS, Calendar
from kpis.detector import Detector
from kpis.facts import OVERALL, Scope
from kpis.money import MICROS
from kpis.retention import Buckets
from kpis.targets import Target, Targets
from streams.alert_trial import (
    Asked,
    Incident,
    Past,
    Trial,
    _Reading,
    _scopes,
    fold_of,
    lines_of,
    past_of,
    retention_of,
    trial_of,
    walk,
)
from streams.clock import ManualClock
from streams.problems import Problem
from streams.settings import Settings, load
from streams.wording import ENGLISH, FRENCH, Wording
from tests.kpis.streams_of_records import Record
from tests.streams.break_story import HOUR, PARIS, BreakStory

SETTINGS = load({"LEADPULSE_TIME_ZONE": "Europe/Paris", "LEADPULSE_CONFIG": ""})
STORY = BreakStory(
    datetime(2026, 3, 18, 8, tzinfo=PARIS), until=datetime(2026, 3, 19, 12, tzinfo=PARIS)
)
CAMPAIGN = Scope("google_ads", "brand-search")
CHANNEL = Scope("google_ads", None)
START, END = STORY.broken_minute - 12 * HOUR, STORY.end_minute
PLAIN = msgspec.structs.replace(DEFAULTS["cpl_spike"], windows=("last_6h",), is_strict=False)


def past(records: Iterable[Record], trial: Trial, settings: Settings = SETTINGS) -> Past:
    retention = retention_of(settings, trial, STORY.end_minute)
    fold = fold_of(settings, retention)
    for offset, (topic, value, timestamp_ms) in enumerate(records):
        fold.add(topic, 0, offset, value, timestamp_ms)
    result = fold.result(booked_minute=trial.end_minute)
    return past_of(result, Buckets(Calendar(settings.time_zone), retention), settings)


def trial(rule: Rule, start: int = START, end: int = END) -> Trial:
    return Trial(rule, start, end, None)


@pytest.fixture(scope="module")
def story() -> Past:
    return past(STORY.records(), trial(PLAIN))


def incidents(of: Past, tried: Trial, *scopes: Scope) -> list[Incident]:
    return list(chain.from_iterable(walk(tried, of, scopes, "EUR")))


def test_rule_fires_and_resolves_in_the_minutes_that_the_formula_says(story: Past) -> None:
    fired, resolved = STORY.foretold(START, END)
    assert STORY.broken_minute < fired < STORY.mended_minute < resolved

    for scope in (CAMPAIGN, CHANNEL, OVERALL):
        (incident,) = incidents(story, trial(PLAIN), scope)
        assert incident.alert.at_ms == (fired + 1) * MINUTE_MS
        assert incident.resolved_ms == (resolved + 1) * MINUTE_MS
        assert incident.alert.finding.scope == scope
        assert incident.alert.finding.window.kind == "last_6h"
        assert set(incident.messages) == {"en", "fr"}


def test_default_rules_fire_for_the_break_only(story: Past) -> None:
    for name in ("cpl_spike", "leads_stopped"):
        found = incidents(story, trial(DEFAULTS[name]), CHANNEL, OVERALL)
        assert [one.alert.finding.scope for one in found] == [CHANNEL, OVERALL], name
        for one in found:
            fired = one.alert.at_ms // MINUTE_MS
            assert STORY.broken_minute < fired < STORY.mended_minute
            assert one.resolved_ms is not None
            assert one.resolved_ms // MINUTE_MS > STORY.mended_minute
    for name in ("spend_stopped", "cost_missing", "pacing_behind", "conversion_drop"):
        assert incidents(story, trial(DEFAULTS[name]), CHANNEL, OVERALL) == [], name


def test_incident_that_goes_on_has_no_end(story: Past) -> None:
    tried = trial(PLAIN, end=STORY.mended_minute)
    (incident,) = incidents(story, tried, CAMPAIGN)
    assert incident.resolved_ms is None

    wording = Wording(ENGLISH, PARIS)
    lines = [str(line) for line in lines_of(tried, story, 1, [incident], wording)]
    assert lines[0] == ("cpl_spike, 2026-03-17 20:00 to 2026-03-18 16:00 (Europe/Paris), 1 scope")
    assert lines[1] == "would have fired once"
    assert lines[3].startswith("2026-03-18 ")
    assert lines[3].endswith("  google_ads/brand-search  last_6h  still firing at the end")
    assert lines[4] == f"  {incident.messages['en']}"
    assert lines[-1].startswith("With hindsight: ")


def test_quiet_time_is_told_as_such_in_french_too(story: Past) -> None:
    tried = trial(PLAIN, end=STORY.broken_minute)
    assert incidents(story, tried, CAMPAIGN) == []
    gone = story._replace(deleted=1200)
    lines = [str(line) for line in lines_of(tried, gone, 1, [], Wording(FRENCH, PARIS))]
    assert lines[1] == "n'aurait pas alerté"
    assert "1\N{NARROW NO-BREAK SPACE}200" in lines[-1]


# ----------------------------------------------------------------------------- what was known then


def findings(of: Past, minute: int) -> list[list[Finding]]:
    detector = Detector(DEFAULTS.values(), of.outlook, of.spans)
    # Of a rule that fires everything is told, of others only what is news.
    firing = dict.fromkeys(DEFAULTS, Standing(is_firing=True))
    return [detector.evaluate(scope, minute, firing) for scope in (CAMPAIGN, CHANNEL, OVERALL)]


@pytest.mark.parametrize(
    ("after", "fires"),
    [
        *((after, False) for after in (-700, -1, 0, 7, 61, 200)),
        *((after, True) for after in (359, 480, 500)),
        *((after, False) for after in (731, 1400)),
    ],
)
def test_any_minute_is_judged_by_what_had_happened_and_nothing_else(
    story: Past, after: int, *, fires: bool
) -> None:
    minute = STORY.broken_minute + after
    story.history.minute = minute
    then = past(STORY.records(until_minute=minute + 1), trial(PLAIN))
    # What was known then had no later hours at all: these sums are those of a plain recomputation.
    then.history.minute = minute
    # Up to when cost is known is told by the newest bill, which is a matter of hindsight.
    known = {rule.name for rule in DEFAULTS.values() if rule.name != "spend_stopped"}
    for now, before in zip(findings(story, minute), findings(then, minute), strict=True):
        assert [one for one in now if one.rule.name in known] == [
            one for one in before if one.rule.name in known
        ]
    spikes = [
        one for found in findings(story, minute) for one in found if one.rule.name == CPL_SPIKE
    ]
    assert [one.condition == FIRES for one in spikes] == [fires] * 3, "the break, and only that"


# ----------------------------------------------------------------------------- what is asked

NOW = STORY.end_minute


def test_a_trial_is_from_a_time_to_a_time_or_to_now() -> None:
    asked = Asked("cpl_spike", "2026-03-18", "2026-03-18")
    tried = trial_of(SETTINGS, asked, NOW)
    assert (tried.end_minute - tried.start_minute, tried.scope) == (24 * HOUR, None)
    assert trial_of(SETTINGS, asked._replace(until=None), NOW).end_minute == NOW + 1
    assert trial_of(SETTINGS, asked._replace(until="2030-01-01"), NOW).end_minute == NOW + 1
    only = asked._replace(scope="Google_Ads/brand-search")
    assert trial_of(SETTINGS, only, NOW).scope == CAMPAIGN


def test_rule_that_is_switched_off_can_be_tried(tmp_path: Path) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text("[cpl_spike]\nenabled = false\nratio = 3\n", encoding="utf-8")
    settings = load({"LEADPULSE_ALERTS_RULES": str(file), "LEADPULSE_CONFIG": ""})
    tried = trial_of(settings, Asked("cpl_spike", "2026-03-18"), NOW)
    assert (tried.rule.enabled, tried.rule.ratio) == (True, 3.0)


AIMED = Scope("google_ads", "never-seen")


def aimed(of: Past, scope: Scope) -> Past:
    """Return the same past with a target of leads for the days of the break."""
    day = Calendar(PARIS).day_start(STORY.broken_minute)
    targets = Targets()
    for number in range(2):
        start = day + number * 24 * HOUR
        target = Target("leads", "day", start, start + 24 * HOUR, 1000 * MICROS)
        targets.put((str(number),), target)
    return of._replace(outlook=replace(of.outlook, targets={scope: targets}))


PACE = msgspec.structs.replace(DEFAULTS["pacing_behind"], windows=("1d",))


def test_scope_with_nothing_but_a_target_is_looked_at(story: Past) -> None:
    past = aimed(story, AIMED)
    scopes = _scopes(trial(PACE), past)
    assert len(scopes) == len(set(scopes))
    assert AIMED in scopes
    assert CAMPAIGN in scopes
    assert _scopes(trial(PACE)._replace(scope=AIMED), past) == [AIMED]

    (incident, *_) = incidents(past, trial(PACE), AIMED)
    assert incident.alert.finding.scope == AIMED


def test_scope_with_neither_numbers_nor_a_target_is_refused(story: Past) -> None:
    with pytest.raises(Problem, match=r"expected one that there are numbers or targets of"):
        _scopes(trial(PACE)._replace(scope=AIMED), story)


def test_time_in_which_nothing_happened_is_refused_but_for_targets(story: Past) -> None:
    later = END + 24 * HOUR
    quiet = trial(PACE, later, later + HOUR)
    clock = ManualClock((later + HOUR) * MINUTE_MS)
    _Reading(SETTINGS, quiet, clock)._refuse_emptiness(aimed(story, AIMED))
    with pytest.raises(Problem, match=r"expected something that happened from"):
        _Reading(SETTINGS, quiet, clock)._refuse_emptiness(story)


def test_unknown_scope_of_a_channel_rule_is_refused() -> None:
    with pytest.raises(Problem, match=r"--scope: expected one that spend_stopped looks at"):
        trial_of(SETTINGS, Asked("spend_stopped", "2026-03-18", None, "seo/x"), NOW)
