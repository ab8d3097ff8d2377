from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from kpis.calendar import Calendar, minute_text
from kpis.catalog import Catalog
from kpis.facts import COHORT, OVERALL, PERIOD, Scope
from kpis.fields import Rules
from kpis.retention import Buckets, Retention
from kpis.spans import LIFETIME_WINDOW, TUMBLING, Spans
from streams.problems import Problem
from streams.question import kpi_of, scope_of, scope_text, time_of, window_of, window_text

PARIS = ZoneInfo("Europe/Paris")
SPANS = Spans(Buckets(Calendar(PARIS), Retention()))
CATALOG = Catalog(("visitor", "lead", "mql", "sql", "customer"))
RULES = Rules()
# 29 March 2026, 12:34 in Paris: the day has 23 hours.
NOW = 29_579_674


def span(text: str) -> tuple[str, str]:
    window = window_of(text, SPANS, NOW)
    assert window.start_minute is not None
    assert window.end_minute is not None
    return minute_text(window.start_minute, PARIS), minute_text(window.end_minute, PARIS)


def refusal(text: str) -> str:
    with pytest.raises(Problem) as caught:
        window_of(text, SPANS, NOW)
    return str(caught.value)


# ----------------------------------------------------------------------------- scopes


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("all", OVERALL),
        ("ALL", OVERALL),
        ("google_ads", Scope("google_ads", None)),
        (" Google_Ads ", Scope("google_ads", None)),
        ("google_ads/brand-search", Scope("google_ads", "brand-search")),
        ("google_ads/a/b", Scope("google_ads", "a/b")),
        ("seo/-", Scope("seo", "-")),
    ],
)
def test_scope_is_all_a_channel_or_a_campaign(text: str, scope: Scope) -> None:
    assert scope_of(text, RULES) == scope


@pytest.mark.parametrize("text", ["", "all/brand", "google ads", "_all", "seo/", "seo/_all"])
def test_text_that_names_no_scope_is_one_line(text: str) -> None:
    with pytest.raises(Problem) as caught:
        scope_of(text, RULES)
    assert str(caught.value) == f"SCOPE: expected all, a channel or channel/campaign, got {text!r}"


@pytest.mark.parametrize("text", ["all", "seo", "google_ads/a/b"])
def test_scope_is_shown_as_it_is_typed(text: str) -> None:
    assert scope_text(scope_of(text, RULES)) == text


# ----------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1d", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("1d@previous", "2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00"),
        ("last_24h", "2026-03-28T11:00:00+01:00", "2026-03-29T13:00:00+02:00"),
        ("1d:2026-03-29", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("1w:2026-03-23", "2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("1mo:2026-03", "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"),
        ("1h:2026-03-29T10:00", "2026-03-29T10:00:00+02:00", "2026-03-29T11:00:00+02:00"),
        ("1h:2026-03-29T08:00Z", "2026-03-29T10:00:00+02:00", "2026-03-29T11:00:00+02:00"),
        ("5m:2026-03-29T10:05", "2026-03-29T10:05:00+02:00", "2026-03-29T10:10:00+02:00"),
        ("1m:2026-03-29T10:07", "2026-03-29T10:07:00+02:00", "2026-03-29T10:08:00+02:00"),
        ("1h:2026-10-25T02:00+01:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"),
    ],
)
def test_window_is_a_kind_or_a_kind_and_its_start(text: str, start: str, end: str) -> None:
    assert span(text) == (start, end)


def test_lifetime_has_no_ends() -> None:
    assert window_of("lifetime", SPANS, NOW) == LIFETIME_WINDOW


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1w:2026-03-24", "1w:2026-03-23"),
        ("1h:2026-03-29T10:07", "1h:2026-03-29T10:00"),
        ("5m:2026-03-29T10:07", "5m:2026-03-29T10:05"),
        ("1h:2026-10-25T02:30+01:00", "1h:2026-10-25T02:00+01:00"),
    ],
)
def test_start_within_a_window_is_told_the_windows_own(text: str, meant: str) -> None:
    assert refusal(text).endswith(f", got {text!r}; did you mean {meant}?")


def test_hour_that_occurs_twice_has_to_be_told_apart() -> None:
    assert refusal("1h:2026-10-25T02:00") == (
        "WINDOW: expected a time that occurs once, got '1h:2026-10-25T02:00'; "
        "did you mean 1h:2026-10-25T02:00+02:00 or 1h:2026-10-25T02:00+01:00?"
    )


def test_hour_that_the_clock_leaves_out_is_refused() -> None:
    assert refusal("1h:2026-03-29T02:00") == (
        "WINDOW: expected a time that there is in Europe/Paris, got '1h:2026-03-29T02:00'"
    )


def test_kind_that_is_none_is_told_the_nearest() -> None:
    assert refusal("last_24").endswith("got 'last_24'; did you mean last_24h?")
    assert refusal("1month:2026-03").startswith("WINDOW: expected one of 1m, 5m, 1h, 1d, ")


@pytest.mark.parametrize("text", ["last_24h:2026-03-29", "lifetime:2026"])
def test_window_that_moves_has_no_start_to_choose(text: str) -> None:
    kind = text.partition(":")[0]
    assert (
        refusal(text) == f"WINDOW: expected {kind} alone: it has no start to choose, got {text!r}"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("1d:", "1d:29.3.2026", "1d:2026-02-30", "1mo:2026-13", "1mo:2026-03-01"),
        *("1h:2026-03-29", "1d:1999-12-31", "1h:9999-12-31T00:00", "1h:2026-03-29T10:00+99:00"),
    ],
)
def test_start_that_is_no_time_is_told_an_example(text: str) -> None:
    kind = text.partition(":")[0]
    line = refusal(text)
    assert line.startswith("WINDOW: expected a window of the years 2000 to 2100 such as ")
    assert f" {kind}:2026-03" in line


@pytest.mark.parametrize("kind", TUMBLING)
def test_window_is_shown_as_it_is_typed(kind: str) -> None:
    # In the night of 25 October an hour occurs twice.
    for minute in (NOW, 29_881_440, 29_881_500):
        window = SPANS.tumbling(kind, minute)
        assert window_of(window_text(window, SPANS.buckets.calendar), SPANS, NOW) == window


# ----------------------------------------------------------------------------- KPIs


@pytest.mark.parametrize(
    ("name", "basis", "scope"),
    [
        ("cpl", PERIOD, OVERALL),
        ("stage_conversion.lead.mql", COHORT, Scope("seo", None)),
        ("unattributed_share", PERIOD, OVERALL),
        ("target_attainment.cpl", PERIOD, OVERALL),
        ("target_attainment.stage_entered.mql", PERIOD, Scope("seo", None)),
        ("pacing.leads", PERIOD, OVERALL),
    ],
)
def test_kpi_that_a_scope_has_is_taken(name: str, basis: str, scope: Scope) -> None:
    assert kpi_of(name, basis, scope, CATALOG) == name


@pytest.mark.parametrize(
    ("text", "basis", "scope", "todo"),
    [
        ("CPL", PERIOD, OVERALL, "did you mean cpl?"),
        ("conversion-within", COHORT, OVERALL, "did you mean conversion_within?"),
        ("Coût par lead", PERIOD, OVERALL, "did you mean cpl?"),
        ("stage_conversion.lead.sql", PERIOD, OVERALL, "did you mean stage_conversion.lead.mql?"),
        ("ctr", COHORT, OVERALL, "it exists with --basis period only"),
        ("cohort_maturity", PERIOD, OVERALL, "it exists with --basis cohort only"),
        ("unattributed_share", PERIOD, Scope("seo", None), "only the SCOPE all has it"),
        ("pacing.cpl", PERIOD, OVERALL, "did you mean pacing."),
        ("xyzzy", PERIOD, OVERALL, "`leadpulse kpis` lists them"),
    ],
)
def test_kpi_that_a_scope_has_not_is_told_what_to_do(
    text: str, basis: str, scope: Scope, todo: str
) -> None:
    with pytest.raises(Problem) as caught:
        kpi_of(text, basis, scope, CATALOG)
    line = str(caught.value)
    assert line.startswith("KPI: expected ")
    assert f"got {text!r}" in line
    assert todo in line


@pytest.mark.parametrize(
    ("text", "is_end", "utc"),
    [
        ("2026-03-28", False, "2026-03-27T23:00Z"),
        ("2026-03-29", True, "2026-03-29T22:00Z"),
        ("2026-03-29T10:00", False, "2026-03-29T08:00Z"),
        (" 2026-03-29 10:00 ", True, "2026-03-29T08:00Z"),
        ("2026-03-29T02:30Z", False, "2026-03-29T02:30Z"),
        ("2026-10-25T02:30+01:00", False, "2026-10-25T01:30Z"),
    ],
)
def test_time_is_a_local_date_or_time_or_one_with_an_offset(
    text: str, utc: str, *, is_end: bool
) -> None:
    expected = int(datetime.fromisoformat(utc).timestamp()) // 60
    assert time_of(text, "--from", Calendar(ZoneInfo("Europe/Paris")), is_end=is_end) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("yesterday", "--from: expected a date or time of the years 2000 to 2100 such as"),
        ("", "--from: expected a date or time"),
        ("2026-02-30", "--from: expected a date or time"),
        ("20261101", "--from: expected a date or time"),
        ("1999-01-01", "--from: expected a date or time"),
        ("2026-03-29T02:30", "--from: expected a time that occurs once, got '2026-03-29T02:30', "),
        ("2026-10-25T02:30", "which clocks in Europe/Paris show twice; add an offset such as"),
    ],
)
def test_what_is_no_time_is_refused(text: str, fault: str) -> None:
    with pytest.raises(Problem) as caught:
        time_of(text, "--from", Calendar(ZoneInfo("Europe/Paris")))
    assert fault in str(caught.value)
