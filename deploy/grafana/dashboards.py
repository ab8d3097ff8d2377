#!/usr/bin/env python3
"""Writes the dashboards; `make dashboards`, or with a directory as the only argument."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kpi_panels import (
    COMPLETE,
    LAG,
    LATE,
    NONE_IS_GOOD,
    PACE,
    PARKED,
    REFUSED,
    SILENT_COST,
    SLOW_COMMIT,
    SLOW_PUBLISHING,
    UP,
    basis,
    campaign,
    channel,
    columns,
    compared,
    currency,
    job,
    kpi_lines,
    kpi_lines_by,
    kpi_tile,
    window,
)
from panels import Column, Json, Query, Row, bars, dashboard, heat, lines, table, tile
from queries import (
    CAMPAIGN,
    CAMPAIGNS,
    CHANNEL,
    CHANNELS,
    WHOLE,
    Scope,
    behind,
    counted,
    firing,
    firing_count,
    gauge,
    late_share,
    number,
    or_gap,
    outcomes,
    per_second,
    quantile,
    rejected_share,
    since_report,
)
from words import TITLES, about

HERE = Path(__file__).parent
TABLE = ("cost", "leads", "cpl", "cac", "roi", "conversion")
MONEY_TILES = ("cost", "leads", "cpl", "cac", "roi", "revenue_net", "sales", "conversion")
VOLUME_TILES = ("impressions", "clicks", "ctr", "cpc", "cpm", "click_to_lead")
TARGET_WINDOWS = "today|month"
LINKED = "${datasource:queryparam}&${job:queryparam}&${window:queryparam}&${basis:queryparam}&${__url_time_range}"
CHANNEL_LINK = {
    "title": "Show this channel",
    "url": f"/d/leadpulse-channel?var-channel=${{__value.raw:percentencode}}&{LINKED}",
}
CAMPAIGN_LINK = {
    "title": "Show this campaign",
    "url": f"/d/leadpulse-campaign?${{channel:queryparam}}&var-campaign=${{__value.raw:percentencode}}&{LINKED}",
}


# ----------------------------------------------------------------------------- shared rows


def quality(scope: Scope) -> Row:
    """Return how far the numbers above can be trusted."""
    parts = [
        kpi_tile("cost_coverage", scope),
        reported_tile("" if scope is WHOLE else "$channel"),
        kpi_tile("unattributed_share", WHOLE, basis="period"),
        kpi_tile("invalid_click_share", scope, basis="period"),
        kpi_tile("fx_missing", scope),
        late_tile(),
        refused_tile(),
        complete_tile(),
    ]
    return Row("How far to trust these numbers", 4, [(3, one) for one in parts])


def reported_tile(channel_: str = "") -> Json:
    """Return the age of the newest cost record of a channel, or of the one with the oldest."""
    matcher = f', channel="{channel_}"' if channel_ else ""
    return tile(
        "Last cost report",
        "How long ago the newest cost record was reported; of several channels, of the most silent one. No data where no "
        "cost has ever been reported. Formula: now - cost_last_reported.",
        Query(or_gap(since_report(matcher))),
        unit="s",
        steps=SILENT_COST,
    )


def late_tile() -> Json:
    """Return the share of late events."""
    return tile(
        "Late events",
        "Which share of the accepted events of the time shown arrived more than two hours after they "
        "happened; they are counted where they belong and change numbers that looked settled. "
        "Formula: late / accepted.",
        Query(late_share(), at_once=True),
        unit="percentunit",
        decimals=1,
        steps=LATE,
    )


def refused_tile() -> Json:
    """Return the share of rejected events."""
    return tile(
        "Refused events",
        "Which share of the events read in the time shown could not be understood and is missing from "
        "the numbers; the reasons are on the dashboard Operations. Formula: rejected / read, late ones counted once.",
        Query(rejected_share(), at_once=True),
        unit="percentunit",
        decimals=1,
        steps=REFUSED,
    )


def complete_tile() -> Json:
    """Return the age of the instant up to which everything is counted."""
    return tile(
        "Counted until",
        "How long ago the instant lies up to which everything that arrived is counted; some ten seconds "
        "when all is well. Formula: now - complete_until, of the worker that is furthest behind.",
        Query(or_gap(behind())),
        unit="s",
        steps=COMPLETE,
    )


def targets(scope: Scope) -> list[tuple[int, Json]]:
    """Return the panels of pace and attainment."""
    where = {"basis": "period", "window": TARGET_WINDOWS}

    def of(name: str) -> Json:
        query = number(name, scope, "kpi", "window", **where)
        return bars(
            TITLES[name],
            about(name, "One bar for each target that is set for today or the month.", "period"),
            [Query(query, "{{kpi}}, {{window}}", at_once=True)],
            unit="percentunit",
            decimals=0,
            steps=PACE if name == "pacing" else (("blue", None),),
        )

    return [(8, of("pacing")), (8, of("target_attainment"))]


def alerts(matcher: str = "") -> Json:
    """Return the table of the alerts that are firing."""
    return table(
        "Alerts that are firing",
        "What LeadPulse has found and is not over yet, at most those of this page; the message says why. "
        "Empty while nothing fires; see the tile for whether anybody is looking.",
        {"rule": "Rule", "channel": "Channel", "campaign": "Campaign"},
        [Column("Firing", firing(matcher), "bool_on_off")],
    )


def alerts_tile(matcher: str = "") -> Json:
    """Return how many alerts are firing."""
    return tile(
        "Alerts firing",
        "How many alerts are firing now; no data if no worker is there to tell. "
        "Formula: count of leadkpi_alert_firing = 1.",
        Query(firing_count(matcher), at_once=True),
        unit="none",
        steps=NONE_IS_GOOD,
    )


def funnel(scope: Scope, basis_: str = "$basis") -> Json:
    """Return the stages with how many leads entered each."""
    on = {"$basis": "", "period": ", as it happened", "cohort": ", by creation of the lead"}[basis_]
    query = f"sort_desc({number('stage_entered', scope, 'stage', basis=basis_)})"
    return bars(
        f"Funnel{on}",
        "How many leads entered each stage for the first time, skipped stages included. "
        "Formula: stage_entered of each stage.",
        [Query(query, "{{stage}}", at_once=True)],
        unit="none",
        decimals=0,
    )


def conversions(scope: Scope, basis_: str, *, over_time: bool = False) -> Json:
    """Return the conversion of each step of the funnel."""
    on = {
        "period": "as it happened",
        "cohort": "by creation of the lead",
        "$basis": "on the chosen basis",
    }[basis_]
    words = {
        "period": "Leads that entered the later stage in the window, per lead that entered the earlier one in it. "
        "May pass 100 % when older leads move on. "
        "Formula: stage_entered(later) / stage_entered(earlier).",
        "cohort": "Of the leads that entered the earlier stage in the window, the share that has reached the later one by now; "
        "grows as they ripen. Formula: reached(later, earlier) / stage_entered(earlier).",
    }
    query = number("stage_conversion", scope, "from", "to", basis=basis_)
    shown = lines if over_time else bars
    heading = f"Step by step, {on}" + (", over time" if over_time else "")
    asked_for = Query(query, "{{from}} to {{to}}", at_once=not over_time)
    said = words.get(basis_, words["period"])
    return shown(heading, said, [asked_for], unit="percentunit", decimals=1)


# ----------------------------------------------------------------------------- business


def overview() -> Json:
    """Return the page to begin with."""
    tiles = [kpi_tile(name, WHOLE) for name in MONEY_TILES[:-1]]
    by_channel = columns(TABLE, CHANNELS, "channel")
    rows = [
        Row("Now", 4, [(3, one) for one in [*tiles, alerts_tile()]]),
        Row(
            "Over time",
            8,
            [
                (12, kpi_lines("cost", {"all channels": WHOLE})),
                (12, kpi_lines("cpl", {"all channels": WHOLE})),
                (12, kpi_lines_by("cpl", CHANNELS, "channel", "channel")),
                (12, kpi_lines_by("leads", CHANNELS, "channel", "channel")),
            ],
        ),
        Row(
            "Channels and funnel",
            9,
            [
                (16, table("Channels", CHANNELS_TEXT, {"channel": "Channel"}, by_channel, {"channel": CHANNEL_LINK})),
                (8, funnel(WHOLE)),
            ],
        ),
        Row("Targets and alerts", 8, [*targets(WHOLE), (8, alerts())]),
        quality(WHOLE),
    ]  # fmt: skip
    text = "What all advertising costs and brings, on one page."
    return board("overview", "Overview", text, rows, [window("last_24h"), basis()])


CHANNELS_TEXT = (
    "Every channel in one line. A cell without a number has none: cost that is not reported, or nobody to "
    "divide by. Formulas: CPL = cost / leads, CAC = cost / new_customers, ROI = (revenue_net - cost) / cost, "
    "conversion = converted / leads. Columns are not to be averaged. A click on a channel opens it."
)


def of_channel() -> Json:
    """Return everything about one channel, beside the others."""
    two = {"$channel": CHANNEL, "all channels": WHOLE}
    campaigns = columns(TABLE, CAMPAIGNS, "campaign")
    only = 'channel=~"$channel|_all"'
    rows = [
        Row("$channel now", 4, [(3, kpi_tile(name, CHANNEL)) for name in MONEY_TILES]),
        before_the_lead(CHANNEL),
        Row(
            "$channel over time, beside the whole",
            8,
            [
                (8, kpi_lines("cpl", two)),
                (8, kpi_lines("cost", {"$channel": CHANNEL})),
                (8, kpi_lines("leads", {"$channel": CHANNEL})),
                (8, kpi_lines("click_to_lead", two, basis="period")),
                (8, kpi_lines("cpc", two, basis="period")),
                (8, kpi_lines("conversion", two)),
            ],
        ),
        Row(
            "Beside the other channels",
            8,
            [(6, compared(name, CHANNELS, "channel", "channel")) for name in ("cpl", "cac", "roi", "conversion")],
        ),
        Row(
            "Campaigns and funnel",
            9,
            [
                (16, table("Campaigns of $channel", CAMPAIGNS_TEXT, {"campaign": "Campaign"}, campaigns, {"campaign": CAMPAIGN_LINK})),
                (8, funnel(CHANNEL)),
            ],
        ),
        after_the_lead(CHANNEL),
        Row("Targets and alerts", 8, [*targets(CHANNEL), (8, alerts(only))]),
        quality(CHANNEL),
    ]  # fmt: skip
    text = "One channel: what it costs and brings, beside the others and the whole."
    return board("channel", "Channel", text, rows, [window("last_24h"), basis(), channel()])


CAMPAIGNS_TEXT = (
    "The campaigns with the highest cost, the others together as __other__, leads without a campaign as “-”. "
    "Formulas: CPL = cost / leads, CAC = cost / new_customers, ROI = (revenue_net - cost) / cost, conversion = "
    "converted / leads. A click on a campaign opens it."
)


def of_campaign() -> Json:
    """Return everything about one campaign, beside its channel's others."""
    three = {"$campaign": CAMPAIGN, "$channel": CHANNEL, "all channels": WHOLE}
    only = 'channel=~"$channel|_all", campaign=~"$campaign|_all"'
    rows = [
        Row("$campaign now", 4, [(3, kpi_tile(name, CAMPAIGN)) for name in MONEY_TILES]),
        before_the_lead(CAMPAIGN),
        Row(
            "$campaign over time, beside its channel and the whole",
            8,
            [
                (8, kpi_lines("cpl", three)),
                (8, kpi_lines("cost", {"$campaign": CAMPAIGN})),
                (8, kpi_lines("leads", {"$campaign": CAMPAIGN})),
                (8, kpi_lines("click_to_lead", three, basis="period")),
                (8, kpi_lines("cpc", three, basis="period")),
                (8, kpi_lines("conversion", three)),
            ],
        ),
        Row(
            "Beside the other campaigns of $channel",
            8,
            [(6, compared(name, CAMPAIGNS, "campaign", "campaign")) for name in ("cpl", "cac", "roi", "conversion")],
        ),
        Row("Funnel", 8, [(12, funnel(CAMPAIGN)), (12, conversions(CAMPAIGN, "$basis"))]),
        after_the_lead(CAMPAIGN),
        Row("Targets and alerts", 8, [*targets(CAMPAIGN), (8, alerts(only))]),
        quality(CAMPAIGN),
    ]  # fmt: skip
    text = "One campaign: what it costs and brings, beside its channel and the whole."
    choice = [window("last_24h"), basis(), channel(), campaign()]
    return board("campaign", "Campaign", text, rows, choice)


def before_the_lead(scope: Scope) -> Row:
    """Return what happens up to the lead; it exists on the period basis only."""
    tiles = [kpi_tile(name, scope, basis="period") for name in VOLUME_TILES]
    days = [
        kpi_tile(name, scope, basis="period", window="last_28d")
        for name in ("visitors", "visitor_to_lead")
    ]
    return Row("Before the lead", 4, [(3, one) for one in [*tiles, *days]])


def after_the_lead(scope: Scope) -> Row:
    """Return what becomes of leads."""
    names = ("revenue_per_lead", "net_profit_per_lead", "average_revenue_per_sale", "roas")
    others = ("cpl_gross", "cac_media", "mql_to_close", "purchase_cycle_p50")
    return Row("After the lead", 4, [(3, kpi_tile(name, scope)) for name in (*names, *others)])


def funnel_and_cohorts() -> Json:
    """Return the way from lead to customer, on both bases."""
    cycle = ("purchase_cycle_mean", "purchase_cycle_p50", "purchase_cycle_p90")
    ripe = ("leads", "cohort_maturity", "conversion", "conversion_within", "cac", "roi")
    by_window = columns(ripe, CAMPAIGN, "window", basis="cohort", window=".+")
    by_channel = columns(("leads", "conversion", "mql_to_close", *cycle), CHANNELS, "channel")
    rows = [
        Row(
            "The funnel",
            8,
            [
                (6, funnel(CAMPAIGN, "period")),
                (6, funnel(CAMPAIGN, "cohort")),
                (6, conversions(CAMPAIGN, "period")),
                (6, conversions(CAMPAIGN, "cohort")),
                (12, conversions(CAMPAIGN, "period", over_time=True)),
                (12, conversions(CAMPAIGN, "cohort", over_time=True)),
            ],
        ),
        Row("Where leads are, and where they fell back", 7, [(12, standing()), (12, fallen())]),
        Row(
            "To the customer",
            4,
            [
                *((4, basis_tile(name, one)) for name in ("conversion", "mql_to_close") for one in ("period", "cohort")),
                (4, kpi_tile("conversion_within", CAMPAIGN, basis="cohort", window="lifetime")),
                (4, kpi_tile("cohort_maturity", CAMPAIGN, basis="cohort")),
            ],
        ),
        Row("Purchase cycle", 4, [(8, kpi_tile(name, CAMPAIGN)) for name in cycle]),
        Row(
            "Purchase cycle and conversion",
            8,
            [
                (12, cycle_lines(cycle)),
                (12, kpi_lines("conversion", {"chosen": CAMPAIGN, "all channels": WHOLE})),
            ],
        ),
        Row(
            "Cohorts",
            9,
            [
                (12, table("Cohorts by window", COHORTS_TEXT, {"window": "Leads created in"}, by_window)),
                (12, table("Conversion and cycle by channel", CYCLES_TEXT, {"channel": "Channel"}, by_channel, {"channel": CHANNEL_LINK})),
            ],
        ),
        quality(CAMPAIGN),
    ]  # fmt: skip
    text = "What becomes of leads: step by step, how long it takes, and how ripe the numbers are."
    choice = [window("last_28d"), basis(), channel(whole=True), campaign(whole=True)]
    return board("funnel", "Funnel and cohorts", text, rows, choice)


COHORTS_TEXT = (
    "What has become of the leads that were created in each window, up to now. Windows with a low maturity look "
    "worse than they will be: compare “within the horizon” instead. Formulas: maturity = mature_leads / leads; "
    "within the horizon = mature_converted / mature_leads; conversion = converted / leads."
)
CYCLES_TEXT = (
    "How well and how fast each channel's leads buy, on the chosen basis. Formulas: conversion = converted / leads; "
    "MQL to customer by period = converted / stage_entered.mql; cycle = time from the lead to its first sale."
)


def basis_tile(name: str, basis_: str) -> Json:
    """Return a tile of one basis, named in its heading."""
    query = Query(or_gap(number(name, CAMPAIGN, basis=basis_)))
    on = "as it happened" if basis_ == "period" else "by creation of the lead"
    said = about(name, "", basis_)
    return tile(f"{TITLES[name]}, {on}", said, query, unit="percentunit", decimals=1)


def standing() -> Json:
    """Return how many leads are in each stage now."""
    where = {"basis": "period", "window": "lifetime"}
    query = f"sort_desc({number('stage_current', CAMPAIGN, 'stage', **where)})"
    return bars(
        "Where leads are now",
        "All leads ever, by the stage in which they are at present. Formula: stage_current of each stage.",
        [Query(query, "{{stage}}", at_once=True)],
        unit="none",
        decimals=0,
    )


def fallen() -> Json:
    """Return how often leads fell back to each stage."""
    entered = number("stage_entered", CAMPAIGN, "stage", basis="period")
    query = f"{number('stage_regressed', CAMPAIGN, 'stage', basis='period')} or 0 * {entered}"
    return bars(
        "Fallen back",
        "How often leads fell back to a stage in the window; each keeps the stages it has reached. Formula: stage_regressed of each stage.",
        [Query(query, "to {{stage}}", at_once=True)],
        unit="none",
        decimals=0,
    )


def cycle_lines(names: tuple[str, ...]) -> Json:
    """Return the purchase cycle over time."""
    queries = [Query(number(name, CAMPAIGN), TITLES[name].partition(", ")[2]) for name in names]
    said = "How long it takes from the lead to its first sale. Formulas: mean = cycle_ms / cycle_count; quantiles of the histogram."
    return lines("Purchase cycle over time", said, queries, unit="s")


# ----------------------------------------------------------------------------- operations


def operations() -> Json:
    """Return how the workers do."""
    rows = [
        Row("Health", 4, [(3, one) for one in health()]),
        Row("What comes in", 8, [(8, one) for one in incoming()]),
        Row("How fast", 8, [(6, one) for one in speed()]),
        Row("Progress", 8, [(6, one) for one in progress()]),
        Row("Capacity", 8, [(6, one) for one in capacity()]),
        Row("Sources, versions and alerts", 8, [(6, one) for one in sources()]),
        quality(WHOLE),
    ]
    text = "How the workers of LeadPulse do: what comes in, how fast it is counted, and what waits."
    return board("operations", "Operations", text, rows, [window("last_24h"), basis()])


def health() -> list[Json]:
    """Return the tiles at the top of Operations."""

    def of(heading: str, said: str, expr: str, **rest: Any) -> Json:
        return tile(heading, said, Query(or_gap(expr)), **{"unit": "none", "decimals": 0, **rest})

    return [
        of("Workers", "Workers that answer. Formula: count of leadkpi_build_info.", 'count(leadkpi_build_info{job="$job"})', steps=UP),
        of("Shards owned", "Shards that some worker counts; to be the number of partitions, more only during a hand-over. Formula: sum of leadkpi_shards.", gauge("shards", "sum"), steps=UP),
        complete_tile(),
        of("Waiting records", "Records that wait to be read. Formula: sum of leadkpi_lag_records, the greater of two workers during a hand-over.", f"sum({gauge('lag_records', 'max', 'topic', 'partition')})", steps=LAG),
        of("Publishers", "1 if every publisher of every worker reached its target when it last tried. Formula: least leadkpi_publisher_up.", gauge("publisher_up", "min"), steps=UP),
        of("Parked events", "Events that wait for the lead or sale they belong to; they are counted when it comes. Formula: sum of leadkpi_parked_events.", gauge("parked_events", "sum"), steps=PARKED),
        of("Left out campaigns", "Campaigns without numbers because limits.scopes is reached. Formula: growth of leadkpi_scopes_overflow_total in the time shown.", counted("scopes_overflow_total"), steps=NONE_IS_GOOD),
        alerts_tile(),
    ]  # fmt: skip


def incoming() -> list[Json]:
    """Return the panels of what is read."""

    def of(heading: str, said: str, expr: str, legend: str, unit_: str = "eps") -> Json:
        return lines(heading, said, [Query(expr, legend)], unit=unit_, stacked=True)

    return [
        of("Events by outcome", "Events read per second, by what became of them; late ones are among the accepted. Formula: rate of leadkpi_events_total.", outcomes(), "{{outcome}}"),
        of("Accepted events by topic", "Accepted events per second, by topic. Formula: rate of leadkpi_events_total.", per_second("events_total", "topic", outcome="accepted"), "{{topic}}"),
        of("Refused events by reason", "Events per minute that can never be counted; each is on the topic of rejects with its message. Formula: rate of leadkpi_rejects_total times 60.", f"60 * {per_second('rejects_total', 'reason')}", "{{reason}}", "epm"),
        of("Remarks", "Odd things about accepted events, per minute. Formula: rate of leadkpi_remarks_total times 60.", f"60 * {per_second('remarks_total', 'remark')}", "{{remark}}", "epm"),
        of("Revisions by cause", "Changes of final windows per minute, by the gravest cause. Formula: rate of leadkpi_revisions_total times 60.", f"60 * {per_second('revisions_total', 'cause')}", "{{cause}}", "cpm"),
        bars("Events of the time shown", "How many events were read in the time shown, by outcome. Formula: growth of leadkpi_events_total.", [Query(f"sort_desc({counted('events_total', 'outcome')})", "{{outcome}}", at_once=True)], unit="short", decimals=0),
    ]  # fmt: skip


def speed() -> list[Json]:
    """Return the panels of latency."""
    commit, publish = "commit_seconds", "event_to_publish_seconds"

    def quantiles(name: str) -> list[Query]:
        return [Query(quantile(q, name), f"{q * 100:g} %") for q in (0.5, 0.9, 0.99)]

    def buckets(name: str) -> Query:
        return Query(per_second(f"{name}_bucket", "le"), "{{le}}", format="heatmap")

    return [
        lines("From arrival to published", "How long an event takes from its arrival at the broker to the commit of its numbers. Formula: quantiles of leadkpi_event_to_publish_seconds.", quantiles(publish), unit="s", steps=SLOW_PUBLISHING),
        heat("From arrival to published, all", "How often which time was taken. Formula: rate of the buckets of leadkpi_event_to_publish_seconds.", buckets(publish), "s"),
        lines("Commit", "How long a shard's transaction takes. Formula: quantiles of leadkpi_commit_seconds.", quantiles(commit), unit="s", steps=SLOW_COMMIT),
        heat("Commit, all", "How often which time was taken. Formula: rate of the buckets of leadkpi_commit_seconds.", buckets(commit), "s"),
    ]  # fmt: skip


def progress() -> list[Json]:
    """Return the panels of what waits."""

    def of(heading: str, said: str, expr: str, legend: str, unit_: str, **rest: Any) -> Json:
        return lines(heading, said, [Query(expr, legend)], unit=unit_, **rest)

    lag = f"sum by (topic) ({gauge('lag_records', 'max', 'topic', 'partition')})"
    return [
        of("Waiting records by topic", "Records that wait to be read. Formula: sum of leadkpi_lag_records over partitions.", lag, "{{topic}}", "short"),
        of("Counted until, by worker", "How long ago the instant lies up to which everything is counted. Formula: now - leadkpi_complete_until_timestamp_seconds.", behind("instance"), "{{instance}}", "s", steps=COMPLETE),
        of("Shards by worker", "How the shards are shared out. Formula: leadkpi_shards.", gauge("shards", "max", "instance"), "{{instance}}", "none", stacked=True),
        of("Publishers", "1 while a publisher reaches its target. Formula: least leadkpi_publisher_up of each publisher.", gauge("publisher_up", "min", "publisher"), "{{publisher}}", "none"),
    ]  # fmt: skip


def capacity() -> list[Json]:
    """Return the panels of what the workers use."""

    def of(heading: str, said: str, expr: str, unit_: str) -> Json:
        return lines(heading, said, [Query(expr, "{{instance}}")], unit=unit_)

    return [
        of("Memory", "Memory that each worker holds. Formula: process_resident_memory_bytes.", gauge("process_resident_memory_bytes", "max", "instance"), "bytes"),
        of("Processor", "How much of one core each worker uses: 100 % is all that one worker can take. Formula: rate of process_cpu_seconds_total.", per_second("process_cpu_seconds_total", "instance"), "percentunit"),
        of("Scopes", "Channels and campaigns with numbers, by worker; more cost memory and time. Formula: leadkpi_scopes.", gauge("scopes", "max", "instance"), "short"),
        of("Parked events by worker", "Events that wait for what they belong to. Formula: leadkpi_parked_events.", gauge("parked_events", "max", "instance"), "short"),
    ]  # fmt: skip


def sources() -> list[Json]:
    """Return the panels of sources, versions and alerts."""
    silent = since_report("", "channel")
    return [
        bars("Last cost report by channel", "How long ago the newest cost record of each channel was reported. Formula: now - leadkpi_cost_last_reported_timestamp_seconds.", [Query(f"sort_desc({silent})", "{{channel}}", at_once=True)], unit="s", steps=SILENT_COST),
        table("Workers and versions", "The version that each worker runs; one during most of the time, two during an update. Formula: leadkpi_build_info.", {"instance": "Worker", "version": "Version"}, [Column("Answers", gauge("build_info", "max", "instance", "version"), "bool_yes_no")]),
        lines("Alerts posted", "Alerts posted to the webhook per minute, by what came of it; no data without a webhook or an alert. Formula: rate of leadkpi_webhook_deliveries_total times 60.", [Query(f"60 * {per_second('webhook_deliveries_total', 'outcome')}", "{{outcome}}")], unit="epm"),
        alerts(),
    ]  # fmt: skip


# ----------------------------------------------------------------------------- all


def board(uid: str, title: str, text: str, rows: list[Row], choice: list[Json]) -> Json:
    """Return a dashboard with the variables that all have."""
    return dashboard(uid, title, text, rows, [job(), *choice, currency()], firing())


DASHBOARDS: dict[str, Callable[[], Json]] = {
    "overview": overview,
    "channel": of_channel,
    "campaign": of_campaign,
    "funnel-and-cohorts": funnel_and_cohorts,
    "operations": operations,
}


def main() -> None:
    """Write one file for each dashboard."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "dashboards"
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in DASHBOARDS.items():
        text = json.dumps(make(), indent=1, ensure_ascii=False)
        (directory / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
