from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.events import CostSnapshot, CountsReported, LeadCreated, SaleCreated
from kpis.fields import Rules
from kpis.reading import read
from streams.clock import ManualClock
from streams.facebook_ads import (
    COLUMNS,
    Row,
    Sendable,
    count_events,
    encode,
    events,
    import_file,
    read_rows,
)
from streams.problems import Problem
from streams.settings import load
from tests.parts.server import free_port

FILE = Path(__file__).parents[1] / "data" / "facebook_ads.csv"
PARIS = ZoneInfo("Europe/Paris")
# From tests/data/README.md: impressions, clicks, spent in micros, leads, sales.
TOTALS = {
    "916": (482_925, 113, 149_710_000, 58, 24),
    "936": (8_128_187, 1_984, 2_893_369_997, 537, 183),
    "1178": (204_823_716, 36_068, 55_662_149_960, 2_669, 872),
}
HEADER = ",".join(COLUMNS)
GOOD = "31-08-2023,708746,916,103916,7350,1,1.429999948,2,1"


def a_row(**changes: Any) -> Row:
    row = Row(date(2023, 8, 31), "916", "103916", "708746", 1, 7_350, 1, 1_430_000, 2, 1)
    return row._replace(**changes)


def totals_of(sendables: list[Sendable], rules: Rules) -> dict[str, list[int]]:
    """Return impressions, clicks, micros, leads and sales by campaign, from events as read."""
    totals: dict[str, list[int]] = {}
    campaign_of: dict[str | None, str] = {}
    for topic, _, value in sendables:
        event = read(topic, encode(value), 1_800_000_000_000, rules).event
        match event:
            case CountsReported():
                column = 0 if event.kind == "impressions.reported" else 1
                totals.setdefault(event.campaign_id, [0] * 5)[column] += event.count
            case CostSnapshot():
                totals.setdefault(event.campaign_id, [0] * 5)[2] += event.amount_micros
            case LeadCreated():
                campaign_of[event.lead_id] = event.campaign_id or "-"
                totals.setdefault(event.campaign_id or "-", [0] * 5)[3] += 1
            case SaleCreated():
                totals[campaign_of[event.lead_id]][4] += 1
            case _:
                pytest.fail(f"unexpected {event}")
    return totals


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_events_of_the_real_file_have_its_totals(zone: str) -> None:
    time_zone = ZoneInfo(zone)
    sendables = list(events(read_rows(FILE), time_zone, "EUR"))
    totals = totals_of(sendables, Rules(time_zone=time_zone))
    assert {campaign: tuple(sums) for campaign, sums in totals.items()} == TOTALS


def test_real_file_becomes_three_rows_and_its_conversions() -> None:
    rows = read_rows(FILE)
    assert len(rows) == 1_143
    assert count_events(rows) == 3 * 1_143 + 3_264 + 1_079 == len(list(events(rows, PARIS, "EUR")))


def test_second_import_sends_the_same_bytes() -> None:
    first, second = (
        [encode(event) for event in events(read_rows(FILE), PARIS, "EUR")] for _ in range(2)
    )
    assert first == second


def test_no_two_events_of_the_real_file_share_an_id_or_a_natural_key() -> None:
    sendables = list(events(read_rows(FILE), PARIS, "EUR"))
    ids = Counter(sendable.value["event_id"] for sendable in sendables)
    assert max(ids.values()) == 1
    names = ("campaign_id", "ad_group_id", "ad_id", "period_start")
    keys = Counter(
        (s.topic, *(s.value[name] for name in names)) for s in sendables if "ad_id" in s.value
    )
    assert max(keys.values()) == 1


def test_rows_of_the_same_ad_and_day_do_not_replace_each_other(tmp_path: Path) -> None:
    file = tmp_path / "twice.csv"
    file.write_text("\n".join([HEADER, GOOD, GOOD]), encoding="utf-8")
    rows = read_rows(file)
    assert [row.own_ad_id for row in rows] == ["708746", "708746#2"]
    totals = totals_of(list(events(rows, PARIS, "EUR")), Rules(time_zone=PARIS))
    assert totals == {"916": [14_700, 2, 2_860_000, 4, 2]}


def test_day_is_that_of_the_reporting_zone() -> None:
    impressions = next(events([a_row()], PARIS, "EUR")).value
    #  31 August in Paris, two hours ahead of UTC
    assert impressions["period_start"] == "2023-08-30T22:00:00Z"
    assert impressions["period_end"] == "2023-08-31T22:00:00Z"


def test_sales_belong_to_the_leads_of_their_row_in_turn() -> None:
    found = list(events([a_row(leads=2, sales=3)], PARIS, "EUR"))
    leads = [s.value["lead_id"] for s in found if s.topic == "leads"]
    sales = [s.value["lead_id"] for s in found if s.topic == "sales"]
    assert sales == [leads[0], leads[1], leads[0]]
    assert {s.value["amount"] for s in found if s.topic == "sales"} == {"0"}


def test_sales_of_a_row_without_leads_have_no_lead() -> None:
    found = list(events([a_row(leads=0, sales=1)], PARIS, "EUR"))
    assert [s.value.get("lead_id") for s in found if s.topic == "sales"] == [None]


@given(st.integers(0, 400), st.integers(0, 40), st.dates(date(2000, 1, 2), date(2099, 12, 30)))
def test_leads_and_sales_happen_within_their_day(leads: int, sales: int, on: date) -> None:
    rules = Rules(time_zone=PARIS)
    found = [
        read(topic, encode(value), -1, rules).event
        for topic, _, value in events([a_row(on=on, leads=leads, sales=sales)], PARIS, "EUR")
    ]
    cost = next(event for event in found if isinstance(event, CostSnapshot))
    times = [
        event.envelope.occurred_ms
        for event in found
        if isinstance(event, LeadCreated | SaleCreated)
    ]
    assert len(times) == leads + sales
    assert all(cost.start_ms <= time < cost.end_ms for time in times)


@given(st.decimals(min_value=0, max_value=10**6, places=9))
def test_spent_is_rounded_half_even_to_micros(
    tmp_path_factory: pytest.TempPathFactory, spent: Decimal
) -> None:
    file = tmp_path_factory.mktemp("facebook") / "one.csv"
    file.write_text(f"{HEADER}\n31-08-2023,1,2,3,4,5,{spent:f},0,0\n", encoding="utf-8")
    [row] = read_rows(file)
    assert row.spent_micros == int(spent.scaleb(6).to_integral_value(ROUND_HALF_EVEN))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("Date", "2023/08/31", "a date, day-month-year"),
        ("Date", "31-13-2023", "a date, day-month-year"),
        ("Date", "31-08-1823", "a date, day-month-year"),
        ("ad_id", "", "an id"),
        ("xyz_campaign_id", "a b", "an id"),
        ("Impressions", "-1", "a whole number from 0"),
        ("Clicks", "1.0", "a whole number from 0"),
        ("Clicks", "٣", "a whole number from 0"),
        ("Spent", "1,5", "an amount"),
        ("Spent", "-1", "an amount"),
        ("Spent", "NaN", "an amount"),
        ("Spent", "1e3", "an amount"),
        ("Spent", "9999999999999", "an amount up to"),
        ("Total_Conversion", "100001", "a whole number from 0 to 100000"),
        ("Approved_Conversion", "yes", "a whole number from 0"),
    ],
)
def test_bad_cell_is_one_line_with_file_line_column_and_value(
    tmp_path: Path, column: str, value: str, expected: str
) -> None:
    cells = dict(zip(COLUMNS, GOOD.split(","), strict=True)) | {column: value}
    text = ",".join(f'"{cell}"' for cell in cells.values())
    file = tmp_path / "bad.csv"
    file.write_text(f"{HEADER}\n{GOOD}\n{text}\n", encoding="utf-8")
    with pytest.raises(Problem) as caught:
        read_rows(file)
    line = str(caught.value)
    assert line.startswith(f"{file}, line 3, column {column}: expected {expected}")
    assert f"got {value!r}" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1: expected the columns Date, ad_id"),
        (HEADER.replace("Spent", "Cost").encode(), "line 1: expected the columns Spent, got Date"),
        (f"{HEADER}\n1,2,3".encode(), "line 2: expected 9 columns, got 3"),
        (f'{HEADER}\n"31-08'.encode(), "line 2: expected CSV, got unexpected end of data"),
        (b"\xff\xfe\x00", "expected UTF-8 text, got byte 0xff"),
    ],
)
def test_file_that_is_no_export_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    with pytest.raises(Problem) as caught:
        read_rows(file)
    assert f"{file}" in str(caught.value)
    assert words in str(caught.value)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="expected a file to read, got No such file or directory"):
        read_rows(tmp_path / "gone.csv")


def test_other_columns_empty_lines_and_a_byte_order_mark_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "more.csv"
    file.write_text(f"\ufeff{HEADER},age\n\n{GOOD},30-34\n", encoding="utf-8")
    assert read_rows(file) == [a_row()]


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("facebook") / "any.csv"
    file.write_text(f"{HEADER}\n{text}", encoding="utf-8", newline="")
    refused = ""
    try:
        read_rows(file)
    except Problem as problem:
        refused = str(problem)
    assert "\n" not in refused


async def test_nothing_is_sent_of_a_bad_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(f"{HEADER}\n{GOOD}\n{GOOD},\n", encoding="utf-8")
    # Nobody listens there: had it tried to send, that would be the problem.
    settings = load({"LEADPULSE_KAFKA": f"localhost:{free_port()}"})
    with pytest.raises(Problem, match="line 3: expected 9 columns, got 10"):
        await import_file(settings, file, lambda _sent, _total: None)


def test_rows_of_today_are_read_and_later_ones_refused_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "ahead.csv"
    file.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8")
    assert read_rows(file, date(2023, 8, 31)) == [a_row()]
    with pytest.raises(Problem) as caught:
        read_rows(file, date(2023, 8, 30))
    assert str(caught.value) == (
        f"{file}, line 2, column Date: expected a date up to today, 30-08-2023, "
        "got '31-08-2023'; nothing was sent"
    )


@pytest.mark.parametrize(
    ("zone", "got"), [("UTC", "column Date"), ("Europe/Paris", "connection refused")]
)
async def test_today_is_that_of_the_reporting_zone(tmp_path: Path, zone: str, got: str) -> None:
    file = tmp_path / "ahead.csv"
    file.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8")
    environ = {"LEADPULSE_KAFKA": f"localhost:{free_port()}", "LEADPULSE_TIME_ZONE": zone}
    # 23:00 UTC on the day before the row's: in Paris it is 1:00 on that day.
    clock = ManualClock(int(datetime(2023, 8, 30, 23, tzinfo=UTC).timestamp()) * 1000)
    with pytest.raises(Problem, match=f"(?i){got}"):
        await import_file(load(environ), file, lambda _sent, _total: None, clock)


def test_longest_ids_make_event_ids_that_are_accepted() -> None:
    longest = "x" * 28
    row = a_row(campaign_id=longest, ad_group_id=longest, ad_id=longest, repeat=999_999)
    found = list(events([row._replace(leads=100_000, sales=0)], PARIS, "EUR"))
    for topic, _, value in (*found[:3], found[-1]):
        read(topic, encode(value), -1, Rules(time_zone=PARIS))


def test_days_follow_each_other_without_gap() -> None:
    on = date(2023, 10, 28)
    days = [next(events([a_row(on=on + timedelta(n))], PARIS, "EUR")).value for n in range(3)]
    assert days[0]["period_end"] == days[1]["period_start"]
    assert days[1]["period_end"] == days[2]["period_start"]
