"""What `leadpulse explain` is asked: a scope, a window and a KPI as people type them."""

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from kpis.calendar import Calendar, minute_text
from kpis.catalog import Catalog
from kpis.facts import BASES, OVERALL, PERIOD, Scope, Subject
from kpis.fields import Refused, Rules, normal_campaign, normal_channel
from kpis.spans import KINDS, TUMBLING, Spans, Window
from streams.problems import Problem

_YEARS: Final = (2000, 2100)
_DATE: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONTH: Final = re.compile("[0-9]{4}-[0-9]{2}")
_TIME: Final = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:00)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_SHAPES: Final = {
    "1d": (_DATE, "1d:2026-03-29"),
    "1w": (_DATE, "1w:2026-03-23"),
    "1mo": (_MONTH, "1mo:2026-03"),
    **{kind: (_TIME, f"{kind}:2026-03-29T10:00") for kind in ("1m", "5m", "1h")},
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Question(NamedTuple):
    """Which number is to be explained."""

    subject: Subject
    window: Window
    kpi: str


def nearest(text: str, known: Iterable[str]) -> str:
    """Return a question after the most similar of the known names; empty if none is."""
    found = difflib.get_close_matches(text.lower(), list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else ""


def scope_of(text: str, rules: Rules) -> Scope:
    """Return the scope that `all`, a channel or `channel/campaign` names.

    Raises:
        Problem: if it names none.
    """
    channel, slash, campaign_id = text.strip().partition("/")
    if channel.lower() == "all":
        if slash:
            raise _wrong_scope(text)
        return OVERALL
    try:
        return Scope(
            normal_channel(channel, rules), normal_campaign(campaign_id, rules) if slash else None
        )
    except Refused as refused:
        raise _wrong_scope(text) from refused


def _wrong_scope(text: str) -> Problem:
    return Problem("SCOPE", "all, a channel or channel/campaign", f"{text!r:.80}")


def scope_text(scope: Scope) -> str:
    """Return how a scope is typed."""
    return "/".join(part for part in scope if part is not None) or "all"


def kpi_of(text: str, basis: str, scope: Scope, catalog: Catalog) -> str:
    """Return the full name of a KPI that the scope has on a basis.

    Raises:
        Problem: if there is no such one.
    """
    name = text.strip()
    if name in _names(catalog, basis, scope):
        return name
    where, got = "KPI", f"{text!r:.80}"
    for other in BASES:
        if name in _names(catalog, other, scope):
            todo = f"it exists with --basis {other} only"
            raise Problem(where, f"one of the {basis} basis", got, todo)
    if name in _names(catalog, basis, OVERALL):
        raise Problem(where, f"one of {scope_text(scope)}", got, "only the SCOPE all has it")
    todo = _kpi_meant(name, _names(catalog, basis, scope), catalog)
    raise Problem(where, "the name of a KPI", got, todo or "`leadpulse kpis` lists them")


def _kpi_meant(name: str, known: Iterable[str], catalog: Catalog) -> str:
    french = {kpi.french.lower(): kpi.name for kpi in catalog.kpis if kpi.name in known}
    for words in difflib.get_close_matches(name.lower(), french, n=1, cutoff=0.8):
        return f"did you mean {french[words]}?"
    return nearest(name.replace(" ", "_").replace("-", "_"), known)


def _names(catalog: Catalog, basis: str, scope: Scope) -> list[str]:
    names = list(catalog.names(basis, is_overall=scope == OVERALL))
    if basis != PERIOD:
        return names
    kpis = set(names)
    for kpi in catalog.kpis:
        if kpi.per_target:
            # A pace is that of something that grows: of facts only.
            about = [of for of in catalog.target_units if kpi.per_target == "any" or of not in kpis]
            names += [f"{kpi.name}.{of}" for of in about]
    return names


# ----------------------------------------------------------------------------- windows


def window_of(text: str, spans: Spans, minute: int) -> Window:
    """Return the window of a kind, the current one, or of a kind and the local time it begins.

    Args:
        text: `1d`, `1d@previous`, `last_24h`, `lifetime`, `1d:2026-03-29`, `1h:2026-03-29T10:00`.
        spans: The windows of the deployment.
        minute: The one now running.

    Raises:
        Problem: if it is none of these, or no window of the kind begins then.
    """
    slots = dict(spans.slots(minute))
    text = text.strip()
    if text in slots:
        return slots[text]
    kind, _, start = text.partition(":")
    if kind not in KINDS:
        raise _wrong_window(text, f"one of {', '.join(KINDS)}", nearest(kind, slots))
    if kind not in _SHAPES:
        raise _wrong_window(text, f"{kind} alone: it has no start to choose")
    begins = _minute_of(kind, start, text, spans.buckets.calendar)
    window = spans.tumbling(kind, begins)
    if window.start_minute != begins:
        expected = "a Monday" if kind == "1w" else f"the start of a window of {kind}"
        meant = window_text(window, spans.buckets.calendar)
        raise _wrong_window(text, expected, f"did you mean {meant}?")
    return window


def _wrong_window(text: str, expected: str, todo: str = "") -> Problem:
    return Problem("WINDOW", expected, f"{text!r:.80}", todo)


def window_text(window: Window, calendar: Calendar) -> str:
    """Return how a window is typed; of a rolling one its kind, which is the current one."""
    if window.kind not in TUMBLING or window.start_minute is None:
        return window.kind
    local = minute_text(window.start_minute, calendar.zone)
    if window.kind in ("1d", "1w"):
        return f"{window.kind}:{local[:10]}"
    if window.kind == "1mo":
        return f"{window.kind}:{local[:7]}"
    naive = datetime.fromisoformat(local).replace(tzinfo=None)
    text = local[:16] if len(_instants(naive, calendar)) == 1 else f"{local[:16]}{local[19:]}"
    return f"{window.kind}:{text}"


def time_of(text: str, where: str, calendar: Calendar, *, is_end: bool = False) -> int:
    """Return the minute of a local date or time, or of one with an offset.

    A date is its first minute; as an end, the minute after its last.

    Raises:
        Problem: about `where`, if it is none, or the local clock shows it twice or never.
    """
    expected = "a date or time of the years 2000 to 2100 such as 2026-11-01 or 2026-11-01T10:00"
    try:
        told = datetime.fromisoformat(text.strip())
    except ValueError:
        told = None
    shapes = (_DATE, _TIME)
    is_shaped = any(shape.fullmatch(text.strip().replace(" ", "T")) for shape in shapes)
    if told is None or not is_shaped or not _YEARS[0] <= told.year <= _YEARS[1]:
        raise Problem(where, expected, f"{text!r:.80}")
    if _DATE.fullmatch(text.strip()):
        start = calendar.minute_of(told.date())
        return calendar.day_end(start) if is_end else start
    if told.tzinfo is not None:
        return (told - _EPOCH) // timedelta(minutes=1)
    found = _instants(told, calendar)
    if len(found) != 1:
        times = "never" if not found else "twice"
        got = f"{text!r:.80}, which clocks in {calendar.zone} show {times}"
        raise Problem(where, "a time that occurs once", got, "add an offset such as +01:00")
    return found[0]


def _minute_of(kind: str, start: str, text: str, calendar: Calendar) -> int:
    shape, example = _SHAPES[kind]
    expected = f"a window of the years 2000 to 2100 such as {example}"
    if shape.fullmatch(start) is None:
        raise _wrong_window(text, expected)
    try:
        told = datetime.fromisoformat(f"{start}-01" if kind == "1mo" else start)
    except ValueError:
        raise _wrong_window(text, expected) from None
    if not _YEARS[0] <= told.year <= _YEARS[1]:
        raise _wrong_window(text, expected)
    if shape is not _TIME:
        return calendar.minute_of(told.date())
    if told.tzinfo is not None:
        return (told - _EPOCH) // timedelta(minutes=1)
    return _minute_of_local(told, kind, text, calendar)


def _minute_of_local(told: datetime, kind: str, text: str, calendar: Calendar) -> int:
    instants = _instants(told, calendar)
    if not instants:
        raise _wrong_window(text, f"a time that there is in {calendar.zone}")
    if len(instants) > 1:
        local = [minute_text(minute, calendar.zone) for minute in instants]
        both = " or ".join(f"{kind}:{each[:16]}{each[19:]}" for each in local)
        raise _wrong_window(text, "a time that occurs once", f"did you mean {both}?")
    return instants[0]


def _instants(naive: datetime, calendar: Calendar) -> list[int]:
    """Return the minutes, in order, at which local clocks show a time: none, one or two."""
    found = []
    for fold in (0, 1):
        at = naive.replace(tzinfo=calendar.zone, fold=fold).astimezone(UTC)
        if at.astimezone(calendar.zone).replace(tzinfo=None) == naive:
            found.append((at - _EPOCH) // timedelta(minutes=1))
    return sorted({*found})
