"""What `leadpulse alerts` writes, from values of leadgen.alerts.v1."""

import json
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec

from kpis.alert_rules import DEFAULT_RULES, Rule
from kpis.calendar import instant_text
from kpis.instants import DAY_MS, HOUR_MS, MINUTE_MS, instant_ms
from streams.alert_list import Told, lines_of, ordered, rule_lines, told_of
from streams.wording import ENGLISH, FRENCH, Wording

PARIS = ZoneInfo("Europe/Paris")
NOW_MS = instant_ms("2026-11-18T13:03:20Z")


def a_value(
    state: str = "fired",
    rule: str = "cpl_spike",
    channel: str | None = "google_ads",
    since_ms: int = NOW_MS - 2 * HOUR_MS,
    at_ms: int = NOW_MS - HOUR_MS,
) -> bytes:
    return json.dumps(
        {
            "version": 1,
            "id": "0123456789abcdef",
            "rule": rule,
            "state": state,
            "scope": {"channel": channel, "campaign_id": None},
            "window": {"kind": "last_6h", "start": None, "end": None, "time_zone": "Europe/Paris"},
            "at": instant_text(at_ms),
            "since": instant_text(since_ms),
            "evidence": {},
            "explanation": None,
            "message_en": f"English of {rule}",
            "message_fr": f"Français de {rule}",
        }
    ).encode()


def told(value: bytes) -> Told:
    found = told_of(value)
    assert found is not None
    return found


def listed(
    alerts: Sequence[Told], language: str = ENGLISH, rules: Sequence[Rule] = DEFAULT_RULES
) -> list[str]:
    return [str(line) for line in lines_of(alerts, rules, Wording(language, PARIS), NOW_MS)]


def test_alert_that_fires_is_told_with_rule_scope_window_time_and_message() -> None:
    assert listed([told(a_value())]) == [
        "1 alert is firing, none was resolved in the last 24 hours",
        "",
        "FIRING  cpl_spike  google_ads  last_6h  since 2026-11-18 12:03 (2 h)",
        "  English of cpl_spike",
    ]


def test_alert_is_told_in_french() -> None:
    assert listed([told(a_value(channel=None))], FRENCH) == [
        "1 alerte en cours, aucune terminée ces dernières 24 heures",
        "",
        "EN COURS  cpl_spike  tous les canaux  last_6h  depuis 2026-11-18 12:03 (2 h)",
        "  Français de cpl_spike",
    ]


def test_resolved_alert_is_told_with_when_and_how_long() -> None:
    lines = listed([told(a_value("resolved"))])
    assert lines[0] == "no alert is firing, 1 was resolved in the last 24 hours"
    assert lines[1].startswith("6 rules watch: cpl_spike, spend_stopped, ")
    assert lines[3] == "resolved  cpl_spike  google_ads  last_6h  2026-11-18 13:03, lasted 1 h"


def test_without_any_alert_it_says_which_rules_watch() -> None:
    names = ", ".join(rule.name for rule in DEFAULT_RULES)
    assert listed([]) == [
        "no alert is firing, none was resolved in the last 24 hours",
        f"6 rules watch: {names}",
    ]


def test_rules_that_are_switched_off_do_not_watch() -> None:
    off = [msgspec.structs.replace(rule, enabled=False) for rule in DEFAULT_RULES]
    assert listed([], rules=off)[1] == "no rule watches: all are switched off"
    assert listed([], rules=[DEFAULT_RULES[0], *off[1:]])[1] == "1 rule watches: cpl_spike"


def test_firing_ones_come_first_and_the_newest_of_each_before_the_others() -> None:
    values = [
        a_value("resolved", "a", at_ms=NOW_MS - 3 * HOUR_MS),
        a_value("updated", "b", since_ms=NOW_MS - 5 * HOUR_MS),
        a_value("resolved", "c", at_ms=NOW_MS - MINUTE_MS),
        a_value("fired", "d", since_ms=NOW_MS - HOUR_MS),
        a_value("resolved", "gone", at_ms=NOW_MS - DAY_MS - 1),
        a_value("fired", "old", since_ms=NOW_MS - 9 * DAY_MS, at_ms=NOW_MS - 9 * DAY_MS),
    ]
    names = [alert.rule for alert in ordered(map(told, values), NOW_MS)]
    assert names == ["d", "b", "old", "c", "a"]


def test_what_is_no_alert_is_passed_over() -> None:
    for value in (b"", b"[]", b"{}", b"\xff", a_value()[:-5], b'{"rule":1,"scope":null}'):
        assert told_of(value) is None


def test_rules_are_told_with_their_thresholds_and_what_differs_from_the_default() -> None:
    rules = [
        msgspec.structs.replace(DEFAULT_RULES[0], ratio=2.0),
        msgspec.structs.replace(DEFAULT_RULES[1], enabled=False),
        msgspec.structs.replace(DEFAULT_RULES[0], name="brand", campaigns=("brand-search",)),
    ]
    lines = [str(line) for line in rule_lines(rules)]
    assert lines[0] == "cpl_spike"
    assert "  ratio = 2.0  (default 1.5)" in lines
    assert '  windows = ["last_1h", "last_6h", "last_24h"]' in lines
    assert "spend_stopped  switched off" in lines
    assert "brand  kind cpl_spike" in lines
    assert '  campaigns = ["brand-search"]  (default [])' in lines
    assert not any("elapsed" in line for line in lines), "only keys of the kind"
