"""The command line `leadpulse`. Commands import what they need when they run: help is quick."""

import asyncio
import logging
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

# ruff: noqa: PLC0415 - a command imports what it needs, so that help and errors are quick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from kpis.formulas import Kpi
    from streams.settings import Settings
    from streams.topics import TopicState

FAULT, WRONG_SETTING = 1, 2
WINDOWS = (
    *("last_1h", "last_6h", "last_24h", "last_7d", "last_28d"),
    *("1m", "5m", "1h", "1d", "1w", "1mo", "lifetime"),
)
BASES = ("period", "cohort")

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def _mend_paragraphs(command: click.Command) -> None:
    # A raw docstring only spells click's mark of a paragraph that is left as it is.
    if command.help is not None:
        command.help = command.help.replace(r"\b", "\b")


class OneLineErrors(click.Group):
    """A group whose commands report a problem in one line on stderr, without a traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _mend_paragraphs(self)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command."""
        _mend_paragraphs(cmd)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit status 2 for a wrong setting, 1 for any other problem."""
        from streams.problems import Problem

        try:
            return super().invoke(ctx)
        except Problem as problem:
            from streams.settings import SettingsError

            click.echo(str(problem), err=True)
            ctx.exit(WRONG_SETTING if isinstance(problem, SettingsError) else FAULT)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leadpulse", prog_name="leadpulse")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file.  [default: LEADPULSE_CONFIG, else ./leadpulse.toml if it is there]",
)
@click.pass_context
def main(ctx: click.Context, config: Path | None) -> None:
    r"""Live, exact lead-generation KPIs from a Kafka stream.

    Settings come from leadpulse.toml and from LEADPULSE_… variables, which win: LEADPULSE_KAFKA
    (host:port), LEADPULSE_REDIS (URL), LEADPULSE_METRICS (host:port) and one
    LEADPULSE_<SECTION>_<KEY> for each key.

    \b
    Everything on this machine, nothing to set up:
      leadpulse demo
    Your own Kafka:
      export LEADPULSE_KAFKA=broker:9092
      leadpulse topics --create
      leadpulse worker
    """
    ctx.obj = config
    # What the client has to say about a missing broker is said in our own line.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def kafka_option(command: Command) -> Command:
    """Add `--kafka` to a command."""
    text = "Bootstrap servers, host:port, instead of the settings' ones."
    return click.option("--kafka", metavar="SERVERS", help=text)(command)


def basis_option(command: Command) -> Command:
    """Add `--basis` to a command."""
    text = "A thing counts at its own time (period), or at the creation of its lead (cohort)."
    option = click.option(
        "--basis", type=click.Choice(BASES), default=BASES[0], show_default=True, help=text
    )
    return option(command)


@main.command()
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Read on where a topic begins, though records were deleted before they were counted.",
)
@click.pass_obj
def worker(config: Path | None, accept_loss: bool) -> None:  # noqa: FBT001 - click calls by name
    r"""Count events and publish KPIs until stopped.

    Reads the input topics and writes leadgen.kpis.v1, leadgen.rejects.v1, Redis and the
    Prometheus endpoint. Several workers share the partitions.

    \b
    Example:
      LEADPULSE_KAFKA=broker:9092 leadpulse worker
    """
    settings = _settings(config)
    from streams.app import run_worker

    sys.exit(run_worker(settings, accept_loss=accept_loss))


@main.command()
@kafka_option
@click.option("--rate", type=click.FloatRange(0.01, 1e6), default=500.0, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), help="End after so long.")
@click.option("--events", type=click.IntRange(1), help="End after so many.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--speed",
    type=click.FloatRange(1, 1000),
    default=60.0,
    show_default=True,
    help="For the first 30 s event time runs so much faster, and ends in the present.",
)
@click.option(
    "--cycle",
    "cycle_seconds",
    type=click.FloatRange(1),
    help="Mean seconds of event time from lead to sale.  [default: 8 seconds of the run]",
)
@click.option(
    "--broken",
    "broken_share",
    type=click.FloatRange(0, 0.9),
    default=0.01,
    show_default=True,
    help="Share of broken events.",
)
@click.pass_obj
def simulate(config: Path | None, /, kafka: str | None, broken_share: float, **how: Any) -> None:
    r"""Send plausible marketing traffic to the input topics.

    Twelve campaigns of six channels with their own economics, a daily rhythm, running costs,
    delays from click to sale, duplicates, late and broken events. --rate is events a second.
    The same seed gives the same traffic. Without --seconds or --events it runs until Ctrl-C.

    \b
    Examples:
      leadpulse simulate
      leadpulse simulate --rate 2000 --events 100000 --seed 7 --kafka broker:9092
    """
    from dataclasses import replace

    from streams.clock import SystemClock
    from streams.simulate import Plan, mix_of
    from streams.simulate import simulate as send

    settings = _settings(config, kafka)
    plan = Plan(**how, mix=replace(mix_of(settings), broken_share=broken_share))
    sent: Counter[str] = Counter()
    total = plan.events or (plan.seconds and int(plan.seconds * plan.rate))
    with _progress(f"to {settings.kafka.servers}") as bar:
        task = bar.add_task("events", total=total)

        def report(counts: Counter[str]) -> None:
            sent.update({topic: counts[topic] - sent[topic] for topic in counts})
            bar.update(task, completed=_records(sent))

        _run(send(settings, plan, SystemClock(), report))
    parts = ", ".join(f"{count:,} {topic}" for topic, count in sorted(sent.items()))
    click.echo(f"sent {_records(sent):,} events, seed {plan.seed}: {parts}")


@main.group(name="import", cls=OneLineErrors)
def import_() -> None:
    r"""Turn exports of advertising platforms into events.

    \b
    Example:
      leadpulse import facebook-ads campaigns.csv
    """


@import_.command(name="facebook-ads")
@kafka_option
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def facebook_ads(config: Path | None, kafka: str | None, file: Path) -> None:
    r"""Send a CSV with the columns below, as Facebook Ads has them: one row for each ad and day.

    Impressions, clicks and Spent become report rows; each Total_Conversion becomes a lead, each
    Approved_Conversion a sale of amount 0, since the file names none. A second import of the
    file changes nothing. If anything in the file is wrong, nothing is sent.

    Columns: Date (day-month-year), ad_id, xyz_campaign_id, fb_campaign_id, Impressions, Clicks,
    Spent (in the reporting currency), Total_Conversion, Approved_Conversion. Others are ignored.

    \b
    Example:
      leadpulse import facebook-ads campaigns.csv
    """
    from streams.facebook_ads import import_file

    settings = _settings(config, kafka)
    with _progress(f"to {settings.kafka.servers}") as bar:
        task = bar.add_task(file.name, total=None)

        def report(sent: int, total: int) -> None:
            bar.update(task, completed=sent, total=total)

        count = _run(import_file(settings, file, report))
    if count is not None:
        click.echo(f"sent {count:,} events from {file}")


@main.command()
@kafka_option
@click.option("--create", is_flag=True, help="Create the topics that are missing.")
@click.option("--partitions", type=click.IntRange(1), help="Of new topics, if none exists yet.")
@click.option("--replication", type=click.IntRange(1), help="Copies of each new topic.")
@click.pass_obj
def topics(
    config: Path | None,
    kafka: str | None,
    create: bool,  # noqa: FBT001 - click calls by name
    partitions: int | None,
    replication: int | None,
) -> None:
    r"""Show and check the topics; exit status 1 if one is not as it has to be.

    \b
    Examples:
      leadpulse topics
      leadpulse topics --create --partitions 8 --replication 3
    """
    settings = _settings(config, kafka)
    from streams import topics as home
    from streams.top import console

    if create:
        made = asyncio.run(home.create(settings, partitions, replication))
        click.echo(f"created {len(made)} topics" if made else "nothing to create")
    states = asyncio.run(home.describe(settings))
    problems = home.faults(states)
    _print_topics(console(), states, problems)
    for problem in problems:
        click.echo(str(problem), err=True)
    sys.exit(FAULT if problems else 0)


@main.command()
@click.option("--window", type=click.Choice(WINDOWS), default=WINDOWS[0], show_default=True)
@basis_option
@click.option("--campaigns", type=click.IntRange(0), default=15, show_default=True)
@click.option("--once", is_flag=True, help="Print the table once; so it is without a terminal.")
@click.option("--plain", is_flag=True, help="No colours and no moving; as --once.")
@click.pass_obj
def top(
    config: Path | None,
    window: str,
    basis: str,
    campaigns: int,
    once: bool,  # noqa: FBT001 - click calls by name
    plain: bool,  # noqa: FBT001
) -> None:
    r"""Show channels and campaigns live, from Redis, sorted by cost.

    A number with ~ is partial: some cost or exchange rate that belongs to it is still unknown.

    \b
    Examples:
      leadpulse top
      leadpulse top --window lifetime --once
      leadpulse top --window last_28d --basis cohort
    """
    settings = _settings(config)
    from streams.top import console, show_live, show_once

    screen = console(plain=plain)
    if once or plain or not screen.is_terminal:
        asyncio.run(show_once(settings, window, campaigns, screen, basis))
    else:
        _run(show_live(settings, window, campaigns, screen, basis=basis))


@main.command()
@kafka_option
@click.argument("scope")
@click.argument("window")
@click.argument("kpi")
@basis_option
@click.option("--quick", is_flag=True, help="Do not read the input to count what was left out.")
@click.pass_obj
def explain(
    config: Path | None,
    /,
    kafka: str | None,
    quick: bool,  # noqa: FBT001 - click calls by name
    **asked: str,
) -> None:
    r"""Show what a number is made of: facts, formula, cost, state, history, and what was left out.

    \b
    SCOPE   all, a channel (google_ads) or a campaign (google_ads/brand-search)
    WINDOW  a kind for the current one (1m 5m 1h 1d 1w 1mo, last_1h last_6h last_24h last_7d
            last_28d, lifetime), 1d@previous, or a kind and the local time it begins
            (1d:2026-03-29, 1w:2026-03-23, 1mo:2026-03, 1h:2026-03-29T10:00)
    KPI     a name that `leadpulse kpis` lists

    Reads leadgen.kpis.v1 and the ledger, then the input topics and the rejects.

    \b
    Examples:
      leadpulse explain all last_24h cpl
      leadpulse explain google_ads 1mo:2026-03 roi --basis cohort
      leadpulse explain google_ads/brand-search lifetime stage_conversion.lead.mql --quick
    """
    settings = _settings(config, kafka)
    from streams.explain import Asked, run
    from streams.top import console

    run(settings, Asked(**asked), console(), quick=quick)


@main.command()
@click.option("--markdown", is_flag=True, help="A table in Markdown, with units and sources.")
@click.pass_obj
def kpis(config: Path | None, markdown: bool) -> None:  # noqa: FBT001 - click calls by name
    r"""List the KPIs of the funnel: name, formula on each basis, unit and French name.

    \b
    Examples:
      leadpulse kpis
      leadpulse kpis --markdown
    """
    settings = _settings(config)
    from kpis.catalog import Catalog

    catalog = Catalog(settings.funnel.stages, settings.cohort.horizon_days)
    if markdown:
        from kpis.kpi_table import markdown_table

        click.echo(markdown_table(catalog.kpis), nl=False)
    else:
        from streams.top import console

        _print_kpis(console(), catalog.kpis)


@main.command()
@click.argument("name", required=False)
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Copy all there.")
@click.pass_obj
def schemas(config: Path | None, name: str | None, to: Path | None) -> None:
    r"""List, print or copy the JSON Schemas of what goes in and comes out, and the AsyncAPI document.

    One schema for each type of event, for kpi-record (leadgen.kpis.v1 and the ledger), alert and
    reject. The AsyncAPI document has all of them, and the names of your topics.

    \b
    Examples:
      leadpulse schemas
      leadpulse schemas lead.created
      leadpulse schemas --to schemas/
    """
    settings = _settings(config)
    from streams import schema_files
    from streams.topics import topics_of

    own = topics_of(settings)
    if name is not None:
        click.echo(schema_files.text(name, own), nl=False)
    if to is not None:
        click.echo(f"wrote {schema_files.copy(to, own)} files to {to}", err=name is not None)
    if name is None and to is None:
        click.echo("\n".join(schema_files.names()))


@main.group(cls=OneLineErrors, invoke_without_command=True)
@kafka_option
@click.option("--json", "as_json", is_flag=True, help="The records as a JSON array.")
@click.pass_context
def alerts(ctx: click.Context, kafka: str | None, as_json: bool) -> None:  # noqa: FBT001
    r"""List the alerts that fire now, and those that were resolved in the last 24 hours.

    Reads leadgen.alerts.v1. The messages are French where LANG is, else English.

    \b
    Examples:
      leadpulse alerts
      leadpulse alerts --json
      leadpulse alerts rules
      leadpulse alerts test cpl_spike --from 2026-11-01
    """
    if ctx.invoked_subcommand is not None:
        return
    settings = _settings(ctx.obj, kafka)
    from streams import alert_list
    from streams.top import console

    if as_json:
        click.echo(alert_list.run_json(settings))
    else:
        alert_list.run(settings, console(), os.environ)


@alerts.command(name="rules")
@click.pass_obj
def alert_rules(config: Path | None) -> None:
    r"""List the rules in force with their thresholds.

    \b
    Example:
      LEADPULSE_ALERTS_RULES=alerts.toml leadpulse alerts rules
    """
    settings = _settings(config)
    from streams.alert_list import rule_lines
    from streams.top import console

    screen = console()
    for line in rule_lines(settings.alert_rules()):
        screen.print(line, soft_wrap=not screen.is_terminal, highlight=False)


@alerts.command(name="test")
@kafka_option
@click.argument("rule")
@click.option("--from", "since", required=True, metavar="TIME", help="Where to begin.")
@click.option("--to", "until", metavar="TIME", help="Where to end.  [default: now]")
@click.option("--scope", metavar="SCOPE", help="Only this one.  [default: all the rule looks at]")
@click.pass_obj
def alert_test(config: Path | None, /, kafka: str | None, **asked: Any) -> None:
    r"""Run a rule over past windows and say when it would have fired.

    Reads the input topics from the beginning and looks at every minute of the time asked, as the
    worker does. It knows what arrived late. Writes nothing and tells nobody.

    \b
    RULE    a name that `leadpulse alerts rules` lists
    TIME    a local date or time: 2026-11-01, 2026-11-01T10:00
    SCOPE   all, a channel (google_ads) or a campaign (google_ads/brand-search)

    \b
    Examples:
      leadpulse alerts test cpl_spike --from 2026-11-01
      leadpulse alerts test leads_stopped --from 2026-11-17T08:00 --to 2026-11-18 --scope google_ads
    """
    settings = _settings(config, kafka)
    from streams.alert_trial import Asked, run
    from streams.top import console

    run(settings, Asked(**asked), console(), os.environ)


@main.command()
@kafka_option
@click.pass_obj
def verify(config: Path | None, kafka: str | None) -> None:
    r"""Recompute every number from the input topics and compare.

    Reads the inputs from the beginning, folds them in one simple loop, and compares with
    leadgen.kpis.v1 and with Redis. Prints `exact: N events, M values` or each difference; exit
    status 1 on any.

    \b
    Example:
      leadpulse verify
    """
    settings = _settings(config, kafka)
    from streams.verify import run

    sys.exit(run(settings))


@main.command()
@click.option("--seconds", type=click.FloatRange(1), help="End after so long and verify.")
@click.option("--plain", is_flag=True, help="No live table: lines of text, for logs and pipes.")
@click.option("--rate", type=click.FloatRange(0.01, 1e6), default=500.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--no-open", is_flag=True, help="Do not open the live page in a browser.")
@click.pass_obj
def demo(
    config: Path | None,
    seconds: float | None,
    plain: bool,  # noqa: FBT001 - click calls by name
    rate: float,
    seed: int,
    no_open: bool,  # noqa: FBT001 - click calls by name
) -> None:
    r"""Run everything in one go: broker and Redis in memory, worker, simulated traffic, live page.

    On a desktop the page opens in the browser; the terminal shows a live table.

    \b
    Examples:
      leadpulse demo
      leadpulse demo --seconds 30 --plain
    """
    settings = _settings(config)
    from streams.demo import run

    status = run(settings, seconds=seconds, plain=plain, rate=rate, seed=seed, opens=not no_open)
    sys.exit(status)


def _settings(config: Path | None, kafka: str | None = None) -> "Settings":
    from streams.settings import load

    return load(_environment(os.environ, kafka), config)


def _environment(environ: Mapping[str, str], kafka: str | None) -> dict[str, str]:
    if kafka is None:
        return dict(environ)
    others = {name: environ[name] for name in environ if name != "LEADPULSE_KAFKA_SERVERS"}
    return {**others, "LEADPULSE_KAFKA": kafka}


def _run(work: Awaitable[T]) -> T | None:
    """Return what `work` returns; None if the user has seen enough (Ctrl-C)."""

    async def waited() -> T:
        return await work

    try:
        return asyncio.run(waited())
    except KeyboardInterrupt:
        return None


@contextmanager
def _progress(where: str) -> "Iterator[Progress]":
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.completed:,.0f}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn(where, style="dim"),
    )
    # Where nobody looks a bar is only dirt in a log.
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


def _records(counts: Counter[str]) -> int:
    return counts.total() - counts["broken"]


def _print_topics(console: Any, states: "list[TopicState]", problems: list[Any]) -> None:
    from rich.table import Table

    from streams.topics import fault_of

    table = Table()
    for name in ("topic", "purpose", "partitions", "cleanup", "state"):
        table.add_column(name, justify="right" if name == "partitions" else "left")
    for state in states:
        fault = fault_of(state, problems)
        cleanup = state.configs.get("cleanup.policy", state.spec.cleanup)
        is_missing = state.partitions is None
        word = "missing" if is_missing else "wrong" if fault else "good"
        count = "" if is_missing else str(state.partitions)
        colour = "green" if word == "good" else "red"
        shown = (state.spec.name, state.spec.purpose, count, cleanup)
        table.add_row(*shown, f"[{colour}]{word}[/{colour}]")
    console.print(table)


def _print_kpis(console: Any, shown: "Sequence[Kpi]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("KPI", "unit", *(f"formula, {basis} basis" for basis in BASES), "French"):
        table.add_column(name, overflow="fold")
    for kpi in shown:
        formulas = [kpi.formula(basis) for basis in BASES]
        texts = ["" if formula is None else formula.text(kpi.unit) for formula in formulas]
        name = f"{kpi.name}.<kpi>" if kpi.per_target else kpi.name
        table.add_row(name, kpi.unit, *texts, kpi.french)
    console.print(table)
