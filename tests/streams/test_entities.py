"""What the entities of several shards make of events that concern several of them."""

from collections import Counter

from kpis.facts import COHORT, PERIOD, Scope
from kpis.ledger import Cause
from streams.messages import Delta, shard_of_scope
from streams.settings import load
from tests.streams.entity_shards import EntityShards
from tests.streams.one_shard import NOW_MS

DAY_MS = 86_400_000
MINUTE = NOW_MS // 60_000


def event(**fields: object) -> dict[str, object]:
    told = {"event_id": "e", "source": "/test", "occurred_at": "2026-03-05T11:59:00Z"}
    return told | fields


def lead(lead_id: str, **fields: object) -> dict[str, object]:
    told = {"event_id": f"l-{lead_id}", "lead_id": lead_id, "channel": "google_ads"}
    return event(**(told | fields))


def sale(sale_id: str, **fields: object) -> dict[str, object]:
    told = {"event_id": f"s-{sale_id}", "sale_id": sale_id, "amount": "10", "currency": "EUR"}
    return event(**(told | fields))


def merged(lead_id: str, into: str, **fields: object) -> dict[str, object]:
    told = {"type": "lead.merged", "lead_id": lead_id, "into_lead_id": into}
    return event(**(told | fields))


def to_come(**fields: object) -> dict[str, object]:
    return bill(period_start="2026-03-06", period_end="2026-03-07", **fields)


def bill(**fields: object) -> dict[str, object]:
    told = {
        "cost_source": "bank",
        "channel": "google_ads",
        "campaign_id": "c",
        "amount": "24",
        "currency": "EUR",
        "period_start": "2026-03-05T00:00:00Z",
        "period_end": "2026-03-06T00:00:00Z",
        "reported_at": "2026-03-05T00:00:00Z",
        "occurred_at": "2026-03-05T00:00:00Z",
    }
    return event(**(told | fields))


def rate(day: str, value: str, **fields: object) -> dict[str, object]:
    return event(base="USD", quote="EUR", date=day, rate=value, **fields)


def causes(shards: EntityShards, fact: str) -> list[tuple[str, int]]:
    return [
        (item.basis, item.cause)
        for _, item in shards.to_merge()
        if isinstance(item, Delta) and item.campaign_id is not None and fact in item.facts
    ]


# ----------------------------------------------------------------------------- mergers


def test_a_merged_lead_counts_once_with_all_its_sales_wherever_it_lives() -> None:
    shards = EntityShards()
    shards.tell("leads", lead("A", channel="seo"), lead("B", occurred_at="2026-03-05T10:00:00Z"))
    shards.tell("leads", lead("C", occurred_at="2026-03-05T11:00:00Z"))
    shards.tell("sales", sale("S1", lead_id="A"), sale("S2", lead_id="B"), sale("S3", lead_id="C"))
    shards.settle()
    assert shards.totals(PERIOD)["leads_gross"] == 3
    shards.tell("leads", merged("B", "A"), merged("C", "B"))
    shards.settle()
    total = shards.totals(PERIOD)
    assert (total["leads_gross"], total["sales"], total["converted"]) == (1, 3, 1)
    # The earliest creation counts: that of B, with its channel.
    assert shards.totals(PERIOD, "google_ads")["leads_gross"] == 1
    assert shards.rows(b"m") == [b"mB"] * 3 + [b"mC"] * 3


def test_a_circle_of_mergers_counts_at_its_smallest_lead() -> None:
    shards = EntityShards()
    names = ("A", "B", "C", "D")
    for name in names:
        shards.tell("leads", lead(name, channel=f"channel_{name.lower()}"))
    # All were created at the same instant: the one with the smallest event id comes first.
    for name, into in zip(names, (*names[1:], names[0]), strict=True):
        shards.tell("leads", merged(name, into))
        shards.settle()
    total = shards.totals(PERIOD)
    assert total["leads_gross"] == 1
    assert shards.totals(PERIOD, "channel_a")["leads_gross"] == 1


def test_a_later_merger_takes_a_lead_and_those_behind_it_elsewhere() -> None:
    shards = EntityShards()
    shards.tell("leads", *(lead(name, channel=f"to_{name.lower()}") for name in "ABCD"))
    shards.tell("leads", event(type="lead.updated", lead_id="D", channel="to_d"))
    shards.tell("leads", event(type="lead.updated", lead_id="A", channel="to_a"))
    shards.tell("leads", merged("C", "B"), merged("B", "A"))
    shards.settle()
    assert shards.totals(PERIOD, "to_a")["leads_gross"] == 1
    shards.tell("sales", sale("S", lead_id="C"))
    shards.settle()
    assert shards.totals(PERIOD, "to_a")["sales"] == 1
    shards.tell("leads", merged("B", "D", event_id="later", recorded_at="2026-03-05T11:59:30Z"))
    shards.settle()
    assert "sales" not in shards.totals(PERIOD, "to_a")
    assert shards.totals(PERIOD, "to_d")["sales"] == 1
    assert shards.totals(PERIOD)["leads_gross"] == 2


def test_a_merger_into_a_lead_that_nobody_created_counts_by_the_creation_it_was_given() -> None:
    shards = EntityShards()
    shards.tell("leads", lead("A"), merged("A", "nobody"))
    shards.settle()
    assert shards.totals(PERIOD, "google_ads")["leads_gross"] == 1
    assert (COHORT, Cause.LEAD_CORRECTED) in causes(shards, "leads_gross")


# ----------------------------------------------------------------------------- clicks


def test_a_lead_without_a_channel_takes_that_of_its_click_whichever_comes_first() -> None:
    click = event(click_id="K", channel="seo", campaign_id="k")
    for first in ("lead", "click"):
        shards = EntityShards()
        for name in (first, "click" if first == "lead" else "lead"):
            if name == "lead":
                shards.tell("leads", event(lead_id="L", click_id="K"))
            else:
                shards.tell("clicks", click)
            shards.settle()
        assert shards.totals(PERIOD, "seo")["leads_gross"] == 1
        assert "leads_gross" not in shards.totals(PERIOD, "unattributed")


def test_an_earlier_click_of_the_same_id_tells_the_lead_anew() -> None:
    shards = EntityShards()
    shards.tell("leads", event(lead_id="L", click_id="K"))
    shards.tell("clicks", event(click_id="K", channel="seo"))
    shards.settle()
    earlier = event(click_id="K", channel="email", occurred_at="2026-03-05T11:00:00Z")
    shards.tell("clicks", earlier)
    shards.settle()
    assert shards.totals(PERIOD, "email")["leads_gross"] == 1
    assert "leads_gross" not in shards.totals(PERIOD, "seo")


def test_a_click_is_forgotten_with_its_questions_and_its_answer_stays() -> None:
    shards = EntityShards()
    shards.tell("leads", event(lead_id="L", click_id="K"), event(lead_id="M", click_id="none"))
    shards.tell("clicks", event(click_id="K", channel="seo"))
    shards.settle()
    assert shards.rows(b"c") == [b"cK", b"cnone"]
    shards.mark(NOW_MS + 7 * DAY_MS + 1)
    shards.settle()
    assert shards.rows(b"c") == [b"cnone"]
    shards.mark(NOW_MS + 7 * DAY_MS + 2)
    shards.settle()
    assert shards.rows(b"c") == []
    assert shards.rows(b"d") == []
    # What was answered goes with the lead, even when it is merged after the click was forgotten.
    shards.tell("leads", lead("N", channel="email"), merged("L", "N"))
    shards.settle()
    assert shards.totals(PERIOD)["leads_gross"] == 2
    assert shards.totals(PERIOD, "seo")["leads_gross"] == 1


def test_a_click_that_begins_anew_leaves_what_the_forgotten_one_counted_and_answered() -> None:
    shards = EntityShards()
    shards.tell("clicks", event(click_id="K", channel="seo"))
    shards.tell("leads", event(lead_id="L", click_id="K"))
    later_ms = NOW_MS + 8 * DAY_MS
    shards.tell("clicks", event(click_id="K", channel="email"), timestamp_ms=later_ms)
    shards.tell("leads", event(lead_id="M", click_id="K"), timestamp_ms=later_ms)
    shards.settle()
    assert shards.totals(PERIOD)["clicks"] == 2
    assert shards.totals(PERIOD, "seo")["leads_gross"] == 1
    assert shards.totals(PERIOD, "email")["leads_gross"] == 1


def test_a_void_makes_a_click_invalid_and_it_still_attributes() -> None:
    shards = EntityShards()
    shards.tell("clicks", event(type="click.voided", click_id="K"))
    shards.tell("leads", event(lead_id="L", click_id="K"))
    shards.settle()
    shards.tell("clicks", event(click_id="K", channel="seo"))
    shards.settle()
    assert shards.totals(PERIOD, "seo") == {
        **shards.totals(PERIOD, "seo"),
        "invalid_clicks": 1,
        "leads_gross": 1,
    }
    assert "clicks" not in shards.totals(PERIOD)


# ----------------------------------------------------------------------------- impressions

DEDUP = load({"LEADPULSE_CONFIG": "", "LEADPULSE_DEDUP_IMPRESSIONS": "true"})


def counted(shards: EntityShards) -> dict[str, int]:
    """Return what became of the impressions, by outcome."""
    counts: Counter[str] = Counter()
    for shard in shards.shards:
        for (topic, outcome), count in shard.tally._events.items():
            assert topic == "impressions"
            counts[outcome] += count
    return dict(counts)


def test_an_impression_with_an_id_counts_once_and_the_first_in_the_common_order_does() -> None:
    shards = EntityShards(settings=DEDUP)
    one = event(impression_id="I", channel="seo", viewable=True)
    shards.tell("impressions", one, one, event(impression_id="J", channel="seo", is_bot=True))
    shards.settle()
    expected = {"impressions": 1, "viewable_impressions": 1, "invalid_impressions": 1}
    assert shards.totals(PERIOD) == expected
    earlier = event(impression_id="I", channel="email", occurred_at="2026-03-05T11:00:00Z")
    shards.tell("impressions", one, earlier)
    shards.settle()
    assert shards.totals(PERIOD, "email") == {"impressions": 1}
    assert shards.totals(PERIOD, "seo") == {"invalid_impressions": 1}
    assert counted(shards) == {"accepted": 2, "duplicate": 2, "conflict": 1}
    assert {cause for _, cause in causes(shards, "impressions")} == {Cause.LATE_EVENT}


def test_an_impression_counts_again_when_its_id_was_forgotten_marked_or_not() -> None:
    for is_marked in (True, False):
        shards = EntityShards(settings=DEDUP)
        one = event(impression_id="I", channel="seo")
        shards.tell("impressions", one)
        shards.settle()
        shards.tell("impressions", one, timestamp_ms=NOW_MS + 7 * DAY_MS - 1)
        shards.settle()
        assert shards.totals(PERIOD) == {"impressions": 1}
        if is_marked:
            shards.mark(NOW_MS + 7 * DAY_MS + 1)
            shards.settle()
            assert shards.rows(b"i") == shards.rows(b"d") == []
        shards.tell("impressions", one, timestamp_ms=NOW_MS + 7 * DAY_MS)
        shards.settle()
        assert shards.totals(PERIOD) == {"impressions": 2}
        shards.tell("impressions", one, timestamp_ms=NOW_MS + 8 * DAY_MS)
        shards.mark(NOW_MS + 14 * DAY_MS)
        shards.settle()
        assert shards.totals(PERIOD) == {"impressions": 2}
        assert shards.rows(b"i") == [b"iI"]
        shards.mark(NOW_MS + 14 * DAY_MS + 1)
        shards.settle()
        assert shards.rows(b"i") == shards.rows(b"d") == []


def test_a_restarted_shard_knows_the_impressions_and_when_to_forget_them() -> None:
    shards = EntityShards(settings=DEDUP)
    one = event(impression_id="I", channel="seo")
    shards.tell("impressions", one)
    shards.settle()
    for number in range(shards.partitions):
        shards.crash(number)
    deadlines = (shard.stage._impressions.deadlines for shard in shards.shards)
    assert [key for of_shard in deadlines for key in of_shard.waiting()] == [b"iI"]
    shards.tell("impressions", one)
    shards.settle()
    assert shards.totals(PERIOD) == {"impressions": 1}
    assert counted(shards) == {"duplicate": 1}
    shards.mark(NOW_MS + 7 * DAY_MS + 1)
    shards.settle()
    assert shards.rows(b"i") == shards.rows(b"d") == []


# ----------------------------------------------------------------------------- money


def test_a_rate_that_comes_late_mends_the_sales_and_bills_of_its_days_only() -> None:
    shards = EntityShards()
    shards.tell("leads", lead("L"))
    shards.tell("sales", sale("S1", lead_id="L", currency="USD"))
    old = "2026-02-01T10:00:00Z"
    shards.tell("sales", sale("S2", lead_id="L", currency="USD", occurred_at=old))
    shards.tell("costs", bill(currency="USD", reported_at="2026-03-06T00:00:00Z"))
    shards.settle()
    total = shards.totals(PERIOD)
    assert total["sales"] == 2
    assert "revenue_gross" not in total
    assert "cost" not in total
    assert total["fx_missing"] == 2 + 1440
    shards.tell("fx-rates", rate("2026-03-04", "0.5"))
    shards.settle()
    total = shards.totals(PERIOD)
    assert (total["revenue_gross"], total["cost"]) == (5_000_000, 12_000_000)
    assert total["fx_missing"] == 1
    assert (PERIOD, Cause.FX_RESTATED) in causes(shards, "revenue_gross")
    assert (COHORT, Cause.FX_RESTATED) in causes(shards, "cost")
    nearer = rate("2026-03-05", "0.25", event_id="nearer")
    shards.tell("fx-rates", nearer, nearer)
    shards.settle()
    assert shards.totals(PERIOD)["revenue_gross"] == 2_500_000
    shards.tell("sales", event(type="sale.voided", sale_id="S1"))
    shards.settle()
    assert shards.rows(b"x")[-1:] == [b"xsS2"]


def test_a_restarted_shard_knows_rates_and_what_they_convert() -> None:
    shards = EntityShards()
    shards.tell("sales", sale("S1", currency="USD"), sale("S2", currency="USD"))
    shards.tell("fx-rates", rate("2026-03-04", "0.5"))
    shards.settle()
    for number in range(shards.partitions):
        shards.crash(number)
    shards.tell("fx-rates", rate("2026-03-05", "0.25"))
    shards.tell("sales", sale("S3", currency="USD", occurred_at="2026-03-04T10:00:00Z"))
    shards.settle()
    assert shards.totals(PERIOD)["revenue_gross"] == 2_500_000 * 2 + 5_000_000


def test_a_refund_in_another_currency_is_rejected_once_now_or_when_its_sale_comes() -> None:
    shards = EntityShards()
    refund = event(
        type="sale.refunded", refund_id="R", sale_id="S", amount="1", currency="USD", event_id="r"
    )
    shards.tell("sales", refund)
    shards.settle()
    assert shards.rejects == []
    shards.tell("sales", sale("S"))
    shards.settle()
    other = {**refund, "refund_id": "R2", "event_id": "r2"}
    shards.tell("sales", refund, other)
    shards.settle()
    reasons = [(reject["reason"], reject["event_id"]) for reject in shards.rejects]
    assert reasons == [("currency_mismatch", "r"), ("currency_mismatch", "r2")]
    assert "refunds" not in shards.totals(PERIOD)


def test_what_is_refunded_beyond_the_amount_is_remarked() -> None:
    shards = EntityShards(partitions=1)
    shards.tell("sales", sale("S"))
    refund = event(type="sale.refunded", refund_id="R", sale_id="S", amount="11", currency="EUR")
    shards.tell("sales", refund)
    shards.settle()
    assert shards.totals(PERIOD)["refunds"] == 10_000_000
    assert shards.shards[0].tally._remarks["over_refund"] == 1


# ----------------------------------------------------------------------------- rows


def test_a_bill_for_a_day_to_come_is_booked_as_its_minutes_come() -> None:
    shards = EntityShards()
    shards.tell("costs", to_come())
    shards.mark(NOW_MS)
    shards.settle()
    assert "cost" not in shards.totals(PERIOD)
    for minutes in (1, 2, 60):
        shards.mark((MINUTE + 12 * 60 + minutes) * 60_000)
        shards.settle()
        assert shards.totals(PERIOD)["cost_records"] == minutes
    assert len(shards.rows(b"a")) == 1
    assert {cause for _, cause in causes(shards, "cost")} == {Cause.LATE_EVENT}
    for number in range(shards.partitions):
        shards.crash(number)
    shards.mark(NOW_MS + 3 * DAY_MS)
    shards.settle()
    assert shards.totals(PERIOD)["cost"] == 24_000_000
    assert shards.totals(COHORT)["cost_records"] == 1440
    assert shards.rows(b"a") == []


def test_a_restated_bill_counts_up_to_the_minute_that_was_booked() -> None:
    shards = EntityShards()
    ahead = {"period_start": "2026-03-05T12:00:00Z", "period_end": "2026-03-05T13:00:00Z"}
    shards.tell("costs", bill(**ahead, amount="60"))
    shards.mark((MINUTE + 30) * 60_000)
    newer = {"reported_at": "2026-03-05T01:00:00Z", "event_id": "newer"}
    shards.settle()
    assert shards.totals(PERIOD)["cost"] == 30_000_000
    shards.tell("costs", bill(**ahead, amount="120", **newer))
    shards.settle()
    assert shards.totals(PERIOD)["cost"] == 60_000_000
    assert (PERIOD, Cause.COST_RESTATED) in causes(shards, "cost")
    shards.mark(NOW_MS + DAY_MS)
    shards.settle()
    assert shards.totals(PERIOD)["cost"] == 120_000_000


def test_a_deleted_bill_is_gone_and_an_older_row_does_not_bring_it_back() -> None:
    shards = EntityShards()
    shards.tell("costs", bill(reported_at="2026-03-05T10:00:00Z"))
    shards.settle()
    minute = MINUTE - 120
    assert shards.reported() == {(n, "google_ads", minute): 1 for n in range(shards.partitions)}
    gone = bill(type="cost.deleted", reported_at="2026-03-05T11:00:00Z", event_id="gone")
    for name in ("amount", "currency"):
        del gone[name]
    shards.tell("costs", gone)
    shards.tell("costs", bill(reported_at="2026-03-05T10:30:00Z", event_id="older"))
    shards.settle()
    assert shards.cells() == {}
    assert shards.reported() == {}
    assert (PERIOD, Cause.COST_RESTATED) in causes(shards, "cost")


# ----------------------------------------------------------------------------- targets


def test_the_newest_target_is_told_to_the_shard_of_its_scope() -> None:
    shards = EntityShards()
    target = {
        "kpi": "leads",
        "channel": "google_ads",
        "campaign_id": "c",
        "period": "month",
        "period_start": "2026-03-01",
    }
    told = {"value": "100", "reported_at": "2026-03-02T00:00:00Z", "event_id": "newer"}
    older = {"value": "90", "reported_at": "2026-03-01T00:00:00Z"}
    shards.tell("targets", event(**target, **told), event(**target, **older))
    shards.settle()
    ((shard, _), known) = next(iter(shards.targets().items()))
    assert len(shards.targets()) == 1
    assert shard == shard_of_scope(Scope("google_ads", "c"), shards.partitions)
    assert known.target is not None
    assert known.target.value_micros == 100_000_000
    removed = {"type": "target.removed", "reported_at": "2026-03-03T00:00:00Z", "event_id": "gone"}
    shards.tell("targets", event(**target, **removed))
    shards.settle()
    assert next(iter(shards.targets().values())).target is None


# ----------------------------------------------------------------------------- marks


def test_the_mark_that_merge_is_told_has_made_every_hop() -> None:
    shards = EntityShards()
    shards.mark(NOW_MS)
    rounds = 0
    while not any(envelope.marks for envelope in shards.merged):
        for number in range(shards.partitions):
            shards.read(number)
        for number in range(shards.partitions):
            shards.commit(number)
        rounds += 1
    assert rounds == 1 + 4
    shards.settle()
    assert {envelope.marks for envelope in shards.merged if envelope.marks} == {(NOW_MS,)}


def test_an_event_without_its_lead_is_an_orphan_when_all_that_arrived_before_was_read() -> None:
    shards = EntityShards()
    shards.tell("leads", event(type="lead.invalidated", lead_id="L", reason="spam"))
    shards.tell("sales", event(type="sale.voided", sale_id="S"))
    shards.settle()
    assert sum(shard.tally.parked for shard in shards.shards) == 2
    for number in range(shards.partitions):
        shards.crash(number)
    assert sum(shard.tally.parked for shard in shards.shards) == 2
    shards.mark(NOW_MS + 7 * DAY_MS)
    shards.settle()
    assert shards.rejects == []
    shards.mark(NOW_MS + 7 * DAY_MS + 1)
    shards.settle()
    assert sorted(reject["reason"] for reject in shards.rejects) == ["orphan_lead", "orphan_sale"]
    assert sum(shard.tally.parked for shard in shards.shards) == 0
    assert all(shards.rows(prefix) == [] for prefix in (b"l", b"s", b"d"))
