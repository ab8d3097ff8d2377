"""Faust's part: an assignment opens shards in the background, and a later one overtakes it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from streams.group import faust_app
from streams.topics import TABLES
from tests.streams.one_shard import SETTINGS, TOPICS


class Owner:
    """Opens when it may, and notes what it was told."""

    def __init__(self) -> None:
        self.may_open = asyncio.Event()
        self.failure: Exception | None = None
        self.was_cancelled = False
        self.told: list[str] = []

    def begin_assignment(self) -> None:
        self.told.append("assignment")

    async def assign(self, sources: Mapping[str, frozenset[int]], generation: int) -> bool:
        try:
            await self.may_open.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.failure is not None:
            raise self.failure
        return True

    def positions(self) -> dict[Any, int]:
        return {}

    def wanted(self) -> set[Any]:
        return set()


@pytest.fixture
async def owner() -> Owner:
    return Owner()


@pytest.fixture
async def failures() -> list[str]:
    return []


@pytest.fixture
async def app(owner: Owner, failures: list[str]) -> AsyncIterator[Any]:
    app: Any = faust_app(SETTINGS, TOPICS, 2, owner, failures.append)  # type: ignore[arg-type]
    app.finalize()
    yield app
    # It has made a loop for a thread that it has not started.
    app.consumer._thread.thread_loop.close()


async def test_shards_are_opened_for_an_assignment(app: Any, owner: Owner) -> None:
    owner.may_open.set()
    assert await app.tables.recovery._opened_unless_overtaken(1)


async def test_an_opening_that_another_rebalance_overtakes_is_cancelled(
    app: Any, owner: Owner, failures: list[str]
) -> None:
    recovery = app.tables.recovery
    opening = asyncio.create_task(recovery._opened_unless_overtaken(1))
    await asyncio.sleep(0)
    recovery.signal_recovery_start.set()
    assert not await opening
    assert owner.was_cancelled
    assert failures == []


async def test_shards_that_cannot_be_opened_stop_the_worker(
    app: Any, owner: Owner, failures: list[str]
) -> None:
    owner.may_open.set()
    owner.failure = OSError("no route")
    assert not await app.tables.recovery._opened_unless_overtaken(1)
    assert failures == ["shards not opened: no route"]


async def test_the_owner_is_told_of_an_assignment_before_it_is_to_open_it(
    app: Any, owner: Owner
) -> None:
    recovery = app.tables.recovery
    app.consumer_generation_id = 7
    await recovery.on_rebalance(set(), set(), set(), 7)
    assert owner.told == ["assignment"]
    assert recovery.signal_recovery_start.is_set()


async def test_faust_neither_serves_nor_commits_nor_creates_topics(app: Any) -> None:
    # Rule 11: its web server binds every interface and shows tables.
    assert not app.conf.web_enabled
    assert not app.conf.topic_allow_declare
    assert app.conf.broker_commit_interval > 86_400
    assert not app.conf.stream_wait_empty


async def test_tables_are_registered_with_their_changelogs_for_the_assignor(app: Any) -> None:
    found = {table.changelog_topic.get_topic_name() for table in app.tables.values()}
    assert found == {TOPICS.changelog(name) for name in TABLES}
    assert app.conf.table_standby_replicas == 0


async def test_a_dead_worker_costs_at_most_its_session(app: Any) -> None:
    # Design, section 3: session 10 s, heartbeat 2 s, rebalance 15 s.
    conf = app.conf
    assert conf.broker_session_timeout == 10
    assert conf.broker_heartbeat_interval == 2
    assert conf.broker_rebalance_timeout == 15
    assert conf.consumer_group_instance_id in (None, "")
