"""What is written about a number, from records as the pipeline writes them."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from aiokafka import TopicPartition
from rich.console import Console

from kpis.calendar import Calendar
from kpis.catalog import Catalog, Surroundings, Undefined, Value
from kpis.facts import COHORT, OVERALL, PERIOD, Facts, Scope, Subject
from kpis.fields import Rules
from kpis.instants import instant_ms
from kpis.left_out import Item, LeftOut
from kpis.money import MICROS
from kpis.retention import Buckets, Retention
from kpis.spans import LIFETIME_WINDOW, Spans, Window
from kpis.targets import Target
from kpis.windows import FINAL, PROVISIONAL, REVISED, WindowValues, key_of, record
from streams.explain import Records, Rejects
from streams.explained import MINUS, NONE, TIMES, Counted, Evidence, Revision, Setting, render
from streams.question import Question
from streams.shown import View, view_of_record

PARIS = ZoneInfo("Europe/Paris")
CALENDAR = Calendar(PARIS)
SPANS = Spans(Buckets(CALENDAR, Retention()))
CATALOG = Catalog(("visitor", "lead", "mql", "sql", "customer"))
SETTING = Setting(CATALOG, SPANS, "EUR", lambda channel: channel.endswith("_ads"))
NOON = instant_ms("2026-03-29T12:00:00Z")
DAY = SPANS.tumbling("1d", NOON // 60_000)
GOOGLE = Scope("google_ads", None)
COST: Facts = {"cost": 600 * MICROS, "cost_records": 1380}
NOTHING = LeftOut({}, {})


def a_view(
    facts: Facts,
    around: Surroundings = Surroundings(),  # noqa: B008 - it never changes
    scope: Scope = GOOGLE,
    basis: str = PERIOD,
    window: Window = DAY,
    **state: Any,
) -> View:
    kpis = CATALOG.evaluate(basis, facts, around)
    values = WindowValues(basis, scope, window, facts, kpis, NOON, NOON + 412, around, **state)
    return view_of_record(record(values, CATALOG, PARIS, "EUR").value)


def explained(
    view: View,
    kpi: str,
    scope: Scope = GOOGLE,
    basis: str = PERIOD,
    window: Window = DAY,
    channels: Mapping[str, View] | None = None,
    revisions: Iterable[Revision] = (),
    target: Target | None = None,
    counted: Counted | None = None,
    *,
    is_from_ledger: bool = False,
) -> str:
    if channels is None:
        channels = {} if scope.channel is None else {scope.channel: view}
    evidence = Evidence(view, is_from_ledger, list(revisions), channels, target, counted)
    page = Console(width=160, no_color=True)
    with page.capture() as caught:
        page.print(render(Question(Subject(basis, scope), window, kpi), evidence, SETTING))
    # The signs of print are hard to tell from others here.
    plain = caught.get().replace(MINUS, "-").replace(TIMES, "x").replace(NONE, "-")
    return "\n".join(line.rstrip() for line in plain.splitlines())


def part(text: str, heading: str) -> list[str]:
    """Return the lines of one part, without its heading."""
    found: list[str] = []
    here = ""
    for line in text.splitlines()[1:]:
        here = line[:9].strip() or here
        if here == heading:
            found.append(line[9:].strip())
    return found


def known(expected: int = 1, covered: int = 1, **more: Any) -> Surroundings:
    return Surroundings(expected=expected, covered=covered, **more)


# ----------------------------------------------------------------------------- the number


def test_number_is_explained_from_its_facts() -> None:
    facts = {**COST, "leads_gross": 30, "leads_voided": 2}
    text = explained(a_view(facts, known()), "cpl")
    assert text.splitlines()[0].strip() == (
        "cpl (Coût par lead) of google_ads, 1d:2026-03-29, period basis"
    )
    value, interval = part(text, "value")
    assert value == "21.428571 EUR"
    assert interval.startswith("between 14.")
    assert part(text, "formula") == ["cost / leads", "= 600.00 / 28"]
    assert part(text, "facts") == [
        "cost   600.00 EUR  (of every kind, spread over the minutes it was spent in)",
        "leads  28 = leads_gross 30 - leads_voided 2  (leads created, without invalidated ones)",
    ]
    assert part(text, "cost") == [
        "1 of 1 channel that expects cost has it in this window: google_ads",
        "up to when it is known was not looked at (--quick)",
    ]
    assert part(text, "left out") == ["not counted (--quick)"]


@pytest.mark.parametrize(
    ("kpi", "facts", "value", "numbers"),
    [
        ("cpm", {**COST, "impressions": 10_000}, "60.00 EUR", "= 1000 x 600.00 / 10,000"),
        (
            "roi",
            {**COST, "revenue_gross": 4000 * MICROS, "refunds": 100 * MICROS},
            "5.5 (550.00 %)",
            "= (3,900.00 - 600.00) / 600.00",
        ),
        ("ctr", {"clicks": 300, "impressions": 10_000}, "0.03 (3.00 %)", "= 300 / 10,000"),
        (
            "purchase_cycle_mean",
            {"cycle_ms": 3 * 86_400_000, "cycle_count": 2},
            "129,600 s (36 hours)",
            "= 259,200,000 / 2 / 1000",
        ),
        (
            "invalid_click_share",
            {"clicks": 9, "invalid_clicks": 1},
            "0.1 (10.00 %)",
            "= 1 / (9 + 1)",
        ),
        ("cost_coverage", COST, "1 (100.00 %)", "= 1 / 1"),
    ],
)
def test_every_unit_reads_as_people_write_it(
    kpi: str, facts: Facts, value: str, numbers: str
) -> None:
    text = explained(a_view(facts, known()), kpi)
    assert part(text, "value")[0] == value
    assert part(text, "formula")[1] == numbers


def test_quantile_tells_of_how_many_it_is_one() -> None:
    facts = {"cycle_count": 4, "cycle_ms": 4 * 86_400_000, "cycle_histogram.1000": 4}
    text = explained(a_view(facts), "purchase_cycle_p90")
    assert part(text, "formula") == [
        "p90 of cycle_histogram / 1000",
        "= the time within which 90 % of 4 buyers bought",
    ]
    assert part(text, "value")[-1] == "approximate: within 1 %"


def test_cohort_says_what_its_facts_mean() -> None:
    facts = {"leads_gross": 28, "leads": 28, "converted": 2}
    text = explained(a_view(facts, basis=COHORT), "conversion", basis=COHORT)
    assert "cohort basis" in text
    assert part(text, "facts")[1] == "leads      28  (leads created here, without invalidated ones)"


def test_matured_leads_are_told_from_what_the_record_shows() -> None:
    around = Surroundings(mature_leads=29, mature_converted=2)
    facts = {"leads_gross": 40, "leads": 40, "converted_within": 5}
    text = explained(a_view(facts, around, basis=COHORT), "conversion_within", basis=COHORT)
    assert part(text, "formula")[1] == "= 2 / 29"


def test_share_of_the_whole_is_told_from_the_channel_that_is_none() -> None:
    around = Surroundings(unattributed_leads=3, is_overall=True)
    whole = a_view({"leads_gross": 12}, around, OVERALL)
    channels = {"unattributed": a_view({"leads_gross": 3}, scope=Scope("unattributed", None))}
    text = explained(whole, "unattributed_share", OVERALL, channels=channels)
    assert part(text, "formula")[1:] == ["= 3 / 12"]


def test_records_of_different_moments_are_told_apart() -> None:
    around = Surroundings(unattributed_leads=3, is_overall=True)
    whole = a_view({"leads_gross": 12}, around, OVERALL)
    text = explained(whole, "unattributed_share", OVERALL)
    assert (
        part(text, "formula")[-1] == "the records of its channels are of another moment: ask again"
    )


# ----------------------------------------------------------------------------- marks


def test_unknown_cost_is_told_with_who_did_not_report_it() -> None:
    text = explained(a_view({"leads_gross": 3}, known(covered=0)), "cpl")
    assert part(text, "value") == [
        (
            "undefined: cost_missing: google_ads reported no cost in this window, "
            "and unknown cost is not zero cost"
        )
    ]
    assert part(text, "cost")[0] == (
        "0 of 1 channel that expects cost has it in this window; none from google_ads"
    )


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"cost": 5 * MICROS, "cost_records": 60}, "no_leads: nothing to divide by"),
        ({"sales": 1}, "no_data: there is nothing above and nothing below the line"),
    ],
)
def test_undefined_number_says_why(facts: Facts, told: str) -> None:
    text = explained(a_view(facts, scope=Scope("seo", None)), "cpl", Scope("seo", None))
    assert part(text, "value") == [f"undefined: {told}"]


def test_part_of_the_cost_is_told_with_whose_is_missing() -> None:
    facts = {**COST, "leads_gross": 30}
    whole = a_view(facts, known(expected=3, covered=2, is_overall=True), OVERALL)
    channels = {
        name: a_view({"leads_gross": 1, "cost_records": records}, scope=Scope(name, None))
        for name, records in (("google_ads", 60), ("meta_ads", 60), ("linkedin_ads", 0), ("seo", 0))
    }
    text = explained(whole, "cpl", OVERALL, channels=channels)
    assert part(text, "value")[-1] == "partial: no cost from linkedin_ads"
    assert part(text, "cost")[0] == (
        "2 of 3 channels that expect cost have it in this window; none from linkedin_ads"
    )


def test_missing_rate_is_told() -> None:
    view = a_view({**COST, "leads_gross": 30, "fx_missing": 2}, known())
    told = "partial: no exchange rate for 2 sales or minutes of cost"
    assert part(explained(view, "cpl"), "value")[-1] == told


def test_cost_that_is_still_to_come_is_told() -> None:
    view = a_view({**COST, "leads_gross": 30}, known(cost_until_reached=False))
    told = "partial: cost is not known for all of the window yet"
    assert part(explained(view, "cpl"), "value")[-1] == told


def test_channel_that_expects_no_cost_has_a_known_zero() -> None:
    seo = Scope("seo", None)
    text = explained(a_view({"leads_gross": 30}, scope=seo), "cpl", seo)
    assert part(text, "value")[0] == "0.00 EUR"
    assert part(text, "cost")[0] == "no channel here expects cost: none reported is a known 0"


def test_share_above_the_whole_is_called_implausible() -> None:
    text = explained(a_view({"clicks": 3, "impressions": 2}), "ctr")
    assert part(text, "value")[-1].startswith("implausible: more than the whole")
    assert part(text, "cost") == []


# ----------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            {"state": PROVISIONAL},
            "provisional: final when everything is counted up to 2026-04-01T00:00:00+02:00",
        ),
        (
            {"state": PROVISIONAL, "revision": 2},
            "provisional, revision 2: it has changed since, the next revision is to come",
        ),
        (
            {"state": FINAL, "revision": 1},
            "final, revision 1: what comes from now on makes a revision",
        ),
        (
            {"state": REVISED, "revision": 2, "cause": "cost_restated"},
            "revised, revision 2, because of cost_restated: corrected after it was final",
        ),
    ],
)
def test_state_is_told_with_what_comes_next(state: Mapping[str, Any], told: str) -> None:
    lines = part(explained(a_view(COST, **state), "cpl"), "window")
    assert lines == [
        "from 2026-03-29T00:00:00+01:00 to 2026-03-30T00:00:00+02:00 (23 hours in Europe/Paris)",
        "computed 2026-03-29T12:00:00.412Z; everything that arrived before 2026-03-29T12:00:00Z is counted",
        told,
    ]


@pytest.mark.parametrize(
    ("window", "told"),
    [
        (LIFETIME_WINDOW, "provisional: the whole is never final"),
        (SPANS.rolling("last_24h", NOON // 60_000), "provisional: such a window is never final"),
    ],
)
def test_window_without_an_end_of_its_own_is_never_final(window: Window, told: str) -> None:
    view = a_view(COST, window=window)
    text = explained(view, "cpl", window=window)
    assert part(text, "window")[-1] == told
    assert part(text, "history") == ["the ledger has none: such a window is never final"]


def test_number_that_only_the_ledger_has_says_so() -> None:
    text = explained(a_view(COST, state=FINAL, revision=1), "cpl", is_from_ledger=True)
    told = "from the ledger: this window is no longer among the current numbers"
    assert told in part(text, "window")


def a_revision(
    number: int, value: Value | None = 20 * MICROS, previous: str | None = None
) -> Revision:
    state, cause = (FINAL, None) if number == 1 else (REVISED, "cost_restated")
    return Revision(number, state, cause, value, previous, NOON + number * 60_000)


def test_history_is_every_revision_with_what_it_was_before() -> None:
    revisions = [
        a_revision(1, Undefined("no_leads")),
        a_revision(2, 20_500_000, "undefined"),
        a_revision(3, 21_428_571, "20.50"),
    ]
    lines = part(explained(a_view(COST), "cpl", revisions=revisions), "history")
    assert [line.split() for line in lines] == [
        ["revision", "value", "was", "state", "cause", "when"],
        ["1", "no_leads", "-", "final", "-", "2026-03-29T12:01:00Z"],
        ["2", "20.50", "undefined", "revised", "cost_restated", "2026-03-29T12:02:00Z"],
        ["3", "21.428571", "20.50", "revised", "cost_restated", "2026-03-29T12:03:00Z"],
    ]


def test_long_history_ends_with_how_much_came_before() -> None:
    revisions = [a_revision(number) for number in range(1, 31)]
    lines = part(explained(a_view(COST), "cpl", revisions=revisions), "history")
    assert len(lines) == 22
    assert lines[-1] == "and 10 earlier"
    assert lines[1].startswith("11 ")


def test_window_that_never_was_final_has_no_history() -> None:
    told = ["the ledger has none: it was never final"]
    assert part(explained(a_view(COST), "cpl"), "history") == told


# ----------------------------------------------------------------------------- left out


def test_what_was_left_out_is_told_by_what_and_why_and_what_nobody_can_place() -> None:
    found = LeftOut(
        {("leads", "invalidated: spam"): 1200, ("cost rows", "replaced by a newer row"): 3},
        {("leads", "rejected: bad_time"): 2},
    )
    until = {"google_ads": DAY.end_minute or 0, "meta_ads": 0}
    counted = Counted(found, 4, 50, until)
    text = explained(a_view(COST, known()), "cpl", counted=counted)
    assert part(text, "left out") == [
        "3  cost rows  replaced by a newer row",
        "1,200  leads      invalidated: spam",
        "in the window, but nobody can tell of which scope:",
        "2  leads  rejected: bad_time",
        "and 4 rejected records that tell no time",
        (
            "the broker has deleted the first 50 input records: "
            "what was left out of those is not told here"
        ),
    ]
    assert part(text, "cost")[1:] == ["google_ads: known up to 2026-03-30T00:00:00+02:00"]


def test_nothing_left_out_is_told_too() -> None:
    text = explained(a_view(COST), "cpl", counted=Counted(NOTHING, 0, 0, {}))
    assert part(text, "left out") == ["nothing"]


# ----------------------------------------------------------------------------- targets


def test_target_is_told_with_what_there_is_of_it() -> None:
    month = SPANS.tumbling("1mo", NOON // 60_000)
    start, end = month.start_minute or 0, month.end_minute or 0
    target = Target("leads", "month", start, end, 40 * MICROS)
    view = a_view({"leads_gross": 28}, window=month)
    kpis = {**view.numbers.kpis}
    kpis["target_attainment.leads"] = kpis["ctr"]._replace(value=700_000)
    view = view._replace(numbers=view.numbers._replace(kpis=kpis))
    text = explained(view, "target_attainment.leads", window=month, target=target)
    assert part(text, "value") == ["0.7 (70.00 %)"]
    assert part(text, "formula") == [
        "actual / target",
        "target: 40 leads in the month from 2026-03-01 to 2026-03-31, linear",
        "actual: about 28 from 2026-03-01 on",
    ]
    assert part(text, "facts") == [
        "leads  28 = leads_gross 28 - leads_voided 0  (leads created, without invalidated ones)"
    ]


def test_kpi_of_a_target_that_is_not_set_says_so() -> None:
    text = explained(a_view({"leads_gross": 28}), "pacing.leads")
    assert part(text, "value") == ["none: the record shows no pacing.leads"]
    assert part(text, "formula") == ["actual / target_by_now", "no such target is set"]


@pytest.mark.parametrize("basis", [PERIOD, COHORT])
def test_every_kpi_of_the_catalogue_can_be_explained(basis: str) -> None:
    view = a_view(COST, known(is_overall=True), OVERALL, basis)
    for kpi in CATALOG.names(basis, is_overall=True):
        text = explained(view, kpi, OVERALL, basis, channels={"google_ads": a_view(COST)})
        assert text.splitlines()[0].strip().startswith(f"{kpi} (")
        assert part(text, "formula")
        assert part(text, "facts")


# ----------------------------------------------------------------------------- records


class Read(NamedTuple):
    """A record as a consumer returns it, as far as it is looked at."""

    key: bytes
    value: bytes | None


PLACE = TopicPartition("leadgen.kpis.v1", 0)


def a_key(scope: Scope, window: Window = DAY) -> bytes:
    return key_of(PERIOD, window, scope, PARIS)


def records_of(scope: Scope, current: Iterable[Read], ledger: Iterable[Read] = ()) -> Records:
    records = Records(Question(Subject(PERIOD, scope), DAY, "cpl"), SETTING)
    for one in current:
        records.take_current(PLACE, one)
    for one in ledger:
        records.take_revision(PLACE, one)
    return records


def test_last_record_of_the_window_is_the_one_that_counts() -> None:
    day_before = SPANS.previous(DAY)
    records = records_of(
        GOOGLE,
        [
            Read(a_key(GOOGLE), b"1"),
            Read(a_key(GOOGLE, day_before), b"2"),
            Read(a_key(Scope("google_ads", "c")), b"3"),
            Read(a_key(OVERALL), b"4"),
            Read(a_key(GOOGLE), b"5"),
        ],
        [Read(a_key(GOOGLE), b"6")],
    )
    assert (records.last, records.is_from_ledger) == (b"5", False)
    assert records.channels() == {"google_ads": b"5"}
    assert records.history() == [b"6"]


def test_window_that_is_kept_no_longer_is_found_in_the_ledger() -> None:
    current = [Read(a_key(GOOGLE), b"1"), Read(a_key(GOOGLE), None)]
    ledger = [Read(a_key(GOOGLE), b"2"), Read(a_key(GOOGLE), b"3"), Read(a_key(OVERALL), b"4")]
    records = records_of(GOOGLE, current, ledger)
    assert (records.last, records.is_from_ledger) == (b"3", True)
    assert records.history() == [b"2", b"3"]


def test_whole_is_read_with_the_channels_in_it() -> None:
    scopes = [OVERALL, GOOGLE, Scope("seo", None), Scope("seo", "c")]
    records = records_of(OVERALL, [Read(a_key(scope), b"%d" % n) for n, scope in enumerate(scopes)])
    assert records.last == b"0"
    assert records.channels() == {"google_ads": b"1", "seo": b"2"}


def test_window_without_any_record_has_none() -> None:
    assert records_of(GOOGLE, []).last is None


def reject_of(original: object, **fields: object) -> Read:
    told = {"reason": "bad_value", "topic": "leadgen.leads.v1", "partition": 0, "offset": 7}
    told["occurred_at"] = "2026-03-29T12:00:00Z"
    if original is not None:
        told["original"] = base64.b64encode(json.dumps(original).encode()).decode()
    return Read(b"leadgen.leads.v1/0/7", json.dumps({**told, **fields}).encode())


@pytest.mark.parametrize(
    ("original", "scope"),
    [
        ({"channel": " Google_Ads ", "campaign_id": "c"}, ("google_ads", "c")),
        ({"channel": "seo"}, ("seo", "-")),
        ({"channel": 7}, (None, None)),
        ({"lead_id": "l"}, (None, None)),
        ([], (None, None)),
        (None, (None, None)),
    ],
)
def test_reject_lies_in_the_scope_that_its_record_names(
    original: object, scope: tuple[str | None, str | None]
) -> None:
    rejects = Rejects({"leadgen.leads.v1": "leads"}, Rules())
    rejects.take(reject_of(original))
    assert rejects.items == [Item("leads", "rejected: bad_value", NOON, NOON, *scope)]


def test_reject_without_a_time_is_only_counted_and_one_of_other_topics_is_not() -> None:
    rejects = Rejects({"leadgen.leads.v1": "leads"}, Rules())
    rejects.take(reject_of(None, occurred_at=None))
    rejects.take(reject_of(None, topic="leadgen.sales.v1"))
    rejects.take(Read(b"", b"no reject"))
    assert (rejects.items, rejects.timeless) == ([], 1)
