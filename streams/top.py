"""The live table of channels and campaigns, read from Redis."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kpis.facts import COHORT, OVERALL, PERIOD, Scope
from kpis.spans import LIFETIME, ROLLING, TUMBLING
from streams.problems import Problem, redis_unreachable
from streams.publishers.redis_hashes import SCOPES_KEY, hash_name, scope_of_member
from streams.settings import Settings

WINDOWS = (*ROLLING, *TUMBLING, LIFETIME)
REDIS_SECONDS = 5.0
# So many of the scopes that changed last are looked at; a terminal shows far fewer.
MOST_SCOPES = 2_000
NONE = "\N{EN DASH}"
# A table that is cut off says nothing: on a terminal narrower than that, these are left out.
LEFT_OUT = (
    (116, ("impressions", "revenue", "converted")),
    (96, ("clicks", "sales")),
)
PAPER_COLUMNS = 124
NUMBERS = {
    PERIOD: ("impressions", "clicks", "CTR", "spend", "leads", "CPL", "sales", "revenue", "ROI"),
    # What became of the leads: nobody clicks in a cohort.
    COHORT: (
        *("leads", "converted", "conversion", "spend", "CPL"),
        *("CAC", "sales", "revenue", "ROI"),
    ),
}
PARTIAL = "~"
_KPI_OF = {"CTR": "ctr", "conversion": "conversion", "CPL": "cpl", "CAC": "cac", "ROI": "roi"}
REASONS = {
    "no_impressions": "no impressions",
    "no_clicks": "no clicks",
    "no_leads": "no leads",
    "no_sales": "no sales",
    "no_cost": "no cost",
    "no_data": "no data",
    "cost_missing": "cost missing",
}


class View(NamedTuple):
    """One scope in one window: the fields of its hash, why a KPI has none, and which are partial."""

    scope: Scope
    fields: Mapping[str, str]
    undefined: Mapping[str, str]
    partial: frozenset[str] = frozenset()

    @property
    def cost(self) -> float:
        """Cost for sorting; nothing is exact about it."""
        return float(self.fields.get("cost", "0"))


def view_of(scope: Scope, fields: Mapping[str, str]) -> View:
    """Return the view of a Redis hash.

    Source: contract, section 7.
    """
    undefined = msgspec.json.decode(fields.get("_undefined") or "{}", type=dict[str, str])
    partial = msgspec.json.decode(fields.get("_partial") or "[]", type=frozenset[str])
    return View(scope, fields, undefined, partial)


def ordered(views: Iterable[View]) -> tuple[list[View], list[View], list[View]]:
    """Return the whole, the channels and the campaigns, each by falling cost, then by name."""
    by_cost = sorted(views, key=lambda view: (-view.cost, *map(str, view.scope)))
    whole = [view for view in by_cost if view.scope == OVERALL]
    campaigns = [view for view in by_cost if view.scope.campaign_id is not None]
    channels = [view for view in by_cost if view not in whole and view.scope.campaign_id is None]
    return whole, channels, campaigns


def render(
    views: Iterable[View],
    window: str,
    most_campaigns: int = 15,
    width: int = PAPER_COLUMNS,
    basis: str = PERIOD,
) -> Table:
    """Return the table: the whole, channels, then campaigns, each by falling cost.

    Args:
        views: What `read_views` gave.
        window: Its kind of window, for the title.
        most_campaigns: How many campaigns are shown.
        width: Characters in a line; a narrow table has fewer columns.
        basis: Their basis, `period` or `cohort`, for the title and the columns.
    """
    whole, channels, campaigns = ordered(views)
    table = Table(
        title=f"LeadPulse: {window}, {basis} basis",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in ("channel", "campaign"):
        # Names may break into lines; numbers may not.
        table.add_column(name, min_width=6, overflow="fold")
    left_out = {name for needed, names in LEFT_OUT if width < needed for name in names}
    numbers = [name for name in NUMBERS[basis] if name not in left_out]
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    shown = (whole, channels, campaigns[:most_campaigns])
    for part in shown:
        for view in part:
            cells = _numbers(view)
            names = (view.scope.channel or "all", view.scope.campaign_id or "all")
            style = "bold" if view.scope == OVERALL else ""
            table.add_row(*map(Text, names), *(cells[name] for name in numbers), style=style)
        table.add_section()
    kpis = {_KPI_OF[name] for name in numbers if name in _KPI_OF}
    is_partial = any(view.partial & kpis for part in shown for view in part)
    table.caption = _caption(
        [*whole, *channels], len(campaigns) - most_campaigns, is_partial=is_partial
    )
    table.caption_justify = "left"
    return table


def console(*, plain: bool = False) -> Console:
    """Return where tables go: the terminal, or plain lines wide enough for one."""
    found = Console(no_color=plain or None)
    is_page = not found.is_terminal and "COLUMNS" not in os.environ
    return Console(no_color=plain or None, width=PAPER_COLUMNS) if is_page else found


@asynccontextmanager
async def redis_client(settings: Settings) -> AsyncIterator[Redis]:
    """Return a client that gives up soon, and is closed at the end.

    Raises:
        Problem: if there is no Redis in the settings, or it does not answer.
    """
    if not settings.redis.is_on:
        where, todo = "redis.url", "set LEADPULSE_REDIS"
        raise Problem(where, "the address of a Redis", "nothing", todo)
    client = Redis.from_url(
        settings.redis.url,
        decode_responses=True,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
    try:
        yield client
    except (RedisError, OSError) as error:
        raise redis_unreachable(settings.redis.shown_url, error) from error
    finally:
        await client.aclose()


async def read_views(redis: Redis, window: str, basis: str = PERIOD) -> list[View]:
    """Return the scopes that have numbers in the current window of this kind.

    Raises:
        RedisError: if Redis does not answer.
    """
    members = await redis.zrevrange(SCOPES_KEY, 0, MOST_SCOPES - 1)
    scopes = [scope_of_member(str(member)) for member in members]
    async with redis.pipeline(transaction=False) as pipeline:
        for scope in scopes:
            pipeline.hgetall(hash_name(window, scope, basis))
        hashes: Sequence[Mapping[str, str]] = await pipeline.execute()
    found = zip(scopes, hashes, strict=True)
    return [view_of(scope, fields) for scope, fields in found if fields]


async def show_once(
    settings: Settings, window: str, most_campaigns: int, console: Console, basis: str = PERIOD
) -> None:
    """Print the table once.

    Raises:
        Problem: if Redis does not answer.
    """
    async with redis_client(settings) as redis:
        views = await read_views(redis, window, basis)
        console.print(render(views, window, most_campaigns, console.width, basis))


async def show_live(
    settings: Settings,
    window: str,
    most_campaigns: int,
    console: Console,
    every_seconds: float = 1.0,
    basis: str = PERIOD,
) -> None:
    """Show the table until cancelled, read again every second.

    Raises:
        Problem: if Redis does not answer at the start; later it is waited for.
    """
    async with redis_client(settings) as redis:
        views = await read_views(redis, window, basis)
        table = render(views, window, most_campaigns, console.width, basis)
        with Live(table, console=console, auto_refresh=False, screen=False) as live:
            while True:
                await asyncio.sleep(every_seconds)
                try:
                    views = await read_views(redis, window, basis)
                except (RedisError, OSError) as error:
                    table.caption = str(redis_unreachable(settings.redis.shown_url, error))
                else:
                    table = render(views, window, most_campaigns, console.width, basis)
                live.update(table, refresh=True)


def _caption(views: Sequence[View], hidden: int, *, is_partial: bool) -> str:
    if not views:
        return "no numbers yet: is a worker running?"
    notes = [f"money in {views[0].fields.get('_currency', 'the reporting currency')}"]
    notes += [f"{PARTIAL} partial: some cost or exchange rate is still unknown"] * is_partial
    notes += [f"{hidden} more campaign{'s'[: hidden - 1]}"] if hidden > 0 else []
    return ", ".join(notes)


def _numbers(view: View) -> dict[str, Text | str]:
    fields = view.fields
    return {
        "impressions": _count(fields.get("impressions")),
        "clicks": _count(fields.get("clicks")),
        "CTR": _percent(fields.get("ctr"), 2),
        # Unknown cost is not zero cost.
        "spend": NONE if _lacks_cost(view) else _money(fields.get("cost", "0")),
        "leads": _count(fields.get("leads")),
        "converted": _count(fields.get("converted")),
        "conversion": _percent(fields.get("conversion"), 2),
        "CPL": _cost_per_lead(view),
        "CAC": _mark(view, "cac") + _money(fields["cac"]) if "cac" in fields else NONE,
        "sales": _count(fields.get("sales")),
        "revenue": _money(fields.get("revenue_net", "0")),
        "ROI": _mark(view, "roi") + _percent(fields.get("roi")),
    }


def _lacks_cost(view: View) -> bool:
    return "cost" not in view.fields and "cost_missing" in view.undefined.values()


def _cost_per_lead(view: View) -> Text:
    if "cpl" in view.fields:
        return Text(_mark(view, "cpl") + _money(view.fields["cpl"]), style="cyan")
    reason = view.undefined.get("cpl", "")
    return Text(f"{NONE} {REASONS.get(reason, reason)}".strip(), style="dim")


def _mark(view: View, kpi: str) -> str:
    return PARTIAL if kpi in view.partial else ""


def _count(value: str | None) -> str:
    return f"{int(value or 0):,}"


def _money(value: str) -> str:
    return f"{float(value):,.2f}"


def _percent(value: str | None, decimals: int = 0) -> str:
    return NONE if value is None else f"{float(value):,.{decimals}%}"
