"""The live page over HTTP: a real server on fakeredis and on a real Redis, and viewers of all kinds."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from kpis.facts import OVERALL
from streams import audience
from streams.audience import GREETING, GZIP_HEAD, MOST_WAITING, PING, Audience, Event, Viewer
from streams.board import BoardReader, connect
from streams.clock import ManualClock
from streams.embedded import EmbeddedRedis
from streams.live_page import FOLDER, SECURITY, host_of, is_local, page_files
from streams.publishers import ScopeView
from streams.publishers.redis_hashes import connect as connect_worker
from streams.settings import Settings
from tests.parts.redis_server import RedisServer
from tests.streams.pages import Site, serve, settings_for, show
from tests.streams.publishers.views import NOON_MS, version, view

DAY = "period|1d|_all|_all"


@dataclass
class Place:
    """A Redis, fake or real."""

    url: str
    client: Redis

    @property
    def settings(self) -> Settings:
        """The settings of a worker with this Redis."""
        return settings_for(self.url)

    async def show(self, *views: ScopeView) -> None:
        """Write views as a worker does."""
        await show(connect_worker(self.url), *views)

    async def show_clicks(self, clicks: int, at: int = 10) -> None:
        """Write the whole's clicks of the day."""
        await self.show(view({"1d": {"clicks": clicks}}, OVERALL, at=version(at)))


@pytest.fixture(scope="module")
def fake_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
async def place(request: pytest.FixtureRequest, fake_redis: EmbeddedRedis) -> AsyncIterator[Place]:
    if request.param == "fake":
        url = fake_redis.url
    else:
        url = request.getfixturevalue("redis_server").url.removesuffix("/0") + "/9"
    client = connect(url)
    await client.flushdb()
    yield Place(url, client)
    await client.aclose()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Return a page without a Redis."""
    async with serve(settings_for("")) as served:
        yield served


async def until_viewers(site: Site, count: int) -> None:
    """Return when so many watch; nobody is told of it."""
    async with asyncio.timeout(10):
        while len(site.page.audience) != count or is_reading(site) != bool(count):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_reading(site: Site) -> bool:
    """Tell whether Redis is read again and again."""
    return site.page.audience.is_reading


# --------------------------------------------------------------------------- files


async def test_the_page_and_its_files_are_served_as_they_are_in_the_package(site: Site) -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert "index.html" in {path.name for path in files}
    for path in files:
        answer = await site.get(f"/page/{path.name}", Accept_Encoding="identity")
        assert (answer.status, answer.body) == (200, path.read_bytes()), path.name
    index = await site.get("/", Accept_Encoding="identity")
    assert index.body == (FOLDER / "index.html").read_bytes()
    assert index.headers["Content-Type"] == "text/html; charset=utf-8"


async def test_text_is_packed_for_who_takes_it_and_what_is_known_is_not_sent_again(
    site: Site,
) -> None:
    plain = await site.get("/", Accept_Encoding="identity")
    packed = await site.get("/", Accept_Encoding="br, gzip")
    tag = plain.headers["ETag"]
    known = await site.get("/", If_None_Match=tag)

    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(plain.body)
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["Vary"] == "Accept-Encoding"
    assert plain.headers["Cache-Control"] == "no-cache"
    assert (known.status, known.body, known.headers["ETag"]) == (304, b"", tag)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/page/../board.py",
            "/page/..%2Fboard.py",
            "/page/%2e%2e/board.py",
            "/page/..%5cboard.py",
        ),
        *("/page//etc/passwd", "/page/%2Fetc%2Fpasswd", "/page/index.html%00.css", "/page/."),
        *("/page/../../pyproject.toml", "/page/....//board.py", "/page/nothing.css", "/page/"),
    ],
)
async def test_no_path_leads_out_of_the_folder(path: str, site: Site) -> None:
    answer = await site.get(path, Accept_Encoding="identity")

    assert answer.status == 404
    assert b"import" not in answer.body


def test_only_files_of_known_kinds_are_served(tmp_path: Path) -> None:
    for name in ("page.css", "module.py", ".hidden", "noext"):
        (tmp_path / name).write_text("text " * 100)
    (tmp_path / "folder.css").mkdir()

    assert list(page_files(tmp_path)) == ["page.css"]


async def test_every_answer_lets_nothing_come_from_elsewhere(site: Site) -> None:
    for path in ("/", "/page/index.html", "/board", "/page/nothing", "/favicon.ico"):
        headers = (await site.get(path)).headers
        assert SECURITY.items() <= dict(headers).items(), path
    async with site.watch() as stream:
        assert SECURITY.items() <= dict(stream.response.headers).items()
    policy = SECURITY["Content-Security-Policy"]
    assert "default-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy


async def test_metrics_and_health_are_where_they_were(site: Site) -> None:
    assert b"leadkpi_build_info" in (await site.get("/metrics", Accept_Encoding="identity")).body
    assert (await site.get("/healthz")).body == b"ok\n"


# --------------------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9464", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:9464", 200),
        ("LOCALHOST.", 200),
        ("leadpulse.localhost", 200),
        ("attacker.example", 421),
        ("attacker.example:9464", 421),
        ("localhost.attacker.example", 421),
        ("192.0.2.7:9464", 421),
    ],
)
async def test_a_local_page_is_not_served_under_the_name_of_a_stranger(
    host: str, status: int, site: Site
) -> None:
    for path in ("/", "/board"):
        answer = await site.get(path, Host=host, Accept_Encoding="identity")
        assert answer.status == status
        assert (b"LEADPULSE_METRICS_HOSTS" in answer.body) == (status != 200)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9464", 200),
        ("leadpulse.example.com", 200),
        ("LeadPulse.example.com.:443", 200),
        ("192.0.2.7:9464", 200),
        ("[2001:db8::7]:9464", 200),
        ("attacker.example", 421),
        ("leadpulse.example.com.attacker.example", 421),
    ],
)
async def test_a_page_with_names_is_served_under_no_other(host: str, status: int) -> None:
    names = {
        "LEADPULSE_METRICS": "0.0.0.0:9464",
        "LEADPULSE_METRICS_HOSTS": "leadpulse.example.com",
    }
    async with serve(settings_for("", **names)) as site:
        assert (await site.get("/board", Host=host)).status == status
        assert (await site.get("/metrics", Host=host)).status == 200


async def test_a_page_for_a_network_is_served_under_any_name() -> None:
    async with serve(settings_for("", LEADPULSE_METRICS="0.0.0.0:9464")) as site:
        assert (await site.get("/board", Host="leadpulse.example.com")).status == 200


@pytest.mark.parametrize(
    ("text", "host"),
    [("a.b:1", "a.b"), ("a.b", "a.b"), ("[::1]:5", "::1"), ("[::1]", "::1"), ("", "")],
)
def test_a_host_is_read_without_its_port(text: str, host: str) -> None:
    assert host_of(text) == host


def test_what_is_local_is_known_by_its_name() -> None:
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "x.localhost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.com")))


# --------------------------------------------------------------------------- the board


async def test_the_board_is_that_of_redis_and_may_not_be_stored(place: Place) -> None:
    await place.show_clicks(3)
    async with serve(place.settings) as site:
        answer = await site.get("/board", Accept_Encoding="gzip")
        board = msgspec.json.decode(gzip.decompress(answer.body))

    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert list(board) == [
        *("version", "software", "time_zone", "currency", "funnel", "kpis", "status"),
        *("numbers", "series", "alerts", "more_channels"),
    ]
    assert board["numbers"][DAY]["clicks"] == "3"
    assert board["status"]["redis"] == "ok"


async def test_a_board_is_encoded_once_for_all_who_ask_within_a_second() -> None:
    clock = ManualClock(NOON_MS)
    crowd = Audience(BoardReader(settings_for(""), clock, None), clock)
    first = await crowd.document()
    clock.advance(timedelta(milliseconds=900))
    again = await crowd.document()
    clock.advance(timedelta(milliseconds=100))
    later = await crowd.document()

    assert again.packed is first.packed
    assert gzip.decompress(first.packed) == first.body
    assert later.body != first.body


async def test_a_page_without_redis_says_so(site: Site) -> None:
    board = await site.board()

    assert board["status"]["redis"] == "unreachable"
    assert "LEADPULSE_REDIS" in board["status"]["problem"]
    assert board["numbers"] == {}


# --------------------------------------------------------------------------- the stream


async def test_a_viewer_gets_the_board_and_then_what_changes(place: Place) -> None:
    await place.show_clicks(3)
    async with serve(place.settings) as site, site.watch() as stream:
        first = await stream.next()
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.retry_ms == 2_000
        assert (first.name, first.content["numbers"][DAY]["clicks"]) == ("board", "3")

        await place.show_clicks(4, at=11)
        second = await stream.next()

    assert second.name == "change"
    assert second.number > first.number
    assert set(second.content) == {"status", "numbers"}
    assert set(second.content["numbers"]) == {DAY}
    assert second.content["numbers"][DAY]["clicks"] == "4"


async def test_who_comes_later_gets_the_board_of_now_and_then_the_same_changes(
    place: Place,
) -> None:
    await place.show_clicks(3)
    async with serve(place.settings) as site, site.watch() as early:
        await early.next()
        await place.show_clicks(4, at=11)
        await early.next()
        async with site.watch(Accept_Encoding="identity", Last_Event_ID="1") as late:
            board = await late.next()
            await place.show_clicks(5, at=12)
            assert await early.next() == await late.next()

    assert board.name == "board"
    assert board.content["numbers"][DAY]["clicks"] == "4"


async def test_redis_is_only_read_while_somebody_watches(place: Place) -> None:
    async with serve(place.settings) as site:
        assert not is_reading(site)
        async with site.watch() as stream:
            await stream.next()
            assert is_reading(site)
        await until_viewers(site, 0)
        assert not is_reading(site)
        # The next one is not shown what the one before saw.
        await place.show_clicks(9)
        async with site.watch() as stream:
            assert (await stream.next()).content["numbers"][DAY]["clicks"] == "9"


@pytest.mark.integration
async def test_viewers_hear_that_redis_went_away_and_came_back() -> None:
    with RedisServer() as server:
        await show(connect_worker(server.url), view({"1d": {"clicks": 3}}, OVERALL))
        async with serve(settings_for(server.url)) as site, site.watch() as stream:
            await stream.next()
            server.kill()
            gone = await stream.next()
            server.start()
            back = await stream.next()
            while back.content["status"]["redis"] != "ok":
                back = await stream.next()

    # The numbers stay, and their age is told.
    assert gone.content.keys() == {"status"}
    assert gone.content["status"]["redis"] == "unreachable"
    assert gone.content["status"]["read_at"] < gone.content["status"]["now"]
    assert back.content["numbers"] == {DAY: None}


async def test_no_more_may_watch_than_there_is_room_for() -> None:
    async with serve(settings_for(""), most_viewers=2) as site:
        async with site.watch() as one, site.watch() as two:
            await one.next()
            await two.next()
            refused = await site.get("/live")
            assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        await until_viewers(site, 0)
        async with site.watch() as three:
            assert (await three.next()).name == "board"


async def test_streams_end_with_the_worker() -> None:
    async with serve(settings_for("")) as site, site.watch() as stream:
        await stream.next()
        async with asyncio.timeout(5):
            await site.page.stop()
        with pytest.raises(EOFError):
            await stream.next()
        assert (await site.get("/live")).status == 503


async def test_who_asks_for_the_head_of_the_stream_is_not_kept_waiting(site: Site) -> None:
    async with site.session.head(f"{site.url}/live") as response:
        assert response.status == 405


async def test_a_viewer_who_does_not_read_is_cut_off_and_nobody_waits_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "READ_SECONDS", 0.05)
    await place.show_clicks(1)
    async with serve(place.settings) as site, site.watch() as reader:
        await reader.next()
        host, port = site.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            idle.sendall(f"GET /live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            async with asyncio.timeout(30):
                await until_viewers(site, 2)
                number = 1
                # A name so long fills what the machine keeps for it soon.
                while len(site.page.audience) == 2:
                    number += 1
                    await place.client.hset(
                        "leadkpi:v1:period:1d:_all:_all", "noise", f"{number}" * 50_000
                    )
                    await reader.next()


async def test_a_slow_viewer_is_ended_at_its_limit() -> None:
    cuts: list[bool] = []
    viewer = Viewer(is_gone=lambda: False, cut=lambda: cuts.append(True))
    for number in range(MOST_WAITING):
        viewer.put(Event(b"%d" % number))
    assert cuts == []

    viewer.put(PING)

    assert cuts == [True]
    assert await viewer.next() is None


async def test_who_comes_as_the_last_one_goes_hears_what_changes(place: Place) -> None:
    await place.show_clicks(1)
    async with serve(place.settings) as site:
        join, loop = site.page.audience.join, asyncio.get_running_loop()
        comes = Viewer(is_gone=lambda: False, cut=lambda: None)

        def is_gone() -> bool:
            # Asked in the last turn of a reading that nobody else watches.
            loop.call_soon(join, comes)
            return True

        join(Viewer(is_gone, cut=lambda: None))
        async with asyncio.timeout(10):
            await comes.next()
            await place.show_clicks(2, at=11)
            told = await comes.next()

    assert told is not None
    assert b'"clicks":"2"' in told.text


async def test_silence_is_broken_by_pings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audience, "PING_SECONDS", 0.05)
    async with serve(settings_for("")) as site, site.watch() as stream:
        await stream.next()
        while await stream.line() != b"event: ping\n":
            pass
        # An event without data would not be told to the page.
        assert (await stream.line(), await stream.line()) == (b"data: {}\n", b"\n")


def test_packed_events_can_follow_each_other_in_any_stream() -> None:
    events = [GREETING, PING, Event(b"data: one\n\n" * 50), Event(b"data: two\n\n")]
    for chosen in (events, events[2:], events[::-1]):
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        stream = GZIP_HEAD + b"".join(event.deflated for event in chosen)
        # Each piece can be read when it comes, not only when more does.
        assert unpack.decompress(stream) == b"".join(event.text for event in chosen)
