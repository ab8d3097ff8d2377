"""The board: all that the live page shows, as it is in Redis at one moment, and what changed since."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Final, NamedTuple, Self, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kpis.catalog import Catalog
from kpis.facts import BASES, OVERALL, PERIOD, Scope
from kpis.windows import instant_text, scope_parts
from streams.clock import Clock
from streams.problems import redis_unreachable
from streams.publishers.redis_hashes import (
    ALERTS_KEY,
    CHANNELS_KEY,
    SCOPES_KEY,
    alert_name,
    hash_name,
    member_of,
    scope_of_member,
    series_name,
)
from streams.settings import Settings

VERSION: Final = 1
SLOTS: Final = (
    *("1h", "1d", "1d@previous", "1w", "1mo"),
    *("last_1h", "last_24h", "last_7d", "last_28d", "lifetime"),
)
"""The windows of the whole and of channels, on both bases."""

CAMPAIGN_SLOTS: Final = ("1d", "last_24h", "last_28d")
"""The windows of campaigns, on the period basis."""

MOST_CHANNELS: Final = 50
MOST_CAMPAIGNS: Final = 20
MOST_ALERTS: Final = 200
CHOICE_SECONDS: Final = 10.0
"""For so long channels or campaigns stay the same, once there are as many as are shown."""

REDIS_SECONDS: Final = 2.0
OK: Final = "ok"
UNREACHABLE: Final = "unreachable"
_OFF: Final = "redis.url: expected the address of a Redis, got nothing; set LEADPULSE_REDIS"

_Value = TypeVar("_Value")
Fields = dict[str, str]
Hour = tuple[int, int, int, float | None, int, int, int, float]
"""Start in ms, impressions, clicks, cost (None: missing), leads, sales, new customers, net revenue."""

_hour = msgspec.json.Decoder(Hour).decode
_alert = msgspec.json.Decoder(dict[str, object]).decode


class Unit(msgspec.Struct, frozen=True):
    """What the catalogue says of a KPI."""

    unit: str
    french: str


class Status(msgspec.Struct, frozen=True):
    """Whether Redis answers, and how old what is shown is; instants in UTC, ISO 8601.

    `complete_until`: everything that arrived before it is counted. `read_at`: when Redis last
    answered; None if it never has.
    """

    redis: str
    problem: str | None
    complete_until: str | None
    read_at: str | None
    now: str


class Shown(NamedTuple):
    """What was read from Redis."""

    numbers: dict[str, Fields]
    series: dict[str, list[Hour]]
    alerts: list[dict[str, object]]
    more_channels: int

    @property
    def complete_until(self) -> str | None:
        """Everything that arrived before this instant is in the whole's newest numbers."""
        names = (number_name(PERIOD, slot, OVERALL) for slot in SLOTS)
        told = (self.numbers.get(name, {}).get("_complete_until") for name in names)
        # All are written alike, in UTC: the greatest text is the latest instant.
        return max((text for text in told if text), default=None)


class Board(msgspec.Struct, frozen=True):
    """Everything on the page; the JSON of `/board` and of the event `board`.

    `more_channels`: how many have numbers and are left out, as they changed longer ago.
    """

    version: int
    software: str
    time_zone: str
    currency: str
    funnel: tuple[str, ...]
    kpis: dict[str, Unit]
    status: Status
    numbers: dict[str, Fields]
    series: dict[str, list[Hour]]
    alerts: list[dict[str, object]]
    more_channels: int

    @classmethod
    def empty(cls, settings: Settings) -> Self:
        """Return the board of a deployment before anything was read."""
        catalog = Catalog(settings.funnel.stages, settings.cohort.horizon_days)
        return cls(
            version=VERSION,
            software=version("leadpulse"),
            time_zone=settings.time_zone.key,
            currency=settings.currency,
            funnel=settings.funnel.stages,
            kpis={kpi.name: Unit(kpi.unit, kpi.french) for kpi in catalog.kpis},
            status=Status(UNREACHABLE, None, None, None, ""),
            numbers={},
            series={},
            alerts=[],
            more_channels=0,
        )


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is new on a board: each key with its whole new value, None for one that is gone."""

    status: Status
    numbers: dict[str, Fields | None] = {}
    series: dict[str, list[Hour] | None] = {}
    alerts: list[dict[str, object]] | msgspec.UnsetType = msgspec.UNSET
    more_channels: int | msgspec.UnsetType = msgspec.UNSET


def changes(before: Board, after: Board) -> Change | None:
    """Return what is to be done to `before` to get `after`; None if only time has passed."""
    change = Change(
        after.status,
        _changed(before.numbers, after.numbers),
        _changed(before.series, after.series),
        msgspec.UNSET if before.alerts == after.alerts else after.alerts,
        msgspec.UNSET if before.more_channels == after.more_channels else after.more_channels,
    )
    has_news = change != Change(after.status)
    return change if has_news or _told(before.status) != _told(after.status) else None


def _told(status: Status) -> tuple[str, str | None, str | None]:
    return status.redis, status.problem, status.complete_until


def _changed(before: Mapping[str, _Value], after: Mapping[str, _Value]) -> dict[str, _Value | None]:
    changed: dict[str, _Value | None] = {
        name: value for name, value in after.items() if before.get(name) != value
    }
    changed.update(dict.fromkeys(before.keys() - after.keys()))
    return changed


def number_name(basis: str, slot: str, scope: Scope) -> str:
    """Return the key of a hash among a board's numbers: basis|slot|channel|campaign."""
    return "|".join((basis, slot, *scope_parts(scope)))


# ----------------------------------------------------------------------------- reading


def connect(url: str) -> Redis:
    """Return a client that gives up soon; nothing is opened yet."""
    client: Redis = Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
        max_connections=2,
        protocol=2,
    )
    return client


class BoardReader:
    """Reads the board; while Redis does not answer, it keeps what it read last.

    Args:
        settings: Of the deployment.
        clock: Tells how old the numbers are.
        client: Made by `connect`; None: there is no Redis.
    """

    def __init__(self, settings: Settings, clock: Clock, client: Redis | None) -> None:
        self._url = settings.redis.shown_url
        self._empty = Board.empty(settings)
        self._clock = clock
        self._client = client
        self._shown = Shown({}, {}, [], 0)
        self._read_at: str | None = None
        self._channels: list[Scope] = []
        self._campaigns: list[Scope] = []
        self._choose_at = 0.0

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    async def read(self) -> Board:
        """Return the board as it is now; its status says if Redis does not answer."""
        problem: str | None = _OFF
        if self._client is not None:
            try:
                self._shown = await self._read(self._client)
            except (RedisError, OSError) as error:
                problem = str(redis_unreachable(self._url, error))
            except (ValueError, msgspec.MsgspecError) as error:
                problem = f"Redis at {self._url}: expected what workers write, got {error}"
            else:
                problem = None
                self._read_at = instant_text(self._clock.now_ms())
        status = Status(
            OK if problem is None else UNREACHABLE,
            problem,
            self._shown.complete_until,
            self._read_at,
            instant_text(self._clock.now_ms()),
        )
        return msgspec.structs.replace(self._empty, status=status, **self._shown._asdict())

    async def _read(self, client: Redis) -> Shown:
        """Read in two round trips: what there is, then all of it."""
        async with client.pipeline(transaction=False) as pipeline:
            # The whole is listed among the channels.
            pipeline.zrevrange(CHANNELS_KEY, 0, MOST_CHANNELS)
            pipeline.zscore(CHANNELS_KEY, member_of(OVERALL))
            pipeline.zcard(CHANNELS_KEY)
            pipeline.zrevrange(ALERTS_KEY, 0, MOST_ALERTS - 1)
            told, whole, listed, alerts = await pipeline.execute()
            await self._choose(client, told, listed)
            scopes = [OVERALL, *self._channels]
            hashes = dict(self._places(scopes, self._campaigns))
            for name in hashes.values():
                pipeline.hgetall(name)
            for scope in scopes:
                pipeline.hvals(series_name(scope))
            for member in alerts:
                pipeline.hget(alert_name(member), "record")
            answers = iter(await pipeline.execute())
        return Shown(
            {key: fields for key in hashes if (fields := next(answers))},
            {scope_parts(scope)[0]: hours for scope in scopes if (hours := _hours(next(answers)))},
            [_alert(record) for _ in alerts if (record := next(answers))],
            max(0, listed - (whole is not None) - MOST_CHANNELS),
        )

    @staticmethod
    def _places(scopes: Iterable[Scope], campaigns: Iterable[Scope]) -> Iterable[tuple[str, str]]:
        """Yield the keys of a board with the names of their hashes."""
        for scope in scopes:
            for basis in BASES:
                for slot in SLOTS:
                    yield number_name(basis, slot, scope), hash_name(slot, scope, basis)
        for scope in campaigns:
            for slot in CAMPAIGN_SLOTS:
                yield number_name(PERIOD, slot, scope), hash_name(slot, scope)

    async def _choose(self, client: Redis, channels: Iterable[str], listed: int) -> None:
        """Choose what changed last; not anew each second, where there is more than is shown."""
        now = self._clock.monotonic_seconds()
        is_time = now >= self._choose_at
        if is_time or len(self._channels) < MOST_CHANNELS:
            found = (scope_of_member(member) for member in channels)
            chosen = [scope for scope in found if scope != OVERALL][:MOST_CHANNELS]
            self._channels = sorted(chosen, key=str)
        # Campaigns have no list of their own: of many channels, all may stand before the first.
        is_short = len(self._channels) < MOST_CHANNELS
        if is_time or (is_short and len(self._campaigns) < MOST_CAMPAIGNS):
            members = await client.zrevrange(SCOPES_KEY, 0, MOST_CAMPAIGNS + listed)
            scopes = (scope_of_member(str(member)) for member in members)
            campaigns = [scope for scope in scopes if scope.campaign_id is not None]
            self._campaigns = campaigns[:MOST_CAMPAIGNS]
        if is_time:
            self._choose_at = now + CHOICE_SECONDS


def _hours(values: Sequence[str]) -> list[Hour]:
    return sorted((_hour(value) for value in values if value.startswith("[")), key=_start)


def _start(hour: Hour) -> int:
    return hour[0]
