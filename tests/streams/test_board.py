"""What the live page shows, read from fakeredis and from a real server alike."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from kpis.facts import COHORT, OVERALL, Scope
from kpis.money import MICROS
from streams.board import (
    CAMPAIGN_SLOTS,
    CHOICE_SECONDS,
    MOST_CAMPAIGNS,
    MOST_CHANNELS,
    OK,
    SLOTS,
    UNREACHABLE,
    Board,
    BoardReader,
    Change,
    Status,
    changes,
    connect,
)
from streams.clock import Clock, ManualClock, SystemClock
from streams.embedded import EmbeddedRedis
from streams.publishers import SLOTS as ALL_SLOTS
from streams.publishers import Hour, ScopeView
from streams.publishers.redis_hashes import connect as connect_worker
from tests.contracts.test_redis_hashes import Worker
from tests.parts.redis_server import RedisServer
from tests.streams.pages import settings_for, show
from tests.streams.publishers.views import CAMPAIGN, NOON, NOON_MS, alert_view, version, view

GOOGLE = Scope("google_ads", None)
PAID = {"clicks": 3, "cost": 6 * MICROS, "cost_records": 1, "leads_gross": 2}
BORN = {"leads": 3}
NOW_MS = NOON_MS + 1_500


@dataclass
class Place:
    """A Redis, fake or real, with what a test reads there."""

    url: str
    client: Redis

    async def show(self, *views: ScopeView) -> None:
        """Write views as a worker does."""
        await show(connect_worker(self.url), *views)

    async def board(self, clock: Clock | None = None) -> Board:
        """Return the board as one who just came sees it."""
        reader = self.reader(clock)
        try:
            return await reader.read()
        finally:
            await reader.close()

    def reader(self, clock: Clock | None = None) -> BoardReader:
        """Return what reads the board."""
        return BoardReader(settings_for(self.url), clock or ManualClock(NOW_MS), connect(self.url))


@pytest.fixture(scope="module")
def fake_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
async def place(request: pytest.FixtureRequest, fake_redis: EmbeddedRedis) -> AsyncIterator[Place]:
    if request.param == "fake":
        url = fake_redis.url
    else:
        url = request.getfixturevalue("redis_server").url.removesuffix("/0") + "/8"
    client = connect(url)
    await client.flushdb()
    yield Place(url, client)
    await client.aclose()


# --------------------------------------------------------------------------- reading


async def test_a_board_has_every_field_of_each_hash_as_it_is_in_redis(place: Place) -> None:
    await place.show(
        view(dict.fromkeys(ALL_SLOTS, PAID), OVERALL),
        view(dict.fromkeys(ALL_SLOTS, PAID), GOOGLE),
        view(dict.fromkeys(ALL_SLOTS, BORN), GOOGLE, basis=COHORT),
        view(dict.fromkeys(ALL_SLOTS, PAID), CAMPAIGN),
    )

    numbers = (await place.board()).numbers

    expected = {
        *(f"period|{slot}|{channel}|_all" for slot in SLOTS for channel in ("_all", "google_ads")),
        *(f"cohort|{slot}|google_ads|_all" for slot in SLOTS),
        *(f"period|{slot}|google_ads|c-42" for slot in CAMPAIGN_SLOTS),
    }
    assert set(numbers) == expected
    for key, fields in numbers.items():
        assert fields == await place.client.hgetall(f"leadkpi:v1:{key.replace('|', ':')}")
    assert numbers["period|1d|google_ads|c-42"]["cpl"] == "3.0"


async def test_a_board_says_what_the_deployment_is(place: Place) -> None:
    board = await place.board()

    assert (board.version, board.time_zone, board.currency) == (1, "Europe/Paris", "EUR")
    assert board.funnel == ("visitor", "lead", "mql", "sql", "customer")
    assert (board.kpis["cpl"].unit, board.kpis["cpl"].french) == ("amount", "Coût par lead")
    assert board.status == Status(
        OK, None, None, "2026-03-29T12:00:01.500Z", "2026-03-29T12:00:01.500Z"
    )
    assert (board.numbers, board.series, board.alerts) == ({}, {}, [])
    assert board.more_channels == 0


async def test_complete_until_is_that_of_the_wholes_newest_numbers(place: Place) -> None:
    whole = view({"1d": PAID, "last_1h": PAID}, OVERALL)
    await place.show(whole, view({"1d": PAID}, GOOGLE))

    assert (await place.board()).status.complete_until == "2026-03-29T11:59:55Z"


async def test_hours_are_numbers_with_the_oldest_first(place: Place) -> None:
    starts = [NOON - 60 * back for back in (49, 7, 0)]
    hours = {
        start: Hour(start, 10, number, None if number == 1 else 6_500_000, 4, 2, 1, -7 * MICROS)
        for number, start in enumerate(starts)
    }
    await place.show(view({"1d": PAID}, GOOGLE)._replace(hours=hours), view({"1d": PAID}, OVERALL))

    assert (await place.board()).series == {
        "google_ads": [
            (60_000 * starts[0], 10, 0, 6.5, 4, 2, 1, -7.0),
            (60_000 * starts[1], 10, 1, None, 4, 2, 1, -7.0),
            (60_000 * starts[2], 10, 2, 6.5, 4, 2, 1, -7.0),
        ]
    }


async def test_alerts_are_the_records_of_those_listed_the_newest_first(place: Place) -> None:
    older = alert_view("fired", OVERALL)
    newer = alert_view("fired", Scope("seo", "a|b:é"), rule="my rule")
    async with Worker(connect_worker(place.url)) as worker:
        worker.snapshot.replace_alert(older)
        worker.snapshot.replace_alert(newer)
    await place.client.zincrby("leadkpi:v1:alerts", 60, "my%20rule|seo|a%7Cb:%C3%A9")

    shown = (await place.board()).alerts

    assert newer.value is not None
    assert older.value is not None
    assert shown == [json.loads(newer.value), json.loads(older.value)]


async def test_an_alert_that_is_listed_without_a_record_is_left_out(place: Place) -> None:
    await place.client.zadd("leadkpi:v1:alerts", {"cpl_spike|_all|_all": NOON_MS // 1000})

    assert (await place.board()).alerts == []


async def test_names_of_campaigns_stay_escaped(place: Place) -> None:
    await place.show(view({"1d": PAID}, Scope("seo", "Été|1 %")))

    assert list((await place.board()).numbers) == ["period|1d|seo|%C3%89t%C3%A9%7C1%20%25"]


async def test_the_campaigns_that_changed_last_are_shown_for_a_while(place: Place) -> None:
    many = MOST_CAMPAIGNS + 5
    await place.show(*(view({"1d": PAID}, Scope("seo", f"c{n}")) for n in range(many)))
    clock = ManualClock(NOW_MS)
    reader = place.reader(clock)
    for number in range(many):
        await place.client.zadd("leadkpi:v1:scopes", {f"seo|c{number}": number})
    newest = {f"period|1d|seo|c{n}" for n in range(many - MOST_CAMPAIGNS, many)}
    assert set((await reader.read()).numbers) == newest

    await place.client.zadd("leadkpi:v1:scopes", {"seo|c0": many})
    clock.advance(timedelta(seconds=CHOICE_SECONDS - 1))
    assert set((await reader.read()).numbers) == newest
    clock.advance(timedelta(seconds=1))
    assert "period|1d|seo|c0" in (await reader.read()).numbers
    await reader.close()


async def test_the_channels_that_changed_last_are_shown_for_a_while_and_the_rest_counted(
    place: Place,
) -> None:
    many = MOST_CHANNELS + 3
    names = [f"c{number:02}" for number in range(many)]
    await place.show(
        view({"1d": PAID}, OVERALL), *(view({"1d": PAID}, Scope(name, None)) for name in names)
    )
    # The whole is shown however long ago it changed.
    listed = {f"{name}|_all": number + 1 for number, name in enumerate(names)}
    await place.client.zadd("leadkpi:v1:channels", {"_all|_all": 0, **listed})
    clock = ManualClock(NOW_MS)
    reader = place.reader(clock)
    newest = {f"period|1d|{name}|_all" for name in ("_all", *names[3:])}
    before = await reader.read()
    assert (set(before.numbers), before.more_channels) == (newest, 3)

    await place.client.zadd("leadkpi:v1:channels", {"c00|_all": many + 1})
    clock.advance(timedelta(seconds=CHOICE_SECONDS - 1))
    assert set((await reader.read()).numbers) == newest
    clock.advance(timedelta(seconds=1))
    assert "period|1d|c00|_all" in (await reader.read()).numbers
    await place.client.zrem("leadkpi:v1:channels", *(f"{name}|_all" for name in names[3:]))
    clock.advance(timedelta(seconds=CHOICE_SECONDS))
    after = await reader.read()
    assert (len(after.numbers), after.more_channels) == (4, 0)
    change = changes(before, after)
    assert change is not None
    assert apply(before, change) == after
    await reader.close()


async def test_a_channel_that_is_new_is_shown_at_once_where_there_is_room(place: Place) -> None:
    reader = place.reader(ManualClock(NOW_MS))
    await place.show(view({"1d": PAID}, OVERALL))
    await reader.read()
    await place.show(view({"1d": PAID}, GOOGLE))

    assert "period|1d|google_ads|_all" in (await reader.read()).numbers
    await reader.close()


async def test_a_board_without_redis_says_so_and_what_to_do() -> None:
    board = await BoardReader(settings_for(""), SystemClock(), None).read()

    assert board.status.redis == UNREACHABLE
    assert board.status.problem is not None
    assert board.status.problem.endswith("got nothing; set LEADPULSE_REDIS")
    assert board.status.read_at is None


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", "leadkpi:v1:series:1h:google_ads", "x", "[1,2]"),
        ("ZADD", "leadkpi:v1:channels", 1, "%FF|_all"),
        ("SET", "leadkpi:v1:alerts", "x"),
    ],
)
async def test_what_is_no_number_of_ours_is_told_and_not_shown(
    command: tuple[str | int, ...], place: Place
) -> None:
    await place.show(view({"1d": PAID}, GOOGLE))
    reader = place.reader()
    before = await reader.read()
    await place.client.execute_command(*command)  # type: ignore[no-untyped-call] # untyped there

    after = await reader.read()

    assert after.status.redis == UNREACHABLE
    assert " expected " in str(after.status.problem)
    assert after.numbers == before.numbers
    await reader.close()


@pytest.mark.integration
async def test_while_redis_is_away_the_last_numbers_stay_with_their_age() -> None:
    with RedisServer() as server:
        await show(connect_worker(server.url), view({"1d": PAID}, OVERALL))
        clock = ManualClock(NOW_MS)
        reader = BoardReader(settings_for(server.url), clock, connect(server.url))
        before = await reader.read()
        server.kill()
        clock.advance(timedelta(minutes=2))
        after = await reader.read()
        server.start()
        again = await reader.read()
        await reader.close()

    assert after.numbers == before.numbers != {}
    assert after.status.redis == UNREACHABLE
    assert str(after.status.problem).startswith(f"Redis at {server.url}: expected a server")
    assert after.status.read_at == before.status.now == "2026-03-29T12:00:01.500Z"
    assert after.status.now == "2026-03-29T12:02:01.500Z"
    assert (again.status.redis, again.numbers) == (OK, {})


async def test_a_password_is_not_in_a_problem() -> None:
    url = "redis://:s3cret@127.0.0.1:1/0"
    reader = BoardReader(settings_for(url), SystemClock(), connect(url))

    problem = (await reader.read()).status.problem

    assert problem is not None
    assert "127.0.0.1:1" in problem
    assert "s3cret" not in problem


# --------------------------------------------------------------------------- changes


def apply(before: Board, change: Change) -> Board:
    """Return what a viewer has after a change, as the page does it."""
    parts: dict[str, object] = {"status": change.status}
    for name in ("numbers", "series"):
        merged = getattr(before, name) | getattr(change, name)
        parts[name] = {key: value for key, value in merged.items() if value is not None}
    for name in ("alerts", "more_channels"):
        if getattr(change, name) is not msgspec.UNSET:
            parts[name] = getattr(change, name)
    return msgspec.structs.replace(before, **parts)


async def test_changes_have_only_what_is_new_and_lead_from_one_board_to_the_next(
    place: Place,
) -> None:
    hour = {NOON: Hour(NOON, 10, 3, None, 0, 0, 0, 0)}
    await place.show(
        view({"1d": PAID, "1h": PAID}, GOOGLE)._replace(hours=hour), view({"1d": PAID}, OVERALL)
    )
    before = await place.board()
    later = {"1d": {**PAID, "clicks": 4}}
    await place.show(view(later, GOOGLE, at=version(11)))
    async with Worker(connect_worker(place.url)) as worker:
        worker.snapshot.replace_alert(alert_view("fired"))
    after = await place.board()

    change = changes(before, after)

    assert change is not None
    assert set(change.numbers) == {"period|1d|google_ads|_all", "period|1h|google_ads|_all"}
    assert change.numbers["period|1h|google_ads|_all"] is None
    assert change.series == {"google_ads": None}
    assert apply(before, change) == after


async def test_time_alone_is_no_change(place: Place) -> None:
    await place.show(view({"1d": PAID}, OVERALL))
    clock = ManualClock(NOW_MS)
    reader = place.reader(clock)
    before = await reader.read()
    clock.advance(timedelta(seconds=40))

    after = await reader.read()

    assert after.status.now != before.status.now
    assert changes(before, after) is None
    await reader.close()


@pytest.mark.parametrize(
    "differ",
    [
        lambda status: msgspec.structs.replace(status, redis=UNREACHABLE, problem="gone"),
        lambda status: msgspec.structs.replace(status, complete_until="2026-03-29T12:00:00Z"),
    ],
)
def test_a_change_of_the_status_is_told_by_itself(differ: Callable[[Status], Status]) -> None:
    before = msgspec.structs.replace(
        Board.empty(settings_for("")), status=Status(OK, None, None, None, "")
    )
    after = msgspec.structs.replace(before, status=differ(before.status))

    change = changes(before, after)

    assert change == Change(after.status)
    assert set(msgspec.json.decode(msgspec.json.encode(change))) == {"status"}
