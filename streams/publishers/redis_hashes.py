"""The current numbers of every scope as Redis hashes: a view that may be lost at any time."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, tzinfo
from functools import lru_cache

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kpis.catalog import Catalog, Undefined
from kpis.facts import AMOUNTS, BASES, PERIOD, Scope, Subject
from kpis.windows import (
    LIFETIME,
    Window,
    WindowValues,
    amount_text,
    decimal_text,
    instant_text,
    minute_text,
    scope_of,
    scope_parts,
)
from streams.metrics import Metrics
from streams.publishers import (
    SHOWN_HOURS,
    SLOTS,
    AlertView,
    Hour,
    Outbox,
    ScopeView,
    Snapshot,
    View,
    shown_facts,
)

PREFIX = "leadkpi:v1"
SCOPES_KEY = f"{PREFIX}:scopes"
CHANNELS_KEY = f"{PREFIX}:channels"
"""Of the scopes only the whole and the channels: campaigns may be very many."""

UPDATES_CHANNEL = f"{PREFIX}:updates"
ALERTS_KEY = f"{PREFIX}:alerts"

TIMEOUT_SECONDS = 1.0
CHECK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
STOP_SECONDS = 2.0
# 170 hashes: they hold the loop for about 10 ms.
VIEWS_PER_PIPELINE = 10
MINUTE_MS = 60_000
SHORTEST_TTL_MS = 60 * MINUTE_MS
MARKER_MS = 60 * MINUTE_MS
SERIES_TTL_MS = 2 * SHOWN_HOURS * 60 * MINUTE_MS
# An hour more than a resolved alert is shown: who shows it takes it away before.
RESOLVED_TTL_MS = 25 * 60 * MINUTE_MS
RESOLVED = "resolved"

# KEYS[1] a hash. ARGV: version, TTL in ms (0: none), the fields as a JSON array (empty: delete).
# KEYS[2], where given, a sorted set that lists the hash; ARGV[4] its member and ARGV[5] the score.
# A stored version of another lineage is of topics that were replaced: it says nothing about ours.
WRITE = f"""
local function parts(version)
  local position, epoch, lineage = string.match(version, '^(%d+)%.(%d+)%.(.*)$')
  return tonumber(position), tonumber(epoch), lineage
end
local stored = redis.call('HGET', KEYS[1], '_version')
if stored then
  local position, epoch, lineage = parts(ARGV[1])
  local old_position, old_epoch, old_lineage = parts(stored)
  if old_lineage == lineage and (old_position > position
      or (old_position == position and old_epoch > epoch)) then
    return 0
  end
end
local fields = cjson.decode(ARGV[3])
local existed = redis.call('DEL', KEYS[1])
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
  if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
if KEYS[2] and #fields > 0 then redis.call('ZADD', KEYS[2], ARGV[5], ARGV[4]) end
if KEYS[2] and #fields == 0 then redis.call('ZREM', KEYS[2], ARGV[4]) end
if #fields > 0 or existed > 0 then
  redis.call('PUBLISH', '{UPDATES_CHANNEL}', KEYS[1])
end
return 1
"""
WRITE_SHA = hashlib.sha1(WRITE.encode(), usedforsecurity=False).hexdigest()

_LOG = logging.getLogger(__name__)
_ENCODER = msgspec.json.Encoder()

Command = tuple[str | bytes | int, ...]


# ----------------------------------------------------------------------------- names


def hash_name(slot: str, scope: Scope, basis: str = PERIOD) -> str:
    """Return the name of the hash of a slot (a window kind, or one with `@previous`).

    Source: contract section 7.
    """
    channel, campaign_id = scope_parts(scope)
    return f"{PREFIX}:{basis}:{slot}:{channel}:{campaign_id}"


def series_name(scope: Scope) -> str:
    """Return the name of the hash of the last hours of the whole or a channel."""
    return f"{PREFIX}:series:1h:{scope_parts(scope)[0]}"


def alert_name(member: str) -> str:
    """Return the name of the hash of the alert that `rule|channel|campaign` is in the index of alerts."""
    return f"{PREFIX}:alert:{member.replace('|', ':')}"


def member_of(scope: Scope) -> str:
    """Return the member of the sorted set `leadkpi:v1:scopes` that stands for `scope`."""
    return "|".join(scope_parts(scope))


def scope_of_member(member: str) -> Scope:
    """Return the scope for which a member of `leadkpi:v1:scopes` stands."""
    channel, _, campaign_id = member.partition("|")
    return scope_of(channel, campaign_id)


# ----------------------------------------------------------------------------- values


def fields_of(
    values: WindowValues, version: str, catalog: Catalog, zone: tzinfo, currency: str
) -> list[str]:
    """Return the fields of a hash, names and texts in turn; what is unknown has no field."""
    fields: list[str] = []
    for name, fact in shown_facts(values).items():
        fields += (name, amount_text(fact) if name in AMOUNTS else str(fact))
    undefined: dict[str, str] = {}
    for name, kpi in values.kpis.items():
        if isinstance(kpi, Undefined):
            undefined[name] = kpi.reason
        else:
            fields += (name, decimal_text(kpi))
    fields += ("_state", values.state, "_revision", str(values.revision))
    start, end = values.window.start_minute, values.window.end_minute
    if start is not None:
        fields += ("_start", minute_text(start, zone))
    if end is not None:
        fields += ("_end", minute_text(end, zone))
    if values.complete_until_ms is not None:
        fields += ("_complete_until", instant_text(values.complete_until_ms))
    fields += ("_computed_at", instant_text(values.computed_at_ms), "_currency", currency)
    fields += ("_version", version, "_undefined", _undefined_json(tuple(undefined.items())))
    partial = catalog.partial(values.basis, values.facts, values.surroundings)
    if names := sorted(partial.intersection(values.kpis).difference(undefined)):
        fields += ("_partial", _ENCODER.encode(names).decode())
    return fields


@lru_cache(maxsize=4096)
def _undefined_json(reasons: tuple[tuple[str, str], ...]) -> str:
    return _ENCODER.encode(dict(reasons)).decode()


def series_fields(hours: Iterable[Hour], version: str, zone: tzinfo) -> str:
    """Return the fields of the hash of the last hours as a JSON array, names and texts in turn.

    A name is the hour's start as in keys, a text the JSON array [start in ms, impressions, clicks,
    cost or null where it is missing, leads, sales, new customers, net revenue].
    """
    fields = [_hour_fields(hour, zone) for hour in hours]
    if fields:
        fields.append(_ENCODER.encode(("_version", version)).decode()[1:-1])
    return f"[{','.join(fields)}]"


@lru_cache(maxsize=8192)
def _hour_fields(hour: Hour, zone: tzinfo) -> str:
    cost, revenue = hour.cost_micros, hour.revenue_net_micros
    numbers = (
        hour.start_minute * MINUTE_MS,
        hour.impressions,
        hour.clicks,
        "null" if cost is None else decimal_text(cost),
        hour.leads,
        hour.sales,
        hour.new_customers,
        decimal_text(revenue),
    )
    return f'"{minute_text(hour.start_minute, zone)}","[{",".join(map(str, numbers))}]"'


class _Told(msgspec.Struct):
    """What of a record of leadgen.alerts.v1 has a field of its own; `since` is an ISO instant."""

    rule: str
    state: str
    at: str
    since: str
    message_en: str
    message_fr: str


_TOLD = msgspec.json.Decoder(_Told)


def alert_fields(value: bytes, version: str) -> list[str]:
    """Return the fields of an alert's hash, names and texts in turn; `value` is that of its record."""
    told = msgspec.to_builtins(_TOLD.decode(value))
    return [
        *(text for field in told.items() for text in field),
        *("record", value.decode(), "_version", version),
    ]


def ttl_ms(window: Window) -> int:
    """Return how long a hash lives: twice its window, at least an hour; 0 = for ever."""
    if window.kind == LIFETIME or window.start_minute is None or window.end_minute is None:
        return 0
    return max(2 * MINUTE_MS * (window.end_minute - window.start_minute), SHORTEST_TTL_MS)


# ----------------------------------------------------------------------------- publishing


def connect(url: str) -> Redis:
    """Return a client of our own; nothing is opened yet.

    It never tries twice by itself: the publisher decides when, and that it was an outage.
    """
    client: Redis = Redis.from_url(
        url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        max_connections=2,
        protocol=2,
    )
    return client


class _LostError(RedisError):
    """Redis answers, but what was written last is not there."""


class RedisHashes:
    """Writes every view of the snapshot to Redis and keeps it right.

    A write is fenced by the view's version, so a worker that lost its shard does no harm. After
    any failure, and when Redis turns out to have forgotten, everything is written again.

    Args:
        client: Made by `connect`; closed by `stop`.
        snapshot: The committed views.
        metrics: Where `leadkpi_publisher_up` is.
        catalog: What the numbers were evaluated with.
        zone: The reporting time zone.
        currency: The reporting currency.
        on_crash: Called when publishing ended by a programming error, never for an outage.
        fault_of: Returns what the log says of an outage, from the error.
    """

    def __init__(
        self,
        client: Redis,
        snapshot: Snapshot,
        metrics: Metrics,
        *,
        catalog: Catalog,
        zone: tzinfo,
        currency: str,
        on_crash: Callable[[BaseException], None],
        fault_of: Callable[[BaseException], object] = str,
    ) -> None:
        self._client = client
        self._snapshot = snapshot
        self._outbox: Outbox = snapshot.subscribe()
        self._up = metrics.publisher_up.labels("redis")
        self._catalog = catalog
        self._zone = zone
        self._currency = currency
        self._on_crash = on_crash
        self._fault_of = fault_of
        # What Redis is known to hold, so that a slot that did not change is not written again.
        self._written: dict[Subject, ScopeView] = {}
        self._marker_name = f"leadkpi:publisher:{uuid.uuid4().hex}"
        self._marker = 0
        self._is_known = False
        self._is_stopping = False
        self._has_failed = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to publish; Redis need not be there yet."""
        self._task = asyncio.create_task(self._run(), name="redis publisher")
        self._task.add_done_callback(self._end)

    async def stop(self) -> None:
        """Write what is left, if Redis answers within two seconds, and end."""
        self._is_stopping = True
        self._outbox.wake()
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=STOP_SECONDS)
            if not done:
                self._task.cancel()
                await asyncio.wait([self._task])
        await self._client.aclose()

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)

    async def _run(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._publish()
            except (RedisError, OSError) as error:
                self._fail(error)
                if self._is_stopping:
                    return
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            else:
                pause_seconds = FIRST_PAUSE_SECONDS
                if self._is_stopping:
                    return
                await self._outbox.wait(CHECK_SECONDS)

    def _fail(self, error: Exception) -> None:
        self._up.set(0)
        self._is_known = False
        if not self._has_failed:
            _LOG.warning("%s; counting goes on without it", self._fault_of(error))
        self._has_failed = True

    def _succeed(self) -> None:
        self._up.set(1)
        if self._has_failed:
            _LOG.warning("redis publisher recovered")
        self._has_failed = False

    async def _publish(self) -> None:
        """Write until nothing is left; at least the marker, which shows that Redis is there."""
        if not self._is_known:
            await self._begin_again()
        while True:
            views = self._outbox.take(VIEWS_PER_PIPELINE)
            await self._write(views)
            self._succeed()
            if not len(self._outbox):
                return

    async def _begin_again(self) -> None:
        await self._client.script_load(WRITE)
        self._written.clear()
        self._marker += 1
        await self._client.set(self._marker_name, self._marker, px=MARKER_MS)
        for view in self._snapshot.views():
            self._outbox.put(view)
        for alert in self._snapshot.alerts():
            self._outbox.put(alert)
        self._is_known = True

    async def _write(self, views: list[View]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for command in self._commands(views):
            pipeline.execute_command(*command)
        # Last: a Redis that came back from an older state cannot hold the latest marker.
        expected, self._marker = self._marker, self._marker + 1
        pipeline.set(self._marker_name, self._marker, px=MARKER_MS, get=True)
        results = await pipeline.execute(raise_on_error=False)
        _raise_first(results)
        if results[-1] != str(expected).encode():
            msg = f"redis: expected what was written last, got marker {results[-1]!r:.40}"
            raise _LostError(msg)
        for view in views:
            self._remember(view)

    def _remember(self, view: View) -> None:
        if isinstance(view, AlertView):
            return
        if view.slots:
            self._written[view.subject] = view
        else:
            self._written.pop(view.subject, None)

    def _commands(self, views: Iterable[View]) -> Iterator[Command]:
        for view in views:
            if isinstance(view, AlertView):
                yield _alert_command(view)
                continue
            written = self._known_by_redis(view)
            for slot in SLOTS:
                values = view.slots.get(slot)
                if written is None or values is not written.slots.get(slot):
                    yield self._slot_command(view, slot, values)
            if _has_series(view) and (written is None or view.hours is not written.hours):
                yield self._series_command(view)
            yield from self._scope_commands(view)

    def _known_by_redis(self, view: ScopeView) -> ScopeView | None:
        written = self._written.get(view.subject)
        # Between two epochs another worker may have owned the shard and written.
        return written if written and _epoch(written) == _epoch(view) else None

    def _slot_command(self, view: ScopeView, slot: str, values: WindowValues | None) -> Command:
        name = hash_name(slot, view.scope, view.subject.basis)
        if values is None:
            return ("EVALSHA", WRITE_SHA, 1, name, view.version, 0, b"[]")
        fields = _ENCODER.encode(
            fields_of(values, view.version, self._catalog, self._zone, self._currency)
        )
        return ("EVALSHA", WRITE_SHA, 1, name, view.version, ttl_ms(values.window), fields)

    def _series_command(self, view: ScopeView) -> Command:
        fields = series_fields(view.hours.values(), view.version, self._zone)
        name = series_name(view.scope)
        return ("EVALSHA", WRITE_SHA, 1, name, view.version, SERIES_TTL_MS, fields)

    def _scope_commands(self, view: ScopeView) -> Iterator[Command]:
        """Yield what keeps a scope listed as long as it has numbers on any basis."""
        member = member_of(view.scope)
        lists = (SCOPES_KEY,) if view.scope.campaign_id is not None else (SCOPES_KEY, CHANNELS_KEY)
        if view.slots:
            updated_ms = max(values.computed_at_ms for values in view.slots.values())
            for name in lists:
                yield ("ZADD", name, "GT", updated_ms // 1000, member)
            return
        others = (Subject(basis, view.scope) for basis in BASES if basis != view.subject.basis)
        if not self._snapshot.has_numbers(others):
            for name in lists:
                yield ("ZREM", name, member)


def _alert_command(view: AlertView) -> Command:
    """Return what writes an alert and lists it, or takes both away."""
    name, member, value = alert_name(view.member), view.member, view.value
    write = ("EVALSHA", WRITE_SHA, 2, name, ALERTS_KEY, view.version)
    if value is None:
        return (*write, 0, b"[]", member, 0)
    told = _TOLD.decode(value)
    since_seconds = int(datetime.fromisoformat(told.since).timestamp())
    ttl = RESOLVED_TTL_MS if told.state == RESOLVED else 0
    fields = _ENCODER.encode(alert_fields(value, view.version))
    return (*write, ttl, fields, member, since_seconds)


def _has_series(view: ScopeView) -> bool:
    return view.subject.basis == PERIOD and view.scope.campaign_id is None


def _epoch(view: ScopeView) -> str:
    return view.version.partition(".")[2]


def _raise_first(results: list[object]) -> None:
    # A forgotten script is a failure like others: Redis began anew, or lost more than the script.
    for result in results:
        if isinstance(result, RedisError):
            raise result
