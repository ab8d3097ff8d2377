"""The Faust app: consumer group, tables by name, and shards opened in place of Faust's own recovery."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from mode import Service

from streams.owner import Owner
from streams.settings import Kafka, Settings
from streams.topics import TABLES, Topics
from streams.transport import BATCHES_PER_POLL, transport_for

if TYPE_CHECKING:
    import ssl

QUEUED_MESSAGES: Final = 16
_NEVER_SECONDS: Final = 365 * 86_400.0
_REQUEST_SECONDS: Final = 90.0


class ShardRecovery(Recovery):
    """Opens shards where Faust would replay changelogs into its tables.

    Faust's recovery never ends on a transactional changelog: the marker takes the last position.
    """

    owner: Owner
    sources: tuple[str, ...]
    fail: Callable[[str], None]

    async def on_rebalance(self, *args: Any, **kwargs: Any) -> None:
        """Take the assignment that the shards will be opened for."""
        self.owner.begin_assignment()
        await super().on_rebalance(*args, **kwargs)

    @Service.task
    async def _restart_recovery(self) -> None:
        # In the background: aiokafka sends no heartbeats while the assignment callback runs.
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):  # type: ignore[arg-type]
                return
            self.signal_recovery_start.clear()
            generation = self._generation_id
            if await self._opened_unless_overtaken(generation):
                await self._resume_streams(generation)

    async def _opened_unless_overtaken(self, generation: int) -> bool:
        opening = asyncio.create_task(self.owner.assign(self._assigned_sources(), generation))
        overtaken = asyncio.create_task(self.signal_recovery_start.wait())
        await asyncio.wait((opening, overtaken), return_when=asyncio.FIRST_COMPLETED)
        overtaken.cancel()
        if not opening.done():
            opening.cancel()
            await asyncio.wait((opening,))
        if opening.cancelled():
            return False
        error = opening.exception()
        if error is not None:
            self.fail(f"shards not opened: {error}" if str(error) else f"not opened: {error!r}")
            return False
        return opening.result()

    def _assigned_sources(self) -> Mapping[str, frozenset[int]]:
        assigned = self.app.assignor.assigned_actives()
        return {
            topic: frozenset(tp.partition for tp in assigned if tp.topic == topic)
            for topic in self.sources
        }


def faust_app(
    settings: Settings,
    topics: Topics,
    partitions: int,
    owner: Owner,
    fail: Callable[[str], None],
) -> faust.App:
    """Return the Faust app of a worker, without agents; nothing is opened yet."""
    recovery = type(
        "OwnersRecovery",
        (ShardRecovery,),
        {"owner": owner, "sources": topics.sources, "fail": staticmethod(fail)},
    )

    class Tables(TableManager):
        @property
        def recovery(self) -> Recovery:
            if self._recovery is None:
                self._recovery = recovery(self.app, self, beacon=self.beacon, loop=self.loop)
            return self._recovery

    transport = transport_for(owner, frozenset((topics.entities, topics.deltas)))

    class App(faust.App):
        def _new_transport(self) -> Any:
            return transport(self.conf.broker_consumer, self)

        def _create_directories(self) -> None:
            """Make none: tables live in memory, and the place may be read-only."""

    app = App(
        settings.app_id,
        broker=[f"kafka://{server.strip()}" for server in settings.kafka.servers.split(",")],
        broker_credentials=_credentials(settings.kafka),
        broker_max_poll_records=BATCHES_PER_POLL,
        broker_check_crcs=settings.kafka.check_crcs and not settings.kafka.embedded,
        broker_session_timeout=float(settings.session.timeout_seconds),
        broker_heartbeat_interval=float(settings.session.heartbeat_seconds),
        broker_rebalance_timeout=float(settings.session.rebalance_seconds),
        broker_request_timeout=_REQUEST_SECONDS,
        broker_commit_interval=_NEVER_SECONDS,
        consumer_auto_offset_reset="none",
        consumer_max_fetch_size=1 << 20,
        store="memory://",
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        key_serializer="raw",
        value_serializer="raw",
        stream_wait_empty=False,
        stream_buffer_maxsize=QUEUED_MESSAGES,
        stream_recovery_delay=0.0,
        web_enabled=False,
        worker_redirect_stdouts=False,
        TableManager=Tables,
    )
    for name in TABLES:
        app.Table(name, partitions=partitions)
    return app


def source(app: faust.App, *topics: str, partitions: int) -> faust.ChannelT[Any]:
    """Return a channel of the chunks of some topics."""
    channel: faust.ChannelT[Any] = app.topic(
        *topics,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=partitions,
    )
    return channel


def _credentials(kafka: Kafka) -> SASLCredentials | SSLCredentials | None:
    options = kafka.client_options()
    context: ssl.SSLContext | None = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)
