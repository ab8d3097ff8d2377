"""Turns a Facebook Ads export into events: report rows, cost, one event for each lead and sale."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from kpis.instants import date_ms
from kpis.windows import amount_text, instant_text
from streams.clock import Clock, SystemClock
from streams.problems import Problem
from streams.sending import sender
from streams.settings import Settings

CHANNEL = "meta_ads"
SOURCE = "/import/facebook-ads"
COLUMNS = (
    *("Date", "ad_id", "xyz_campaign_id", "fb_campaign_id", "Impressions", "Clicks"),
    *("Spent", "Total_Conversion", "Approved_Conversion"),
)
LARGEST_COUNT = 10**12
# One row is one ad on one day: more conversions than this are a broken file.
MOST_CONVERSIONS = 100_000
LARGEST_SPENT = Decimal(10**12)
MICRO = Decimal("0.000001")

encode = msgspec.json.Encoder().encode


class Row(NamedTuple):
    """One ad on one day.

    `repeat` tells rows of the same day, campaign, ad group and ad apart: 1, 2, … in the file's
    order, so that none of them replaces another.
    """

    on: date
    campaign_id: str
    ad_group_id: str
    ad_id: str
    repeat: int
    impressions: int
    clicks: int
    spent_micros: int
    leads: int
    sales: int

    @property
    def name(self) -> str:
        """What the ids of the row's events contain."""
        parts = [self.on.isoformat(), self.campaign_id, self.ad_group_id, self.own_ad_id]
        return "-".join(parts)

    @property
    def own_ad_id(self) -> str:
        """The ad's id, with the repeat where there is one."""
        return self.ad_id if self.repeat == 1 else f"{self.ad_id}#{self.repeat}"


class Sendable(NamedTuple):
    """An event for the input topic with this short name."""

    topic: str
    key: bytes
    value: Mapping[str, object]


class _Cell(NamedTuple):
    """A text of the file, and where it stands."""

    where: str
    text: str


def read_rows(file: Path, today: date = date.max) -> list[Row]:
    """Return all rows of the export, none of which is of a day after `today`.

    Raises:
        Problem: at the first thing that is wrong, with file, line and column.
    """
    rows: list[Row] = []
    repeats: Counter[tuple[date, str, str, str]] = Counter()
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in _rows(file, lines, today):
                key = row.on, row.campaign_id, row.ad_group_id, row.ad_id
                repeats[key] += 1
                rows.append(row._replace(repeat=repeats[key]))
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise Problem(str(file), "a file to read", got) from error
    except UnicodeDecodeError as error:
        got = f"byte {error.object[error.start]:#04x}"
        raise Problem(str(file), "UTF-8 text", got, "save it as CSV in UTF-8") from error
    return rows


def events(rows: Sequence[Row], time_zone: ZoneInfo, currency: str) -> Iterator[Sendable]:
    """Return the events of `rows`; the same rows give the same events, byte by byte.

    Each row becomes three report rows and `leads` leads, spread evenly over its day, since the
    file tells no times. Its sales belong to its leads in turn, at the time of the lead.
    """
    for row in rows:
        start_ms = date_ms(row.on.isoformat(), time_zone)
        end_ms = date_ms((row.on + timedelta(days=1)).isoformat(), time_zone)
        yield from _reports(row, start_ms, end_ms, currency)
        times = [
            start_ms + (2 * n + 1) * (end_ms - start_ms) // (2 * row.leads)
            for n in range(row.leads)
        ]
        for number, at_ms in enumerate(times, start=1):
            yield _lead(row, number, at_ms)
        for number in range(1, row.sales + 1):
            lead = (number - 1) % row.leads if row.leads else None
            at_ms = start_ms if lead is None else times[lead]
            yield _sale(row, number, at_ms, None if lead is None else lead + 1, currency)


def count_events(rows: Sequence[Row]) -> int:
    """Return how many events `rows` become."""
    return sum(3 + row.leads + row.sales for row in rows)


async def import_file(
    settings: Settings,
    file: Path,
    report: Callable[[int, int], None],
    clock: Clock | None = None,
) -> int:
    """Send the events of `file` and return how many they were; a second time changes no number.

    `report` gets the events sent so far and all there are; `clock` (None: the machine's) tells in
    the reporting zone which day is today, after which a row cannot be.

    Raises:
        Problem: if the file or a row is not as expected (then nothing was sent), if Kafka does not
            answer, an input topic is missing, or a record is refused.
    """
    now = datetime.fromtimestamp((clock or SystemClock()).now_ms() / 1000, UTC)
    rows = read_rows(file, now.astimezone(settings.time_zone).date())
    total, sent = count_events(rows), 0
    async with sender(settings) as out:
        for topic, key, value in events(rows, settings.time_zone, settings.currency):
            await out.send(topic, key, encode(value))
            sent += 1
            report(sent, total)
    return sent


def _rows(file: Path, open_file: Iterable[str], today: date) -> Iterator[Row]:
    lines = csv.reader(open_file, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            where, got = f"{file}, line 1", ", ".join(header) or "an empty line"
            raise Problem(where, f"the columns {', '.join(missing)}", f"{got:.120}")
        for texts in lines:
            if texts:
                yield _row(f"{file}, line {lines.line_num}", header, texts, today)
    except csv.Error as error:
        where = f"{file}, line {lines.line_num}"
        raise Problem(where, "CSV", str(error)) from error


def _row(where: str, header: Sequence[str], texts: Sequence[str], today: date) -> Row:
    if len(texts) != len(header):
        raise Problem(where, f"{len(header)} columns", str(len(texts)))
    cells = {
        name: _Cell(f"{where}, column {name}", text.strip())
        for name, text in zip(header, texts, strict=True)
    }
    return Row(
        on=_date(cells["Date"], today),
        campaign_id=_id(cells["xyz_campaign_id"]),
        ad_group_id=_id(cells["fb_campaign_id"]),
        ad_id=_id(cells["ad_id"]),
        repeat=1,
        impressions=_count(cells["Impressions"], LARGEST_COUNT),
        clicks=_count(cells["Clicks"], LARGEST_COUNT),
        spent_micros=_micros(cells["Spent"]),
        leads=_count(cells["Total_Conversion"], MOST_CONVERSIONS),
        sales=_count(cells["Approved_Conversion"], MOST_CONVERSIONS),
    )


def _date(cell: _Cell, today: date) -> date:
    for form in ("%d-%m-%Y", "%Y-%m-%d"):
        try:
            # A date has no zone; it becomes an instant in the reporting zone.
            on = datetime.strptime(cell.text, form).date()  # noqa: DTZ007
        except ValueError:
            continue
        if on > today:
            raise _bad(cell, f"a date up to today, {today:%d-%m-%Y}")
        if 2000 <= on.year < 2100:
            return on
    raise _bad(cell, "a date, day-month-year, of the years 2000 to 2099")


def _id(cell: _Cell) -> str:
    # Three of them are part of an event_id, which has at most 128 characters.
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,28}", cell.text):
        raise _bad(cell, "an id of up to 28 letters, digits, . _ : -")
    return cell.text


def _count(cell: _Cell, largest: int) -> int:
    if not re.fullmatch("[0-9]{1,13}", cell.text) or int(cell.text) > largest:
        raise _bad(cell, f"a whole number from 0 to {largest}")
    return int(cell.text)


def _micros(cell: _Cell) -> int:
    if not re.fullmatch(r"[0-9]{1,13}(\.[0-9]{0,30})?", cell.text):
        raise _bad(cell, "an amount such as 12.50")
    amount = Decimal(cell.text)
    if amount > LARGEST_SPENT:
        raise _bad(cell, f"an amount up to {LARGEST_SPENT}")
    return int(amount.quantize(MICRO, ROUND_HALF_EVEN) / MICRO)


def _bad(cell: _Cell, expected: str) -> Problem:
    return Problem(cell.where, expected, f"{cell.text[:40]!r}", "nothing was sent")


def _reports(row: Row, start_ms: int, end_ms: int, currency: str) -> Iterator[Sendable]:
    end = instant_text(end_ms)
    # Reported when the day was over: the same words at each import.
    common = {
        "source": SOURCE,
        "occurred_at": end,
        "channel": CHANNEL,
        "campaign_id": row.campaign_id,
        "ad_group_id": row.ad_group_id,
        "ad_id": row.own_ad_id,
        "period_start": instant_text(start_ms),
        "period_end": end,
        "as_of": end,
        "reported_at": end,
    }
    key = row.name.encode()
    for kind, count in (("impressions", row.impressions), ("clicks", row.clicks)):
        head = {"event_id": f"fb-{row.name}-{kind}", "type": f"{kind}.reported"}
        yield Sendable(kind, key, {**head, **common, "count": count})
    head = {"event_id": f"fb-{row.name}-cost", "type": "cost.snapshot"}
    money = {"amount": amount_text(row.spent_micros), "currency": currency}
    yield Sendable("costs", key, {**head, **common, "cost_source": "facebook_ads", **money})


def _lead(row: Row, number: int, at_ms: int) -> Sendable:
    lead_id = f"fb-{row.name}-lead-{number}"
    value = {
        "event_id": f"{lead_id}-created",
        "source": SOURCE,
        "type": "lead.created",
        "occurred_at": instant_text(at_ms),
        "lead_id": lead_id,
        "channel": CHANNEL,
        "campaign_id": row.campaign_id,
    }
    return Sendable("leads", lead_id.encode(), value)


def _sale(row: Row, number: int, at_ms: int, lead: int | None, currency: str) -> Sendable:
    sale_id = f"fb-{row.name}-sale-{number}"
    value: dict[str, object] = {
        "event_id": f"{sale_id}-created",
        "source": SOURCE,
        "type": "sale.created",
        "occurred_at": instant_text(at_ms),
        "sale_id": sale_id,
        "amount": "0",
        "currency": currency,
    }
    if lead is not None:
        value["lead_id"] = f"fb-{row.name}-lead-{lead}"
    return Sendable("sales", sale_id.encode(), value)
