"""Each type of event is read with all of its fields, and with none that it may leave out."""

import hashlib
from collections.abc import Callable
from datetime import date
from zoneinfo import ZoneInfo

import msgspec
import pytest

from kpis.events import (
    ClickRecorded,
    ClickVoided,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    Event,
    FxRateSet,
    ImpressionServed,
    LeadCreated,
    LeadDisqualified,
    LeadInvalidated,
    LeadMerged,
    LeadRequalified,
    LeadStageChanged,
    LeadUpdated,
    SaleAmended,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
    SaleVoided,
    TargetRemoved,
    TargetSet,
    VisitStarted,
)
from kpis.instants import DAY_MS, HOUR_MS, date_ms, instant_ms
from kpis.reading import Rules
from tests.kpis.records import (
    ABSENT,
    NOON,
    NOON_MS,
    OPTIONAL,
    PARIS,
    REQUIRED,
    RULES,
    a_record,
    event_of,
    reading_of,
    refusal_of,
    without_digest,
)


@pytest.mark.parametrize("type_name", REQUIRED)
def test_required_fields_suffice(type_name: str) -> None:
    reading = reading_of(type_name)
    envelope = reading.event.envelope
    assert (envelope.event_id, envelope.source) == ("e-1", "/crm")
    recorded_ms = NOON_MS if "recorded_at" in REQUIRED[type_name] else None
    assert (envelope.occurred_ms, envelope.recorded_ms) == (NOON_MS, recorded_ms)
    assert envelope.digest == hashlib.sha256(a_record(type_name)).digest()[:8]
    assert (reading.is_test, reading.unknown_fields) == (False, 0)


@pytest.mark.parametrize("type_name", REQUIRED)
def test_null_or_empty_optional_field_is_absent(type_name: str) -> None:
    optional = {"recorded_at", "test", "schema_version", *OPTIONAL[type_name]}
    optional -= REQUIRED[type_name].keys()
    for nothing in (None, ""):
        reading = reading_of(type_name, **dict.fromkeys(optional, nothing))
        bare = reading_of(type_name)
        assert without_digest(reading.event) == without_digest(bare.event)
        assert reading.unknown_fields == 0


def test_impression_is_read_with_every_field() -> None:
    event = event_of(
        "impression.served",
        Rules(dedup_impressions=True),
        impression_id=" i ",
        channel=" SEO ",
        campaign_id=" Spring ",
        viewable=True,
        is_bot=True,
        visitor_id="v",
    )
    place = ("seo", "Spring")
    assert event == ImpressionServed(event.envelope, "i", *place, viewable=True, is_bot=True)


def test_id_of_an_impression_is_checked_and_kept_only_where_impressions_are_deduplicated() -> None:
    assert event_of("impression.served", impression_id="i").impression_id is None
    for rules in (RULES, Rules(dedup_impressions=True)):
        assert event_of("impression.served", rules).impression_id is None
        assert refusal_of("impression.served", rules, impression_id="i" * 257).reason == "bad_id"


def test_click_without_dimensions_is_unattributed() -> None:
    event = event_of("click.recorded")
    assert event == ClickRecorded(event.envelope, None, "unattributed", "-", is_bot=False)


def test_lead_keeps_what_it_does_not_declare_apart_from_the_unattributed() -> None:
    event = event_of("lead.created")
    assert event == LeadCreated(event.envelope, "l-1", None, None, None, None, "lead")


def test_lead_is_read_with_every_field() -> None:
    event = event_of(
        "lead.created",
        channel="Google_Ads",
        campaign_id="c",
        click_id=" k ",
        visitor_id="v",
        initial_stage="mql",
    )
    assert event == LeadCreated(event.envelope, "l-1", "google_ads", "c", "k", "v", "mql")


def test_invalidation_is_read() -> None:
    event = event_of("lead.invalidated", reason="bot")
    assert event == LeadInvalidated(event.envelope, "l-1", "bot")


def test_stage_may_go_by_an_alias() -> None:
    rules = Rules(stage_aliases={"Marketing Qualified": "mql"})
    event = event_of(
        "lead.stage_changed",
        rules,
        to_stage="Marketing Qualified",
        from_stage="lead",
        reason="x" * 300,
    )
    assert event == LeadStageChanged(event.envelope, "l-1", "mql", "lead", "x" * 256)


def test_lead_update_keeps_what_it_does_not_name_apart() -> None:
    bare = event_of("lead.updated")
    assert bare == LeadUpdated(bare.envelope, "l-1", None, None)
    full = event_of("lead.updated", channel=" SEO", campaign_id="c")
    assert full == LeadUpdated(full.envelope, "l-1", "seo", "c")


@pytest.mark.parametrize(
    ("type_name", "kind", "ids"),
    [
        ("click.voided", ClickVoided, ("k-1",)),
        ("lead.disqualified", LeadDisqualified, ("l-1",)),
        ("lead.requalified", LeadRequalified, ("l-1",)),
        ("sale.cancelled", SaleCancelled, ("s-1",)),
        ("sale.voided", SaleVoided, ("s-1",)),
    ],
)
def test_reason_is_kept_and_cut(
    type_name: str, kind: Callable[..., Event], ids: tuple[str, ...]
) -> None:
    bare = event_of(type_name)
    assert bare == kind(bare.envelope, *ids, None)
    told = event_of(type_name, reason="x" * 300)
    assert told == kind(told.envelope, *ids, "x" * 256)


def test_merge_is_read() -> None:
    event = event_of("lead.merged", into_lead_id=" L-1 ")
    assert event == LeadMerged(event.envelope, "l-1", "L-1")


def test_visit_is_read_with_every_field() -> None:
    bare = event_of("visit.started")
    assert bare == VisitStarted(bare.envelope, "v-1", "unattributed", "-", is_bot=False)
    full = event_of("visit.started", channel="SEO", campaign_id="c", is_bot=True)
    assert full == VisitStarted(full.envelope, "v-1", "seo", "c", is_bot=True)


def test_sale_is_read_with_every_field() -> None:
    event = event_of("sale.created", lead_id="l-1", currency="USD", kind="repeat", cost_of_goods=3)
    assert event == SaleCreated(
        event.envelope, "s-1", "l-1", 12_500_000, "USD", "repeat", 3_000_000
    )


def test_amendment_and_refund_are_read() -> None:
    amended = event_of("sale.amended", amount=0, currency="JPY")
    assert amended == SaleAmended(amended.envelope, "s-1", 0, "JPY")
    assert amended.envelope.recorded_ms == NOON_MS
    refunded = event_of("sale.refunded", amount="0.000001", currency="CHF")
    assert refunded == SaleRefunded(refunded.envelope, "r-1", "s-1", 1, "CHF")


def test_cost_row_is_read_with_every_field() -> None:
    event = event_of(
        "cost.snapshot",
        account_id="a",
        campaign_id="c",
        ad_group_id="g",
        ad_id="d",
        cost_type="fee",
        period_start="2026-03-01T00:00:00+01:00",
        period_end="2026-03-31",
        time_zone="Europe/Paris",
        as_of="2026-03-05T10:00:00Z",
        credit=True,
        amount=-1.5,
        currency="GBP",
    )
    assert event == CostSnapshot(
        event.envelope,
        cost_source="bills",
        account_id="a",
        channel="google_ads",
        campaign_id="c",
        ad_group_id="g",
        ad_id="d",
        cost_type="fee",
        start_ms=date_ms("2026-03-01", PARIS),
        end_ms=date_ms("2026-03-31", PARIS),
        as_of_ms=NOON_MS - 2 * HOUR_MS,
        amount_micros=-1_500_000,
        currency="GBP",
        credit=True,
        reported_ms=NOON_MS,
    )


ROW_KEY = {
    "account_id": "a",
    "channel": "radio",
    "campaign_id": "c",
    "ad_group_id": "g",
    "ad_id": "d",
    "cost_type": "fee",
    "time_zone": "Europe/Paris",
    "credit": True,
}


@pytest.mark.parametrize("rules", [RULES, Rules(allow_unknown_channels=False)])
def test_deletion_has_the_key_of_the_row_it_deletes(rules: Rules) -> None:
    row, deletion = (event_of(name, rules, **ROW_KEY) for name in ("cost.snapshot", "cost.deleted"))
    key = set(CostDeleted.__struct_fields__) - {"envelope"}
    assert key < set(CostSnapshot.__struct_fields__)
    assert {name: getattr(row, name) for name in key} == {
        name: getattr(deletion, name) for name in key
    }


def test_deletion_may_repeat_the_whole_row() -> None:
    reading = reading_of("cost.deleted", amount="x", currency="x", as_of="x")
    assert reading.unknown_fields == 0
    assert without_digest(reading.event) == without_digest(event_of("cost.deleted"))


@pytest.mark.parametrize("kind", ["impressions.reported", "clicks.reported"])
def test_report_row_is_read(kind: str) -> None:
    event = event_of(kind, count=10**12)
    assert event == CountsReported(
        event.envelope,
        kind=kind,
        channel="google_ads",
        campaign_id="-",
        ad_group_id="",
        ad_id="",
        start_ms=instant_ms("2026-03-01T00:00:00Z"),
        end_ms=instant_ms("2026-03-02T00:00:00Z"),
        as_of_ms=instant_ms("2026-03-02T00:00:00Z"),
        count=10**12,
        reported_ms=NOON_MS,
    )


def test_dates_are_read_in_the_reporting_zone_unless_the_row_names_one() -> None:
    rules = Rules(time_zone=PARIS)
    assert event_of("cost.snapshot", rules).start_ms == date_ms("2026-03-01", PARIS)
    named = event_of("cost.snapshot", rules, time_zone="America/New_York")
    assert named.start_ms == instant_ms("2026-03-01T00:00:00-05:00")


BEFORE, WITHIN, AFTER = "2026-02-28T23:59:59.999Z", NOON, "2026-03-05T23:00:00Z"
START, END = "2026-03-01T00:00:00Z", "2026-03-05T18:00:00Z"


@pytest.mark.parametrize(
    ("cost_type", "reported_at", "declared", "as_of"),
    [
        #  period   START ----------- WITHIN ------- END
        #  BEFORE              reported               AFTER
        ("media", WITHIN, None, WITHIN),
        ("media", AFTER, None, END),
        ("media", START, None, START),
        ("media", BEFORE, None, END),
        ("fee", WITHIN, None, END),
        ("fee", BEFORE, None, END),
        *((kind, WITHIN, None, END) for kind in ("labour", "tool", "content", "other")),
        #  what is declared holds, but not beyond the end
        *((kind, WITHIN, START, START) for kind in ("media", "fee")),
        *((kind, BEFORE, WITHIN, WITHIN) for kind in ("media", "fee")),
        *(
            (kind, START, "2026-03-05T17:00:00Z", "2026-03-05T17:00:00Z")
            for kind in ("media", "fee")
        ),
        *((kind, WITHIN, AFTER, END) for kind in ("media", "fee")),
        *((kind, AFTER, "2099-01-01T00:00:00Z", END) for kind in ("media", "fee")),
    ],
)
def test_cost_counts_up_to_as_of(
    cost_type: str, reported_at: str, declared: str | None, as_of: str
) -> None:
    event = event_of(
        "cost.snapshot",
        cost_type=cost_type,
        period_start=START,
        period_end=END,
        reported_at=reported_at,
        as_of=declared,
    )
    assert event.as_of_ms == instant_ms(as_of)
    assert event.start_ms <= event.as_of_ms <= event.end_ms


@pytest.mark.parametrize(
    ("reported_at", "declared", "as_of"),
    [
        (WITHIN, None, WITHIN),
        (AFTER, None, END),
        (BEFORE, None, END),
        (BEFORE, WITHIN, WITHIN),
        (START, END, END),
    ],
)
def test_report_row_counts_up_to_as_of(reported_at: str, declared: str | None, as_of: str) -> None:
    event = event_of(
        "clicks.reported",
        period_start=START,
        period_end=END,
        reported_at=reported_at,
        as_of=declared,
    )
    assert event.as_of_ms == instant_ms(as_of)


def test_four_hundred_days_are_counted_on_the_clocks_of_the_zone() -> None:
    #  the period gains an hour on 25 October and loses none: 400 days and 1 hour of 60 minutes
    event = event_of(
        "cost.snapshot",
        Rules(time_zone=PARIS),
        period_start="2025-10-01",
        period_end="2026-11-05",
        as_of="2025-10-02T00:00:00Z",
    )
    assert event.end_ms - event.start_ms == 400 * DAY_MS + HOUR_MS


def test_target_is_read_with_every_field() -> None:
    event = event_of(
        "target.set",
        Rules(time_zone=PARIS, stage_aliases={"Qualified": "mql"}),
        kpi="stage_entered",
        stage="Qualified",
        channel="SEO",
        campaign_id="c",
        value=12.5,
        profile="business_days",
    )
    assert event == TargetSet(
        event.envelope,
        kpi="stage_entered.mql",
        channel="seo",
        campaign_id="c",
        period="month",
        start_minute=instant_ms("2026-03-01T00:00:00+01:00") // 60_000,
        end_minute=instant_ms("2026-04-01T00:00:00+02:00") // 60_000,
        value_micros=12_500_000,
        profile="business_days",
        reported_ms=NOON_MS,
    )


def test_target_is_for_all_and_linear_unless_it_says_otherwise() -> None:
    event = event_of("target.set")
    assert (event.channel, event.campaign_id, event.profile) == (None, None, "linear")
    assert event_of("target.set", channel="seo").campaign_id is None


@pytest.mark.parametrize(
    ("period", "first", "end"),
    [
        ("day", "2026-03-29", "2026-03-30"),
        ("week", "2026-03-23", "2026-03-30"),
        ("month", "2026-02-01", "2026-03-01"),
        ("quarter", "2026-10-01", "2027-01-01"),
    ],
)
def test_target_period_follows_the_reporting_calendar(period: str, first: str, end: str) -> None:
    event = event_of("target.set", Rules(time_zone=PARIS), period=period, period_start=first)
    assert (event.start_minute, event.end_minute) == (
        date_ms(first, PARIS) // 60_000,
        date_ms(end, PARIS) // 60_000,
    )


def test_target_for_a_day_that_the_zone_leaves_out_is_refused() -> None:
    # Samoa went from 29 to 31 December 2011.
    rules = Rules(time_zone=ZoneInfo("Pacific/Apia"))
    changes = {"period": "day", "period_start": "2011-12-30"}
    refused = refusal_of("target.set", rules, **changes)
    assert (refused.reason, refused.field) == ("bad_period", "period_start")
    assert event_of("target.set", rules, **(changes | {"period_start": "2011-12-31"}))


@pytest.mark.parametrize(
    "kpi",
    [
        *("leads", "sales", "new_customers", "stage_entered.mql", "click_to_lead", "conversion"),
        *("stage_conversion.lead.mql", "purchase_cycle_mean", "roi", "roas", "ctr"),
    ],
)
def test_target_that_is_no_money_needs_no_currency(kpi: str) -> None:
    assert event_of("target.set", kpi=kpi, currency=ABSENT).kpi == kpi
    assert event_of("target.set", kpi=kpi, currency="ZZZ").kpi == kpi
    assert event_of("target.removed", kpi=kpi).kpi == kpi


@pytest.mark.parametrize("kpi", ["cost", "revenue_net", "cpl", "cac", "cpm", "revenue_per_lead"])
def test_target_in_money_is_in_the_reporting_currency(kpi: str) -> None:
    rules = Rules(currency="CHF")
    assert event_of("target.set", rules, kpi=kpi, currency="CHF").kpi == kpi
    assert refusal_of("target.set", rules, kpi=kpi, currency="EUR").reason == "unsupported_currency"


def test_stages_of_targets_are_those_of_the_funnel() -> None:
    rules = Rules(funnel=("lead", "demo", "customer"))
    for kpi in ("stage_entered.demo", "stage_conversion.lead.demo"):
        assert event_of("target.set", rules, kpi=kpi).kpi == kpi
    for kpi in ("stage_entered.mql", "stage_conversion.lead.mql"):
        assert refusal_of("target.set", rules, kpi=kpi).reason == "bad_value"


def test_removal_has_the_key_of_the_target_it_removes() -> None:
    changes = {"kpi": "cost", "channel": "seo", "campaign_id": "c", "period": "quarter"}
    changes["period_start"] = "2026-04-01"
    target = event_of("target.set", **changes, currency="EUR")
    # It may repeat the whole target, which is not looked at.
    reading = reading_of("target.removed", **changes, value="x", currency="x", profile="x")
    removal = reading.event
    assert isinstance(removal, TargetRemoved)
    assert reading.unknown_fields == 0
    for name in set(TargetRemoved.__struct_fields__) - {"envelope"}:
        assert getattr(removal, name) == getattr(target, name)


@pytest.mark.parametrize(
    ("rate", "parts"),
    [
        ("0.92", (23, 25)),
        (1, (1, 1)),
        (0.5, (1, 2)),
        ("1000000", (10**6, 1)),
        ("1000000.000000000000", (10**6, 1)),
        ("0.000000000001", (1, 10**12)),
        ("999999.999999999999", (10**18 - 1, 10**12)),
    ],
)
def test_rate_is_exact_in_lowest_terms(rate: object, parts: tuple[int, int]) -> None:
    event = event_of("fxrate.set", rate=rate)
    assert event == FxRateSet(event.envelope, "USD", "EUR", date(2026, 3, 2).toordinal(), *parts)
    encoded = msgspec.msgpack.encode(event)
    assert msgspec.msgpack.decode(encoded, type=Event) == event


def test_rate_may_be_between_any_two_currencies() -> None:
    event = event_of("fxrate.set", base="JPY", quote="CHF")
    assert (event.base, event.quote) == ("JPY", "CHF")
