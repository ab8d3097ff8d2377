"""The webhook against a real server that takes, refuses, fails, hangs and hangs up."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from streams.clock import Clock, ManualClock, SystemClock
from streams.metrics import Metrics
from streams.publishers.webhook import (
    AT_ONCE,
    LONGEST_ASKED_SECONDS,
    SIGNATURE,
    Notice,
    Webhook,
    asked_pause_seconds,
    signature,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "alerts.md"
SECRET = "a secret of 24 characters and more"
DEADLINE_SECONDS = 10.0
NOW_MS = 1_795_000_000_000

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Got(NamedTuple):
    """A request as the receiver saw it."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["Idempotency-Key"]


class Receiver:
    """A server that keeps what it gets and answers as it is told; 204 when it is not."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answers: list[Answer] = []
        self.by_body: dict[bytes, Answer] = {}
        self.open = 0
        self.most_open = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            body = await request.read()
            self.got.append(Got(dict(request.headers), body))
            answer = self.by_body.get(body) or (self.answers.pop(0) if self.answers else None)
            return web.Response(status=204) if answer is None else await answer(request)
        finally:
            self.open -= 1


def status(code: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={k.replace("_", "-"): headers[k] for k in headers})

    return answer


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


class Sender:
    """A webhook with what it told and counted."""

    def __init__(self, url: str, clock: Clock | None = None, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.delivered: list[tuple[int, str]] = []
        self.crashes: list[BaseException] = []
        self.webhook = Webhook(
            url,
            "http://receiver",
            SECRET,
            metrics=Metrics(self.registry, "1.2.3"),
            clock=clock or SystemClock(),
            version="1.2.3",
            delivered=lambda shard, one: self.delivered.append((shard, one)),
            on_crash=self.crashes.append,
            **{"timeout_seconds": 5.0, "first_pause_seconds": 0.01, **options},
        )

    def count(self, outcome: str) -> float | None:
        name = "leadkpi_webhook_deliveries_total"
        return self.registry.get_sample_value(name, {"outcome": outcome})

    @property
    def up(self) -> float | None:
        """Whether the receiver was reached; None if it was never tried."""
        return self.registry.get_sample_value("leadkpi_publisher_up", {"publisher": "webhook"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def make(receiver: Receiver) -> AsyncIterator[Callable[..., Awaitable[Sender]]]:
    made: list[Sender] = []

    async def sender(**options: Any) -> Sender:
        made.append(Sender(options.pop("url", receiver.url), **options))
        await made[-1].webhook.start()
        return made[-1]

    yield sender
    for one in made:
        await one.webhook.stop()
        assert one.crashes == []


Make = Callable[..., Awaitable[Sender]]


async def until(condition: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE_SECONDS, f"expected in time: {what}"
        await asyncio.sleep(0.005)


def notice(number: int, key: str = "cpl_spike|_all|_all", shard: int = 0) -> Notice:
    return Notice(shard, f"id-{number}", b'{"n":%d}' % number, key)


def receivers_code() -> Callable[[str, str, bytes, float], bool]:
    """Return the function that docs/alerts.md gives to receivers."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    found: Callable[[str, str, bytes, float], bool] = names["is_ours"]
    return found


async def test_notice_is_posted_once_and_told_to_be_delivered(
    receiver: Receiver, make: Make
) -> None:
    sender = await make()
    known = sender.up
    assert known is None, "nothing is known before the first try"
    sender.webhook.offer(notice(1, shard=3))
    await until(lambda: sender.delivered == [(3, "id-1")], "delivered")

    (got,) = receiver.got
    assert got.body == b'{"n":1}'
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["User-Agent"] == "LeadPulse/1.2.3"
    assert got.id == "id-1"
    assert (sender.count("delivered"), sender.count("failed"), sender.up) == (1, 0, 1)
    assert len(sender.webhook) == 0


async def test_receiver_verifies_with_the_code_of_the_document(
    receiver: Receiver, make: Make
) -> None:
    sender = await make(clock=ManualClock(NOW_MS))
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered), "delivered")

    is_ours = receivers_code()
    (got,) = receiver.got
    header, now = got.headers[SIGNATURE], NOW_MS / 1000
    assert is_ours(SECRET, header, got.body, now)
    assert not is_ours(SECRET, header, got.body + b" ", now)
    assert not is_ours("another secret of 24 characters", header, got.body, now)
    assert not is_ours(SECRET, header, got.body, now + 301)
    later = header.replace(f"t={NOW_MS // 1000}", f"t={NOW_MS // 1000 + 600}")
    assert not is_ours(SECRET, later, got.body, now + 600)
    for broken in ("", "t=,v1=", "v1=00", "nonsense", f"t={NOW_MS // 1000}"):
        assert not is_ours(SECRET, broken, got.body, now)


def test_signature_is_the_documented_scheme() -> None:
    # Computed with: printf '1795000000.{"n":1}' | openssl dgst -sha256 -hmac key
    proof = "a8e074b7a96e7baeee6a741ca75c4efed6b0c4b6ad8e775567544fcb2389323e"
    assert signature("key", 1_795_000_000, b'{"n":1}') == f"t=1795000000,v1={proof}"


@pytest.mark.parametrize("answer", [status(500), status(503), status(408), status(429), hang_up])
async def test_failure_is_tried_again_with_the_same_key_until_it_is_taken(
    receiver: Receiver, make: Make, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [answer] * 3
    sender = await make()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered), "delivered at last")

    assert [got.id for got in receiver.got] == ["id-1"] * 4
    assert (sender.count("failed"), sender.count("delivered"), sender.up) == (3, 1, 1)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("webhook at http://receiver: expected status 2xx, got ")
    assert told[1] == "webhook recovered"


async def test_receiver_that_does_not_answer_in_time_is_tried_again(
    receiver: Receiver, make: Make
) -> None:
    receiver.answers = [hang]
    sender = await make(timeout_seconds=0.2)
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered), "delivered at last")
    assert (sender.count("failed"), len(receiver.got)) == (1, 2)


async def test_receiver_that_is_away_gets_everything_when_it_is_back(
    receiver: Receiver, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await receiver.stop()
    sender = await make()
    for number in range(6):
        sender.webhook.offer(notice(number, key=f"key-{number % 2}"))
    await until(lambda: (sender.count("failed") or 0) >= 3, "some failures")
    assert (sender.up, len(sender.delivered), len(sender.webhook)) == (0, 0, 6)
    assert "connection refused" in caplog.records[0].getMessage()

    await receiver.start()
    await until(lambda: len(sender.delivered) == 6, "all delivered")
    for parity in (0, 1):
        ours = [one for _, one in sender.delivered if int(one[3:]) % 2 == parity]
        assert ours == sorted(ours), "each key in its order"


@pytest.mark.parametrize("code", [400, 401, 404, 410, 301, 307])
async def test_refusal_is_final_counted_and_logged_once(
    receiver: Receiver, make: Make, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [status(code, Location=receiver.url)] * 2
    sender = await make()
    sender.webhook.offer(notice(1))
    sender.webhook.offer(notice(2))
    sender.webhook.offer(notice(3))
    await until(lambda: len(sender.delivered) == 3, "all decided")

    assert [got.id for got in receiver.got] == ["id-1", "id-2", "id-3"]
    assert (sender.count("refused"), sender.count("delivered")) == (2, 1)
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"got status {code}; the alert id-1 is given up" in told


async def test_notices_of_a_key_wait_for_each_other_and_others_do_not(
    receiver: Receiver, make: Make
) -> None:
    blocked = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await blocked.wait()
        return web.Response()

    receiver.by_body = {notice(1).body: wait}
    sender = await make()
    for number, key in ((1, "slow"), (2, "slow"), (3, "quick"), (4, "quick")):
        sender.webhook.offer(notice(number, key))
    await until(lambda: len(sender.delivered) == 2, "the quick key")
    assert sender.delivered == [(0, "id-3"), (0, "id-4")]
    assert "id-2" not in [got.id for got in receiver.got]

    blocked.set()
    await until(lambda: len(sender.delivered) == 4, "the slow key")
    assert [got.id for got in receiver.got if got.id in ("id-1", "id-2")] == ["id-1", "id-2"]


async def test_only_few_are_on_their_way_at_once(receiver: Receiver, make: Make) -> None:
    gate = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    receiver.answers = [wait] * AT_ONCE
    sender = await make()
    for number in range(40):
        sender.webhook.offer(notice(number, key=f"key-{number}"))
    await until(lambda: receiver.open == AT_ONCE, "as many as may be")
    gate.set()
    await until(lambda: len(sender.delivered) == 40, "all delivered")
    assert receiver.most_open == AT_ONCE
    assert Counter(got.id for got in receiver.got).most_common(1)[0][1] == 1


async def test_notice_that_waits_is_not_taken_twice(receiver: Receiver, make: Make) -> None:
    receiver.answers = [status(500)]
    sender = await make()
    for _ in range(3):
        sender.webhook.offer(notice(1))
    sender.webhook.offer(notice(2))
    await until(lambda: len(sender.delivered) == 2, "both delivered")
    assert [got.id for got in receiver.got] == ["id-1", "id-1", "id-2"]


async def test_what_is_offered_before_the_start_is_sent_at_the_start(receiver: Receiver) -> None:
    sender = Sender(receiver.url)
    sender.webhook.offer(notice(1))
    await sender.webhook.start()
    await until(lambda: bool(sender.delivered), "delivered")
    await sender.webhook.stop()


async def test_closed_shard_is_forgotten_and_may_be_offered_anew(
    receiver: Receiver, make: Make
) -> None:
    receiver.answers = [status(503, Retry_After="600")]
    sender = await make()
    sender.webhook.offer(notice(1, shard=1))
    await until(lambda: sender.count("failed") == 1, "a first failure")
    sender.webhook.offer(notice(2, shard=2))
    sender.webhook.drop_shard(1)
    await until(lambda: sender.delivered == [(2, "id-2")], "the other shard's")
    assert len(sender.webhook) == 0

    sender.webhook.offer(notice(1, shard=1))
    await until(lambda: (1, "id-1") in sender.delivered, "delivered by its next owner")


@pytest.mark.parametrize("is_under_way", [False, True], ids=["waiting", "under way"])
async def test_notice_that_is_dropped_is_not_sent_again_and_the_next_one_is(
    receiver: Receiver, make: Make, *, is_under_way: bool
) -> None:
    gate = asyncio.Event()

    async def fail(_: web.Request) -> web.StreamResponse:
        if is_under_way:
            await gate.wait()
        return web.Response(status=503, headers={"Retry-After": "1"})

    receiver.answers = [fail]
    sender = await make()
    for number in range(3):
        sender.webhook.offer(notice(number))
    await until(lambda: bool(receiver.got), "a first try")
    for number in (0, 1):
        sender.webhook.drop(notice(number))
    sender.webhook.drop(notice(7))
    assert len(sender.webhook) == 1
    gate.set()

    await until(lambda: bool(sender.delivered), "the one that was not dropped")
    assert [got.id for got in receiver.got] == ["id-0", "id-2"]
    assert sender.delivered == [(0, "id-2")]


async def test_key_whose_notices_were_all_dropped_takes_new_ones(
    receiver: Receiver, make: Make
) -> None:
    receiver.answers = [status(503)]
    sender = await make()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(receiver.got), "a first try")
    sender.webhook.drop(notice(1))
    sender.webhook.offer(notice(2))
    await until(lambda: bool(sender.delivered), "delivered")
    assert [got.id for got in receiver.got] == ["id-1", "id-2"]


HOSTILE = {
    "endless header": b"HTTP/1.1 503 No\r\nX: " + b"a" * 100_000,
    "many headers": b"HTTP/1.1 503 No\r\n" + b"X: y\r\n" * 50_000,
    "no HTTP": b"\x16\x03\x01\x00nonsense\r\n\r\n",
    "no status": b"HTTP/1.1 \xff\xff\xff No\r\n\r\n",
    "nothing": b"",
    "broken chunks": b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "two lengths": b"HTTP/1.1 503 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "no gzip": b"HTTP/1.1 503 No\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx",
    "a cookie for ever": b"HTTP/1.1 503 No\r\nSet-Cookie: a=b; Max-Age=%b\r\n"
    b"Content-Length: 0\r\n\r\n" % (b"9" * 4000),
    "a year without end": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n"
    b"Retry-After: Mon, 01 Jan 99999999999 00:00:00 GMT\r\n\r\n",
    "a date in other letters": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n"
    b"Retry-After: \xff\xfe\r\n\r\n",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
async def test_whatever_is_answered_the_notice_is_tried_again_and_nothing_crashes(
    make: Make, answer: bytes
) -> None:
    answers = [answer]

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answers.pop(0) if answers else b"HTTP/1.1 204 Yes\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    sender = await make(url=f"http://127.0.0.1:{port}/hook")
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered or sender.crashes), "delivered at last")
    server.close()

    assert sender.delivered == [(0, "id-1")]
    assert sender.count("failed") == 1


async def test_error_of_the_client_itself_is_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = aiohttp.ClientSession.post
    errors: list[Exception] = [LookupError("unknown encoding"), RecursionError()]

    def post(*args: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return posts(*args, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "post", post)
    sender = await make()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered or sender.crashes), "delivered at last")
    assert (sender.count("failed"), sender.count("delivered")) == (2, 1)


async def test_change_of_protocols_takes_nothing(receiver: Receiver, make: Make) -> None:
    receiver.answers = [status(101)]
    sender = await make()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered), "decided")
    assert (sender.count("refused"), sender.count("delivered")) == (1, 0)


async def test_retry_after_is_honoured(receiver: Receiver, make: Make) -> None:
    receiver.answers = [status(429, Retry_After="1")]
    sender = await make()
    began = time.monotonic()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered), "delivered")
    assert time.monotonic() - began >= 1.0


async def test_stopping_waits_for_no_pause_and_keeps_what_is_undelivered(
    receiver: Receiver,
) -> None:
    receiver.answers = [status(503, Retry_After="600")]
    sender = Sender(receiver.url)
    await sender.webhook.start()
    sender.webhook.offer(notice(1))
    await until(lambda: sender.count("failed") == 1, "a first failure")
    began = time.monotonic()
    await sender.webhook.stop()
    assert time.monotonic() - began < 1.0
    assert (sender.delivered, len(sender.webhook)) == ([], 1)


async def test_stopping_begins_no_further_post(receiver: Receiver) -> None:
    may_answer = asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        await may_answer.wait()
        return web.Response()

    receiver.answers = [slow] * AT_ONCE
    sender = Sender(receiver.url)
    await sender.webhook.start()
    for number in range(2 * AT_ONCE):
        sender.webhook.offer(notice(number, key=f"key-{number}"))
    await until(lambda: receiver.open == AT_ONCE, "as many as may be")
    stopping = asyncio.create_task(sender.webhook.stop())
    # It has told the others to begin none before it waits.
    await asyncio.sleep(0)
    may_answer.set()
    await stopping

    assert len(receiver.got) == AT_ONCE
    assert {one for _, one in sender.delivered} == {got.id for got in receiver.got}
    assert len(sender.webhook) == AT_ONCE


async def test_stopping_cuts_off_a_receiver_that_hangs(receiver: Receiver) -> None:
    receiver.answers = [hang]
    sender = Sender(receiver.url)
    await sender.webhook.start()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(receiver.got), "on its way")
    await sender.webhook.stop()
    assert (sender.delivered, sender.crashes) == ([], [])


async def test_credentials_of_the_address_are_sent_and_never_logged(
    receiver: Receiver, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [hang_up, status(403)]
    sender = await make(url=receiver.url.replace("//", "//ada:hunter2@"))
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.delivered), "decided")
    assert receiver.got[0].headers["Authorization"].startswith("Basic ")
    assert caplog.records
    assert "hunter2" not in caplog.text


async def test_programming_error_of_who_is_told_is_passed_on(receiver: Receiver) -> None:
    sender = Sender(receiver.url)

    def fail(_shard: int, _id: str) -> None:
        raise KeyError

    sender.webhook._delivered = fail
    await sender.webhook.start()
    sender.webhook.offer(notice(1))
    await until(lambda: bool(sender.crashes), "the crash told")
    assert isinstance(sender.crashes[0], KeyError)
    await sender.webhook.stop()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("\N{ARABIC-INDIC DIGIT FIVE}", 0.0),
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("9" * 400, LONGEST_ASKED_SECONDS),
        ("Wed, 18 Nov 2026 11:07:10 GMT", 30.0),
        ("Wed, 18 Nov 2026 11:06:10 GMT", 0.0),
        ("Wed, 18 Nov 2026 11:07:10 -0000", 30.0),
        ("Fri, 18 Nov 2033 11:07:10 GMT", LONGEST_ASKED_SECONDS),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 0.0),
        ("Mon, 99999999999999999999 Jan 2027 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2027 99999999999999999999:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2027 00:00:00 +99999999999999", 0.0),
    ],
)
def test_pause_that_is_asked_for_is_seconds_or_a_date(header: str | None, seconds: float) -> None:
    assert asked_pause_seconds(header, NOW_MS) == seconds


_NUMBERS = st.integers(0, 10**25).map(str)
_DATES = st.builds("Fri, {} Jan {} {}:00:00 +{}".format, _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS)


@given(st.text() | _DATES)
def test_no_pause_that_is_asked_for_is_an_error(header: str) -> None:
    assert 0 <= asked_pause_seconds(header, NOW_MS) <= LONGEST_ASKED_SECONDS
