"""What the demo shows: a live table in a terminal, else lines of text."""

import shutil
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kpis.facts import OVERALL, Scope
from streams.simulate import Plan
from streams.top import NONE, View, render
from streams.traffic import CAMPAIGNS

WINDOW: Final = "last_1h"
LINE_SECONDS: Final = 5.0
# Lines of a live table that are no campaigns: its frame, the whole, the channels, the status.
_OTHER_LINES: Final = 18
_PAID: Final = tuple(dict.fromkeys(one.channel for one in CAMPAIGNS if one.click_micros))
_SCOPES: Final = (OVERALL, *(Scope(channel, None) for channel in _PAID))
_WAITING: Final = "waiting for the first KPI: the worker starts and opens its shards"


class Places(NamedTuple):
    """Where the parts can be reached."""

    page: str
    kafka: str
    partitions: int
    redis: str
    metrics: str
    log: Path
    settings: Path


class Moment(NamedTuple):
    """What is known at one look: seconds since the start, events sent, the scopes' numbers."""

    seconds: float
    sent: int
    views: Sequence[View]


class Screen(Protocol):
    """Shows the numbers while the traffic runs, between entry and exit."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; what is printed from then on stays."""
        ...

    def show(self, moment: Moment) -> None:
        """Show the numbers of a moment."""
        ...


def has_kpi(views: Sequence[View]) -> bool:
    """Return whether the whole has numbers; KPIs come with them."""
    return any(view.scope == OVERALL and "ctr" in view.fields for view in views)


def screen_of(console: Console, plan: Plan, *, plain: bool) -> Screen:
    """Return a live table where there is a terminal for it, else lines."""
    return Lines(console) if plain or not console.is_terminal else LiveTable(console, plan)


class Lines:
    """A line every five seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_seconds = 0.0

    def __enter__(self) -> Self:
        self._say(_WAITING)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def show(self, moment: Moment) -> None:
        """Print a line if the last one is old enough."""
        if not has_kpi(moment.views) or moment.seconds < self._next_seconds:
            return
        if not self._next_seconds:
            names = ("CPL: all", *_PAID)
            self._say("".join(("   s  events  leads", *(f"  {name}" for name in names))))
        # The first line may come shortly before a full five seconds.
        self._next_seconds = LINE_SECONDS * (
            (moment.seconds + LINE_SECONDS / 2) // LINE_SECONDS + 1
        )
        fields = {view.scope: view.fields for view in moment.views}
        leads = fields[OVERALL].get("leads", "0")
        self._say(f"{moment.seconds:4.0f}{moment.sent:8,}{int(leads):7,}{_cpls(fields)}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveTable:
    """The table of `leadpulse top`, with a line about the demo below it."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._live = Live(Text(_WAITING), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What comes after a good end is a table of its own.
        self._live.transient = kind is None
        self._live.stop()

    def show(self, moment: Moment) -> None:
        """Replace the table."""
        if not has_kpi(moment.views):
            status = Text(f"{_WAITING} ({moment.seconds:.0f} s)")
            self._live.update(status, refresh=True)
            return
        campaigns = max(0, self._console.height - _OTHER_LINES)
        table = render(moment.views, WINDOW, campaigns, self._console.width)
        end = self._plan.seconds
        until = "Ctrl-C ends" if end is None else f"ends after {end:.0f} s, Ctrl-C ends sooner"
        status = Text(f"{moment.seconds:.0f} s, {moment.sent:,} events sent; {until}", style="dim")
        self._live.update(Group(table, status), refresh=True)


def introduction(plan: Plan) -> str:
    """Return the first line: what runs, and how much of it."""
    what = "LeadPulse demo: Kafka and Redis in memory, a worker and simulated traffic,"
    return f"{what}\n{plan.rate:,.0f} events a second, seed {plan.seed}; starting …"


def headline(places: Places) -> str:
    """Return what stands above all else: where the live page is."""
    return f"Live page: {places.page}"


def has_desktop(environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Tell whether a browser of this machine would show up before whoever started this program.

    Args:
        environ: The variables of this process.
        platform: As `sys.platform` names it.
    """
    if "SSH_CONNECTION" in environ:
        return False
    has_windows = platform in ("darwin", "win32")
    return has_windows or any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def open_browser(url: str) -> bool:
    """Open `url` in a browser with a window of its own; tell whether there was one."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    # That class is for browsers that would take the terminal.
    return type(browser) is not webbrowser.GenericBrowser and browser.open(url)


def directions(places: Places, plan: Plan) -> str:
    """Return where everything is, and how to end it."""
    command = _command()
    end = plan.seconds
    until = (
        "runs until Ctrl-C" if end is None else f"ends after {end:g} s and verifies every number"
    )
    return "\n".join(
        (
            f"  Kafka    {places.kafka} ({places.partitions} partitions a topic)",
            f"  Redis    {places.redis}",
            f"  metrics  {places.metrics}",
            f"  worker   log in {places.log}",
            "look around in another terminal:",
            f"  export LEADPULSE_CONFIG={places.settings}",
            f"  {command} topics",
            f"  {command} top --window lifetime --basis cohort",
            f"  {command} explain google_ads lifetime cpl",
            until,
        )
    )


def _command() -> str:
    """Return how this program was called, so that it can be called so again."""
    called = sys.argv[0]
    return "leadpulse" if shutil.which("leadpulse") == called else called


def _cpls(fields: Mapping[Scope, Mapping[str, str]]) -> str:
    widths = (len("CPL: all"), *map(len, _PAID))
    values = [fields.get(scope, {}).get("cpl") for scope in _SCOPES]
    shown = [NONE if value is None else f"{float(value):,.2f}" for value in values]
    return "".join(f"{value:>{2 + width}}" for value, width in zip(shown, widths, strict=True))
