"""Rows, their changelog, and what is read back from it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import tables
from streams.outbox import RECORD_BYTES, Outbox
from streams.tables import Table, tables_of
from tests.streams.one_shard import TOPICS, RecordingBuilder

Log = list[tuple[bytes, bytes | None]]

PART_BYTES = 10
KEYS = st.sampled_from([b"", b"a", b"b", b"\x00a", b"\x01a", b"\x00\x00\x00\x00a"])
ROWS = st.binary(max_size=40)
CHANGES = st.lists(st.tuples(KEYS, st.none() | ROWS), max_size=12)


class Maker:
    create_batch = RecordingBuilder


def table(**how: bool) -> Table:
    return Table("journeys", "changelog", 0, **how)


def commit(of: Table) -> Log:
    outbox = Outbox()
    of.flush(outbox)
    return [record for e in outbox.encode(Maker()) for record in e.batch.records]


def change(of: Table, changes: list[tuple[bytes, bytes | None]]) -> None:
    for key, row in changes:
        if row is None:
            of.delete(key)
        else:
            of.put(key, row)


def read_back(log: Log) -> Table:
    found = table()
    for key, value in log:
        found.load(key, value)
    found.loaded()
    return found


def compacted(log: Log, chance: random.Random) -> Log:
    """Return what a broker may leave: of each key the last record, tombstones perhaps not."""
    last = {key: number for number, (key, _) in enumerate(log)}
    return [
        (key, value)
        for number, (key, value) in enumerate(log)
        if last[key] == number and (value is not None or chance.random() < 0.5)
    ]


@pytest.fixture(scope="module", autouse=True)
def small_records() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "RECORD_BYTES", PART_BYTES)
        yield


@given(commits=st.lists(CHANGES, max_size=6), seed=st.integers(0, 99))
def test_what_is_read_back_is_what_was_there_whatever_was_compacted(
    commits: list[list[tuple[bytes, bytes | None]]], seed: int
) -> None:
    original, log, model = table(), Log(), dict[bytes, bytes]()
    for changes in commits:
        change(original, changes)
        for key, row in changes:
            model.pop(key, None)
            if row is not None:
                model[key] = row
        log += commit(original)
    assert dict(original.items()) == model
    assert dict(read_back(log).items()) == model
    assert dict(read_back(compacted(log, random.Random(seed))).items()) == model


@given(before=CHANGES, after=CHANGES)
def test_a_table_that_was_read_back_goes_on_like_the_one_that_was_lost(
    before: list[tuple[bytes, bytes | None]], after: list[tuple[bytes, bytes | None]]
) -> None:
    original = table()
    change(original, before)
    log = commit(original)
    successor = read_back(log)
    change(successor, after)
    change(original, after)
    log += commit(successor)
    assert dict(read_back(log).items()) == dict(original.items())


@given(changes=CHANGES)
def test_no_record_of_a_changelog_is_larger_than_one_may_be(
    changes: list[tuple[bytes, bytes | None]],
) -> None:
    written = table()
    change(written, changes)
    assert all(len(value or b"") <= PART_BYTES + 1 for _, value in commit(written))


def test_a_row_in_parts_that_becomes_small_leaves_only_tombstones_behind() -> None:
    written = table()
    written.put(b"k", b"x" * 35)
    log = commit(written)
    written.put(b"k", b"small")
    log += commit(written)
    left = {key: value for key, value in log if value is not None}
    for key, value in log:
        if value is None:
            left.pop(key, None)
    assert list(left.values()) == [b"\x00small"]


def test_only_what_changed_is_written() -> None:
    written = table()
    written.put(b"a", b"1")
    written.put(b"b", b"1")
    commit(written)
    written.put(b"b", b"2")
    assert written.dirty_bytes == 2
    assert commit(written) == [(b"\x00b", b"\x002")]
    assert commit(written) == []
    assert written.dirty_bytes == 0


def test_a_deleted_row_is_a_tombstone() -> None:
    written = table()
    written.put(b"a", b"1")
    commit(written)
    written.delete(b"a")
    assert written.get(b"a") is None
    assert commit(written) == [(b"\x00a", None)]


def test_a_table_whose_owner_holds_the_rows_keeps_none() -> None:
    written = table(keeps_rows=False)
    written.put(b"a", b"1")
    assert len(written) == 0
    assert read_back(commit(written)).take_rows() == {b"a": b"1"}


def test_every_table_has_the_changelog_that_faust_knows() -> None:
    changelogs = {name: one.changelog for name, one in tables_of(TOPICS, 0).items()}
    assert changelogs == TOPICS.changelogs
    assert RECORD_BYTES <= 1 << 20
