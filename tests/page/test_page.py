"""The live page in a real Chromium, on a Redis that the tests write themselves."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from kpis.facts import OVERALL, Scope
from streams import audience
from streams.board import MOST_CHANNELS, connect
from streams.embedded import EmbeddedRedis
from streams.publishers import SHOWN_HOURS, Hour
from streams.publishers.redis_hashes import connect as connect_worker
from tests.contracts.test_redis_hashes import Worker
from tests.integration.running import until
from tests.page.browser import Watched, chromium, visit
from tests.parts.install import MissingPartError
from tests.streams.pages import Site, serve, settings_for, show
from tests.streams.publishers.views import NOON, alert_view, version, view

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PAID: Final = {"clicks": 3, "leads": 2}
HOUR: Final = timedelta(hours=1)
LIVE: Final = """() => [...document.querySelectorAll('[role=status], [aria-live]')].map((node) => {
    const heard = node.cloneNode(true);
    heard.querySelectorAll('[aria-hidden=true], [hidden]').forEach((one) => one.remove());
    return heard.textContent;
  }).join('|')"""


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    try:
        async with chromium() as started:
            yield started
    except MissingPartError as error:
        pytest.skip(str(error))


class Opened(NamedTuple):
    """A page that somebody has open, what serves it, and the streams that it asked for since."""

    site: Site
    watched: Watched
    streams: list[str]

    @property
    def page(self) -> Page:
        """The page itself."""
        return self.watched.page

    async def is_live(self) -> bool:
        """Tell whether the page says that it is connected."""
        return "open" in str(await self.page.locator("#connection").get_attribute("class"))


@asynccontextmanager
async def opened(browser: Browser, url: str, locale: str = "en-GB") -> AsyncIterator[Opened]:
    """Open the page of a Redis, or of none, on a clock that can be moved on."""
    async with serve(settings_for(url)) as site, visit(browser, site.url, locale=locale) as watched:
        page, streams = watched.page, list[str]()
        page.on(
            "request", lambda asked: streams.append(asked.url) if "/live" in asked.url else None
        )
        await page.clock.install()
        await page.reload()
        found = Opened(site, watched, streams)
        await until(found.is_live, "a page that is connected")
        streams.clear()
        yield found


async def emptied(redis: EmbeddedRedis) -> str:
    """Return the address of the Redis without any numbers."""
    client = connect(redis.url)
    await client.flushdb()
    await client.aclose()
    return redis.url


# ------------------------------------------------------------------------- the connection


async def test_connection_that_went_silent_is_made_anew_at_once(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "PING_SECONDS", 1_000.0)
    async with opened(browser, "") as open_page:
        # As a laptop's lid that was closed does it.
        await open_page.page.clock.fast_forward(41_000)

        async def is_asked_again() -> bool:
            return bool(open_page.streams)

        await until(is_asked_again, "a second stream")
        await until(open_page.is_live, "a page that is connected again")


async def test_pings_show_that_a_connection_lives(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "PING_SECONDS", 0.2)
    async with opened(browser, "") as open_page:
        for _ in range(3):
            await open_page.page.clock.fast_forward(30_000)
            await open_page.page.wait_for_timeout(1_500)
        assert open_page.streams == []
        assert await open_page.is_live()


# ------------------------------------------------------------------------- what is read aloud


async def test_nothing_is_read_aloud_because_time_passes(
    browser: Browser, redis: EmbeddedRedis
) -> None:
    url = await emptied(redis)
    ago = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    await show(connect_worker(url), view({"1d": PAID}, OVERALL))
    client = connect(url)
    await client.hset("leadkpi:v1:period:1d:_all:_all", "_complete_until", ago)
    await client.aclose()
    async with Worker(connect_worker(url)) as worker:
        worker.snapshot.replace_alert(alert_view("fired", since=ago))
    async with opened(browser, url) as open_page:
        page = open_page.page
        assert await page.locator("#notice .notice").get_attribute("data-kind") == "stale"
        since = page.locator("#firing .fires .quiet")
        heard, seen = await page.evaluate(LIVE), await since.inner_text()
        assert "The numbers are late" in heard
        assert ", for " in seen

        await page.clock.fast_forward(20_000)
        await page.get_by_role("button", name="By lead").click()

        async def is_older() -> bool:
            return await since.inner_text() != seen

        await until(is_older, "an older alert")
        assert await page.evaluate(LIVE) == heard


# ------------------------------------------------------------------------- channels


async def test_channels_may_be_called_as_what_every_object_has(
    browser: Browser, redis: EmbeddedRedis
) -> None:
    url = await emptied(redis)
    odd = [Scope(name, None) for name in ("constructor", "__proto__", "valueof")]
    await show(connect_worker(url), *(view({"1d": PAID}, scope) for scope in (OVERALL, *odd)))
    async with opened(browser, url) as open_page:
        rows = open_page.page.locator("tr.channel")
        await until(rows.first.is_visible, "the channels")
        names = [await row.get_attribute("data-scope") for row in await rows.all()]
        assert sorted(map(str, names)) == ["__proto__|_all", "constructor|_all", "valueof|_all"]
        hours = {NOON: Hour(NOON, 10, 3, 0, 2, 0, 0, 0)}
        news = [view({"1d": PAID}, scope, at=version(11)) for scope in odd[:2]]
        await show(connect_worker(url), *(one._replace(hours=hours) for one in news))

        lines = open_page.page.locator("tr.channel svg.spark:not([hidden])")

        async def has_both() -> bool:
            return await lines.count() == 2

        await until(has_both, "the hours of two channels")
        assert open_page.watched.faults == []


@pytest.mark.parametrize(
    ("locale", "text"),
    [("en-GB", "2 more channels are not shown"), ("fr-FR", "2 autres canaux ne sont pas affichés")],
)
async def test_page_says_how_many_channels_it_leaves_out(
    browser: Browser, redis: EmbeddedRedis, locale: str, text: str
) -> None:
    url = await emptied(redis)
    many = [Scope(f"c{number}", None) for number in range(MOST_CHANNELS + 2)]
    await show(connect_worker(url), *(view({"1d": PAID}, scope) for scope in (OVERALL, *many)))
    async with opened(browser, url, locale) as open_page:
        note = open_page.page.locator("#channels", has_text=text)
        await until(note.is_visible, text)
        assert await open_page.page.locator("tr.channel").count() == MOST_CHANNELS
        client = connect(url)
        await client.zrem("leadkpi:v1:channels", "c0|_all", "c1|_all")
        await client.aclose()

        async def is_gone() -> bool:
            return not await note.count() or not await note.is_visible()

        await until(is_gone, "a page with all channels")


# ------------------------------------------------------------------------- zones and hours


async def test_zone_that_the_browser_does_not_know_is_shown_in_utc(browser: Browser) -> None:
    async with serve(settings_for("")) as site, visit(browser, site.url) as watched:
        now = datetime.fromisoformat((await site.board())["status"]["now"])
        running = int(now.replace(minute=0, second=0, microsecond=0).timestamp()) * 1000
        board = {
            **await site.board(),
            "time_zone": "Mars/Olympus_Mons",
            "series": {"_all": [[running - 3_600_000, 9, 9, 9.0, 9, 0, 0, 0]]},
        }

        async def tell(route: Route) -> None:
            body = f"retry: 3600000\n\nid: 1\nevent: board\ndata: {json.dumps(board)}\n\n"
            await route.fulfill(content_type="text/event-stream", body=body)

        await watched.page.route("**/live", tell)
        await watched.page.reload()
        await until(watched.page.locator("#chart canvas").is_visible, "the chart")
        assert watched.faults == []


PARIS: Final = ZoneInfo("Europe/Paris")
COMPARE: Final = """([board, name]) => import('/page/numbers.js')
  .then(({ comparison }) => comparison(board, 'period', '1d', name)?.before ?? null)"""


def a_board(
    now: str, hours: Mapping[datetime, float], name: str = "leads", *, today: int = 9, ever: int = 0
) -> dict[str, Any]:
    """Return a board in Paris whose series says a fact by hours.

    Args:
        now: The time in Paris.
        hours: What happened in each hour in which anything did.
        name: Of the fact.
        today: What is said of it today.
        ever: What is said of it in all time, the hours included.
    """
    at = datetime.fromisoformat(now).replace(tzinfo=PARIS)
    midnight = at.replace(hour=0, minute=0)
    places = {"leads": 4, "revenue_net": 7}
    series = [[hour.timestamp() * 1000, *7 * [0]] for hour in hours]
    for row, value in zip(series, hours.values(), strict=True):
        row[places[name]] = value
    return {
        "kpis": {},
        "time_zone": PARIS.key,
        "status": {"complete_until": at.isoformat(), "now": at.isoformat()},
        "numbers": {
            "period|1d|_all|_all": {
                "_start": midnight.isoformat(),
                "_end": (midnight + timedelta(days=1)).isoformat(),
                name: str(today),
            },
            "period|lifetime|_all|_all": {name: str(ever)},
        },
        "series": {"_all": series},
    }


def hours_until(now: str) -> list[datetime]:
    """Return the beginnings of the hours that a series can hold at a time in Paris, in UTC."""
    at = datetime.fromisoformat(now).replace(minute=0, tzinfo=PARIS).astimezone(UTC)
    return [at - HOUR * back for back in reversed(range(SHOWN_HOURS))]


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        # A day of 25 hours, and the one after it.
        ("2026-10-25T12:00", 12),
        ("2026-10-25T23:30", 23.5),
        ("2026-10-26T01:30", 1.5),
        ("2026-10-26T12:00", 13),
        ("2026-10-26T23:59", 24 + 59 / 60),
        # A day of 23 hours, and the one after it.
        ("2026-03-29T12:00", 12),
        ("2026-03-29T23:30", 23.5),
        ("2026-03-30T12:00", 11),
    ],
)
async def test_today_is_compared_with_yesterday_up_to_the_same_time_of_the_clock(
    browser: Browser, now: str, hours: float
) -> None:
    async with serve(settings_for("")) as site, visit(browser, site.url) as watched:
        board = a_board(now, dict.fromkeys(hours_until(now), 1), ever=SHOWN_HOURS)

        before = await watched.page.evaluate(COMPARE, [board, "leads"])

        assert before == pytest.approx(hours)


async def test_nothing_is_a_part_of_a_loss(browser: Browser) -> None:
    async with serve(settings_for("")) as site, visit(browser, site.url) as watched:
        now = "2026-06-10T12:00"
        hours = dict.fromkeys(hours_until(now), -10.0)
        board = a_board(now, hours, "revenue_net", today=60)

        assert await watched.page.evaluate(COMPARE, [board, "revenue_net"]) is None


async def test_hours_without_facts_are_compared_if_counting_had_begun(browser: Browser) -> None:
    async with serve(settings_for("")) as site, visit(browser, site.url) as watched:
        now = "2026-06-10T23:30"
        by_day = [at for at in hours_until(now) if 7 <= at.astimezone(PARIS).hour < 21]
        hours = dict.fromkeys(by_day, 1.0)
        assert len(by_day) == 28

        async def before(board: dict[str, Any]) -> object:
            return await watched.page.evaluate(COMPARE, [board, "leads"])

        assert await before(a_board(now, hours, ever=1_000)) == 14
        # All that was ever counted came after yesterday had begun.
        assert await before(a_board(now, hours, ever=28)) is None
        # What a series holds does not reach back to the day before a day long ago.
        late = a_board(now, hours, ever=1_000)
        late["status"]["now"] = "2026-06-11T02:00+02:00"
        assert await before(late) is None
