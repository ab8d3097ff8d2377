"""Words, times and durations of alerts in two languages."""

from zoneinfo import ZoneInfo

import pytest

from kpis.facts import OVERALL, Scope
from kpis.instants import DAY_MS, HOUR_MS, MINUTE_MS
from streams.wording import _WORDS, ENGLISH, FRENCH, Wording, language_of

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, ENGLISH),
        ({"LANG": "C.UTF-8"}, ENGLISH),
        ({"LANG": "fr_FR.UTF-8"}, FRENCH),
        ({"LANG": "fr"}, FRENCH),
        ({"LANG": "fr_CA"}, FRENCH),
        ({"LANG": "FR.utf8"}, FRENCH),
        ({"LANG": "fro"}, ENGLISH),
        ({"LANG": "fr_FR", "LC_ALL": "en_GB.UTF-8"}, ENGLISH),
        ({"LANG": "en_GB", "LC_MESSAGES": "fr_BE.UTF-8"}, FRENCH),
        ({"LANG": "fr_FR", "LC_ALL": ""}, FRENCH),
    ],
)
def test_language_is_that_of_messages(environ: dict[str, str], language: str) -> None:
    assert language_of(environ) == language


def test_every_phrase_has_the_same_parts_in_both_languages() -> None:
    for name, (english, french) in _WORDS.items():
        assert english.count("{") == french.count("{"), name


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (-1, "0 min"),
        (MINUTE_MS - 1, "0 min"),
        (59 * MINUTE_MS, "59 min"),
        (HOUR_MS, "1 h"),
        (2 * HOUR_MS + 10 * MINUTE_MS, "2 h 10 min"),
        (DAY_MS + 3 * HOUR_MS + 5 * MINUTE_MS, "1 d 3 h"),
        (DAY_MS + 5 * MINUTE_MS, "1 d 5 min"),
    ],
)
def test_duration_is_told_in_its_two_largest_units(duration_ms: int, text: str) -> None:
    assert Wording(ENGLISH, PARIS).lasted(duration_ms) == text
    assert Wording(FRENCH, PARIS).lasted(duration_ms) == text.replace(" d", " j")


def test_counts_times_and_scopes_are_told_in_the_language_and_zone() -> None:
    english, french = Wording(ENGLISH, PARIS), Wording(FRENCH, PARIS)
    assert [english.count("firing", n) for n in (0, 1, 1200)] == [
        "no alert is firing",
        "1 alert is firing",
        "1,200 alerts are firing",
    ]
    assert french.count("firing", 1200) == "1\N{NARROW NO-BREAK SPACE}200 alertes en cours"
    assert english.time(1_774_737_840_000) == "2026-03-28 23:44"
    assert english.scope(OVERALL) == "all channels"
    assert french.scope(OVERALL) == "tous les canaux"
    assert french.scope(Scope("google_ads", "brand")) == "google_ads/brand"
