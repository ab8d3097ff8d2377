import json
from collections.abc import Mapping
from typing import Any

import pytest

from kpis.facts import COHORT, OVERALL, PERIOD, Scope
from kpis.fields import Rules
from kpis.instants import instant_ms
from kpis.leads import Funnel
from kpis.left_out import Item, LeftOuts, is_of_scope, left_out, topics_of, topics_to_read
from kpis.spans import LIFETIME_WINDOW, Window

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
START = instant_ms("2026-03-05T00:00:00Z")
DAY = Window("1d", START // 60_000, (START + DAY_MS) // 60_000)
NOW = instant_ms("2026-03-06T00:00:00Z")
SEO = Scope("seo", None)
RULES = Rules()
DEDUP = Rules(dedup_impressions=True)
MONEY = {"amount": "10.00", "currency": "EUR"}
ROW = {
    "cost_source": "bills",
    "channel": "seo",
    "period_start": "2026-03-05",
    "period_end": "2026-03-06",
}


def sent(topic: str, type_name: str, at: str = "12:00", /, **fields: object) -> tuple[str, bytes]:
    occurred_at = at if "T" in at else f"2026-03-05T{at}:00Z"
    envelope = {"event_id": "e", "source": "/test", "type": type_name, "occurred_at": occurred_at}
    return topic, json.dumps(envelope | fields).encode()


def lead(lead_id: str = "l", at: str = "12:00", **fields: object) -> tuple[str, bytes]:
    return sent("leads", "lead.created", at, lead_id=lead_id, **{"channel": "seo", **fields})


def sale(sale_id: str = "s", at: str = "12:00", **fields: object) -> tuple[str, bytes]:
    return sent("sales", "sale.created", at, sale_id=sale_id, **{**MONEY, **fields})


def counted(
    *records: tuple[str, bytes],
    rules: Rules = RULES,
    scope: Scope = OVERALL,
    basis: str = PERIOD,
    window: Window = DAY,
    timestamp_ms: int = NOW,
    until_ms: int = NOW,
) -> Any:
    counter = LeftOuts(rules, Funnel(), WEEK_MS, WEEK_MS, 30 * DAY_MS)
    for offset, (topic, value) in enumerate(records):
        counter.add(topic, 0, offset, value, timestamp_ms)
    return left_out(counter.items(basis, until_ms), scope, window)


def here(*records: tuple[str, bytes], **how: Any) -> Mapping[tuple[str, str], int]:
    found: Mapping[tuple[str, str], int] = counted(*records, **how).counts
    return found


# ----------------------------------------------------------------------------- what counts


def test_events_that_count_leave_nothing_out() -> None:
    records = [
        lead(),
        sale(lead_id="l"),
        sent("stage-changes", "lead.stage_changed", lead_id="l", to_stage="mql"),
        sent("clicks", "click.recorded", click_id="k", channel="seo"),
        sent("costs", "cost.snapshot", reported_at="2026-03-05T12:00:00Z", **ROW, **MONEY),
    ]
    for basis in (PERIOD, COHORT):
        assert [why for _, why in here(*records, basis=basis)] == []


# ----------------------------------------------------------------------------- bots, tests


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (sent("impressions", "impression.served", channel="seo", is_bot=True), "impressions"),
        (sent("clicks", "click.recorded", channel="seo", is_bot=True), "clicks"),
        (sent("clicks", "click.recorded", channel="seo", is_bot=True, click_id="k"), "clicks"),
        (
            sent(
                "visits", "visit.started", channel="seo", is_bot=True, visit_id="w", visitor_id="v"
            ),
            "visits",
        ),
    ],
)
def test_bots_are_left_out(record: tuple[str, bytes], what: str) -> None:
    assert here(record, scope=SEO) == {(what, "of bots"): 1}


def test_test_events_are_left_out() -> None:
    assert here(lead(test=True), scope=SEO) == {("leads", "test events"): 1}


# ----------------------------------------------------------------------------- clicks


def test_voided_click_and_second_click_of_an_id_are_left_out() -> None:
    click = sent("clicks", "click.recorded", click_id="k", channel="seo")
    void = sent("clicks", "click.voided", click_id="k")
    assert here(click, click, void, scope=SEO) == {
        ("clicks", "voided"): 1,
        ("clicks", "duplicates: the same click_id again"): 1,
    }


# ----------------------------------------------------------------------------- impressions


def test_second_impression_of_an_id_is_left_out_where_impressions_are_deduplicated() -> None:
    first = sent("impressions", "impression.served", impression_id="i", channel="seo")
    other = sent("impressions", "impression.served", "13:00", impression_id="i", channel="seo")
    bot = sent("impressions", "impression.served", impression_id="j", channel="seo", is_bot=True)
    assert here(first, other, first, bot, scope=SEO, rules=DEDUP) == {
        ("impressions", "duplicates: the same impression_id again"): 2,
        ("impressions", "of bots"): 1,
    }
    assert here(first, other, first, bot, scope=SEO) == {("impressions", "of bots"): 1}


# ----------------------------------------------------------------------------- leads


def test_invalidated_lead_is_left_out_of_the_window_of_its_creation_with_the_reason() -> None:
    void = sent("leads", "lead.invalidated", "2026-03-06T00:00:00Z", lead_id="l", reason="spam")
    moved = sent("stage-changes", "lead.stage_changed", lead_id="l", to_stage="mql")
    assert here(lead(), void, moved, scope=SEO) == {
        ("leads", "invalidated: spam"): 1,
        ("stage changes", "of invalidated leads"): 1,
    }


def test_second_creation_of_a_lead_is_left_out_whatever_it_says() -> None:
    again = lead(at="13:00", channel="email")
    found = {("leads", "duplicates: the same lead_id again"): 1}
    assert here(lead(), again, scope=SEO) == found
    assert here(again, lead(), scope=SEO) == found
    assert here(lead(), lead(), lead(), scope=SEO) == {
        ("leads", "duplicates: the same lead_id again"): 2
    }


def test_lead_that_was_merged_is_left_out_where_it_counts_now() -> None:
    merged = sent("leads", "lead.merged", lead_id="l", into_lead_id="m")
    records = (lead("l", "11:00", channel="email"), lead("m", channel="seo"), merged)
    # The survivor counts by the earlier creation.
    assert here(*records, scope=Scope("email", None)) == {("leads", "merged into another lead"): 1}
    assert here(*records, scope=SEO) == {}


def test_lead_without_a_channel_is_left_out_of_the_one_of_its_click() -> None:
    click = sent("clicks", "click.recorded", click_id="k", channel="seo")
    nameless = lead(channel=None, click_id="k")
    void = sent("leads", "lead.invalidated", lead_id="l", reason="bot")
    assert here(click, nameless, void, scope=SEO) == {("leads", "invalidated: bot"): 1}


def test_repeated_stage_change_is_left_out() -> None:
    moved = sent("stage-changes", "lead.stage_changed", lead_id="l", to_stage="mql")
    assert here(lead(), moved, moved) == {("stage changes", "duplicates: the same event again"): 1}


# ----------------------------------------------------------------------------- sales


def test_voided_sale_is_left_out_of_the_channel_of_its_lead() -> None:
    void = sent("sales", "sale.voided", sale_id="s", reason="typo")
    for basis in (PERIOD, COHORT):
        found = here(lead(), sale(lead_id="l"), void, scope=SEO, basis=basis)
        assert found == {("sales", "voided: typo"): 1}


def test_sale_that_does_not_stand_is_left_out_of_its_cohort_only() -> None:
    gone = sent("sales", "sale.cancelled", sale_id="s")
    records = (lead(), sale(lead_id="l"), gone)
    assert here(*records, scope=SEO) == {}
    found = {("sales", "cancelled or refunded in full"): 1}
    assert here(*records, scope=SEO, basis=COHORT) == found


def test_sale_without_a_known_lead_is_in_no_cohort() -> None:
    found = counted(sale(lead_id="nobody"), scope=SEO, basis=COHORT)
    assert found.counts == {}
    assert found.elsewhere == {("sales", "of no lead that is known and valid"): 1}


def test_on_the_cohort_basis_a_sale_is_left_out_where_its_lead_was_created() -> None:
    void = sent("sales", "sale.voided", sale_id="s")
    later = "2026-03-20T00:00:00Z"
    records = (lead(), sale(at=later, lead_id="l"), void)
    now = instant_ms("2026-03-21T00:00:00Z")
    assert here(*records, basis=COHORT, timestamp_ms=now) == {("sales", "voided"): 1}
    assert here(*records, basis=PERIOD, timestamp_ms=now) == {}


# ----------------------------------------------------------------------------- parked


def test_what_waits_for_its_lead_or_sale_is_parked_in_no_scope_that_one_knows() -> None:
    moved = sent("stage-changes", "lead.stage_changed", lead_id="l", to_stage="mql")
    refund = sent("sales", "sale.refunded", sale_id="s", refund_id="r", **MONEY)
    found = counted(moved, refund, scope=SEO)
    assert found.counts == {}
    assert found.elsewhere == {
        ("stage changes", "changes parked: their lead has not come yet"): 1,
        ("sales", "changes parked: their sale has not come yet"): 1,
    }
    assert here(moved, refund) == found.elsewhere


def test_orphan_is_told_by_its_reject_and_not_parked_any_more() -> None:
    moved = sent("stage-changes", "lead.stage_changed", lead_id="l", to_stage="mql")
    assert here(moved, until_ms=NOW + WEEK_MS) != {}
    assert here(moved, until_ms=NOW + WEEK_MS + 1) == {}


# ----------------------------------------------------------------------------- rows


def row(type_name: str = "cost.snapshot", reported: int = 6, **fields: object) -> tuple[str, bytes]:
    reported_at = f"2026-03-{reported:02}T00:00:00Z"
    money = MONEY if type_name == "cost.snapshot" else {}
    return sent("costs", type_name, reported_at=reported_at, **ROW, **money, **fields)


def test_older_rows_of_a_key_are_replaced() -> None:
    found = {("cost rows", "replaced by a newer row"): 2}
    assert here(row(reported=5), row(reported=6), row(reported=4), scope=SEO) == found


def test_deleted_rows_are_told_as_such() -> None:
    found = {("cost rows", "deleted by their source"): 1}
    assert here(row(reported=5), row("cost.deleted")) == found
    assert here(row("cost.deleted")) == {}


def test_row_of_a_time_to_come_is_partly_out() -> None:
    early = row(reported=5, as_of="2026-03-05T12:00:00Z")
    noon = instant_ms("2026-03-05T12:00:00Z")
    why = "partly still to come: such a row counts minute by minute"
    assert here(early, until_ms=noon - 1) == {("cost rows", why): 1}
    assert here(early, until_ms=noon) == {}


def test_row_is_told_in_every_window_that_it_touches() -> None:
    records = (row(reported=5), row(reported=6))
    hour = Window("1h", DAY.start_minute, (DAY.start_minute or 0) + 60)
    before = Window("1d", (DAY.start_minute or 0) - 1440, DAY.start_minute)
    assert here(*records, window=hour) != {}
    assert here(*records, window=LIFETIME_WINDOW) != {}
    assert here(*records, window=before) == {}


def test_report_rows_are_impressions_or_clicks() -> None:
    def report(reported_at: str) -> tuple[str, bytes]:
        fields = {**ROW, "count": 7, "reported_at": reported_at}
        return sent("clicks", "clicks.reported", "12:00", **fields)

    rows = (report("2026-03-06T00:00:00Z"), report("2026-03-05T12:00:00Z"))
    assert here(*rows, scope=SEO) == {("clicks", "replaced by a newer row"): 1}


def test_cost_is_known_up_to_the_latest_live_row() -> None:
    counter = LeftOuts(Rules(), Funnel(), WEEK_MS, WEEK_MS, 30 * DAY_MS)
    for offset, (topic, value) in enumerate([row(reported=6), row("cost.deleted", reported=7)]):
        counter.add(topic, 0, offset, value, NOW)
        until = counter.cost_reports().complete_until_minute("seo")
        assert until == (DAY.end_minute if offset == 0 else None)


# ----------------------------------------------------------------------------- windows, scopes


def test_window_is_half_open() -> None:
    end_ms = START + DAY_MS
    at = [START - 1, START, end_ms - 1, end_ms]
    items = [Item("leads", str(n), ms, ms, "seo", "-") for n, ms in enumerate(at)]
    assert {why for _, why in left_out(items, SEO, DAY).counts} == {"1", "2"}


@pytest.mark.parametrize(
    ("channel", "campaign_id", "scope", "is_in"),
    [
        (None, None, OVERALL, True),
        ("seo", "c", OVERALL, True),
        ("seo", "c", SEO, True),
        ("seo", "c", Scope("seo", "c"), True),
        ("seo", "d", Scope("seo", "c"), False),
        ("email", "c", SEO, False),
        (None, None, SEO, None),
    ],
)
def test_what_has_no_known_channel_is_in_the_whole_only(
    channel: str | None, campaign_id: str | None, scope: Scope, is_in: bool | None
) -> None:
    assert is_of_scope(channel, campaign_id, scope) is is_in


def test_refused_records_and_tombstones_are_passed_over() -> None:
    counter = LeftOuts(Rules(), Funnel(), WEEK_MS, WEEK_MS, 30 * DAY_MS)
    counter.add("leads", 0, 0, b"{", NOW)
    counter.add("costs", 0, 0, None, NOW)
    assert list(counter.items(PERIOD, NOW)) == []


# ----------------------------------------------------------------------------- topics


def test_only_the_topics_of_the_facts_are_told_of() -> None:
    assert topics_of({"clicks", "impressions"}) == {"clicks", "impressions"}
    assert topics_of({"cost", "leads"}) == {"costs", "leads"}
    assert topics_of({"stage_entered.mql"}) == {"stage-changes", "leads", "sales"}
    assert topics_of({"revenue_net", "cost"}) == {"sales", "costs"}


def test_impressions_are_read_only_for_what_is_made_of_them() -> None:
    assert topics_to_read(frozenset({"clicks", "costs"})) == {"clicks", "costs"}
    assert topics_to_read(frozenset({"costs", "leads"})) == {
        *("costs", "clicks", "leads", "stage-changes", "sales")
    }
