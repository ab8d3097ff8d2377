"""Zones whose clocks do odd things, and minutes around those moments."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from kpis.calendar import Calendar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ZONES = (
    "UTC",
    "Europe/Paris",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kathmandu",  # a quarter of an hour off
    "America/Sao_Paulo",  # midnight skipped and repeated until 2019
    "America/St_Johns",  # at one minute past midnight until 2011
    "America/Havana",
    "Pacific/Apia",  # a day left out in 2011
    "Antarctica/Casey",  # days of 21 and 27 hours
)
CALENDARS = {name: Calendar(ZoneInfo(name)) for name in ZONES}


def ms(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def minute(text: str) -> int:
    return ms(text) // 60_000


MINUTES = st.one_of(
    st.integers(minute("2000-01-02T00:00:00Z"), minute("2100-12-30T00:00:00Z")),
    st.sampled_from(
        [
            minute("2026-03-29T01:00:00Z"),
            minute("2026-10-25T01:00:00Z"),
            minute("2026-04-04T15:00:00Z"),
            minute("2026-10-03T15:30:00Z"),
            minute("2018-02-18T02:00:00Z"),
            minute("2018-11-04T03:00:00Z"),
            minute("2006-04-02T03:31:00Z"),
            minute("2006-10-29T02:31:00Z"),
            minute("2011-12-30T10:00:00Z"),
            minute("2010-03-04T15:00:00Z"),
            minute("2009-10-17T18:00:00Z"),
        ]
    ).flatmap(lambda change: st.integers(change - 1600, change + 1600)),
)
