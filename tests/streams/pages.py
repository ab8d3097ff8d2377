"""A Redis with numbers as workers write them, and the live page of it on a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import msgspec
import yarl
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from streams.clock import SystemClock
from streams.live_page import LivePage
from streams.metrics import Metrics
from streams.publishers import ScopeView
from streams.publishers.prometheus import MetricsEndpoint
from streams.settings import Settings, load
from tests.contracts.test_redis_hashes import Worker

HOST = "127.0.0.1"


def settings_for(url: str, **variables: str) -> Settings:
    """Return the settings of a deployment with its Redis at `url`."""
    own = {"LEADPULSE_CONFIG": "", "LEADPULSE_REDIS": url, "LEADPULSE_TIME_ZONE": "Europe/Paris"}
    return load({**own, **variables})


async def show(client: Redis, *views: ScopeView) -> None:
    """Let a worker of its own write the views; the client is closed."""
    async with Worker(client) as worker:
        for view in views:
            worker.snapshot.replace(view)


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Told:
    """One server-sent event."""

    number: int
    name: str
    content: dict[str, Any]


@dataclass
class Stream:
    """The events of one viewer, as a browser takes them."""

    response: aiohttp.ClientResponse
    retry_ms: int | None = None

    async def next(self, seconds: float = 10.0) -> Told:
        """Return the next event; EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        while line := await self.line(seconds):
            name, _, text = line.rstrip(b"\n").decode().partition(": ")
            if line == b"\n" and fields.get("event") == "ping":
                fields = {}
                continue
            if line == b"\n" and "data" in fields:
                return Told(int(fields["id"]), fields["event"], msgspec.json.decode(fields["data"]))
            if name == "retry":
                self.retry_ms = int(text)
            else:
                fields[name] = text
        raise EOFError

    async def line(self, seconds: float = 10.0) -> bytes:
        """Return a line, b"" at the end of the stream."""
        async with asyncio.timeout(seconds):
            return await self.response.content.readline()


@dataclass
class Site:
    """A live page that is served."""

    page: LivePage
    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str = "/", **headers: str) -> Answer:
        """Return an answer; the path goes out as it is, and what comes stays packed if it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = yarl.URL(f"{self.url}{path}", encoded=True)
        async with self.session.get(url, headers=named, auto_decompress=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def board(self) -> dict[str, Any]:
        """Return what `/board` says."""
        answer = await self.get("/board", Accept_Encoding="identity")
        found: dict[str, Any] = msgspec.json.decode(answer.body)
        return found

    @asynccontextmanager
    async def watch(self, **headers: str) -> AsyncIterator[Stream]:
        """Watch the stream of events."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(f"{self.url}/live", headers=named) as response:
            assert response.status == 200, response.status
            yield Stream(response)


@asynccontextmanager
async def serve(settings: Settings, most_viewers: int = 500) -> AsyncIterator[Site]:
    """Serve the page beside the metrics, as a worker does."""
    page = LivePage(settings, SystemClock(), most_viewers)
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    endpoint = MetricsEndpoint(metrics, HOST, 0, lambda: None, page.routes())
    await endpoint.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
            yield Site(page, endpoint.url, session)
    finally:
        await page.stop()
        await endpoint.stop()
