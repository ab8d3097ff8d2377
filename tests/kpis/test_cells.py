"""Sums of one scope: whatever comes in whatever order, each window is the sum of its cells."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.cells import VISITORS, Cell, Cells
from kpis.facts import Facts, add
from kpis.packing import pack, unpack
from kpis.retention import LIFETIME_BUCKET, Buckets, Grain, Retention
from kpis.spans import GRAIN_OF, HOURS, LIFETIME_WINDOW, ROLLING, TUMBLING, Spans, Window
from kpis.visitors import Sketch
from tests.kpis.zones import CALENDARS, MINUTES, ZONES, minute

EXAMPLES = max(1_000, settings().max_examples)
DAY = 24 * 60
ALL_KEPT = Retention(minutes=10**8, hours=10**8, days=10**8)
KEEPING_ALL = {zone: Spans(Buckets(calendar, ALL_KEPT)) for zone, calendar in CALENDARS.items()}
KEEPING_LITTLE = {
    zone: Spans(Buckets(CALENDARS[zone], Retention(minutes=90, hours=2 * DAY, days=9 * DAY)))
    for zone in ("Europe/Paris", "Australia/Lord_Howe", "America/St_Johns")
}
NAMES = ("clicks", "cost", "stage_entered.mql", "cycle_histogram.12")

some_facts = st.dictionaries(
    st.sampled_from(NAMES), st.integers(-2, 3).filter(bool), min_size=1, max_size=3
)


def bounds(window: Window) -> tuple[int, int]:
    return window.start_minute or 0, window.end_minute or 0


# ----------------------------------------------------------------------------- P5


@given(
    st.sampled_from(ZONES),
    MINUTES,
    st.lists(
        st.tuples(st.one_of(st.integers(-70, 70), st.integers(-40 * DAY, 40 * DAY)), some_facts),
        min_size=1,
        max_size=12,
    ),
)
@settings(max_examples=EXAMPLES)
def test_minutes_sum_to_every_window(
    zone: str, moment: int, counted: list[tuple[int, Facts]]
) -> None:
    spans = KEEPING_ALL[zone]
    cells = Cells(spans)
    for offset, facts in counted:
        cells.add(Grain.MINUTE, moment + offset, facts, moment)
    windows = {spans.rolling(kind, moment) for kind in ROLLING}
    windows |= {spans.tumbling(kind, moment + at) for at, _ in counted for kind in TUMBLING}
    for window in windows:
        start, end = bounds(window)
        total: Facts = {}
        for offset, facts in counted:
            if start <= moment + offset < end:
                add(total, facts)
        assert cells.facts(window) == total
        assert cells.has(window) is bool(total)
    total = {}
    for _, facts in counted:
        add(total, facts)
    assert cells.facts(LIFETIME_WINDOW) == total


@given(st.sampled_from(ZONES), MINUTES, st.lists(st.tuples(st.integers(0, 3 * DAY), some_facts)))
@settings(max_examples=EXAMPLES)
def test_finer_cells_sum_to_coarser_ones(
    zone: str, moment: int, counted: list[tuple[int, Facts]]
) -> None:
    spans = KEEPING_ALL[zone]
    cells = Cells(spans)
    for offset, facts in counted:
        cells.add(Grain.MINUTE, moment + offset, facts, moment)
    for offset, _ in counted:
        for fine, coarse in ((Grain.MINUTE, Grain.HOUR), (Grain.HOUR, Grain.DAY)):
            bucket = spans.buckets.start(coarse, moment + offset)
            total: Facts = {}
            start, end = bucket, spans.buckets.end(coarse, bucket)
            while start < end:
                add(total, cells.get(fine, start))
                start = spans.buckets.end(fine, start)
            assert total == cells.get(coarse, bucket)


# ----------------------------------------------------------------------------- any interleaving


class Model:
    """What cells are to be, in the plainest way: facts and sets of visitors by cell."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.facts: dict[Cell, Facts] = {}
        self.visitors: dict[Cell, set[str]] = {}

    def add(self, grain: Grain, bucket: int, facts: Facts, newest: int, visitors: set[str]) -> None:
        buckets = self.spans.buckets
        for wider in list(Grain)[grain:]:
            cell = Cell(wider, buckets.start(wider, bucket))
            if buckets.is_kept(wider, cell.bucket, newest):
                add(self.facts.setdefault(cell, {}), facts)
                if wider >= Grain.DAY:
                    self.visitors.setdefault(cell, set()).update(visitors)

    def of(self, window: Window) -> Facts:
        start, end = bounds(window)
        total: Facts = {}
        visitors: set[str] = set()
        for cell in {**self.facts, **self.visitors}:
            is_inside = window == LIFETIME_WINDOW or start <= cell.bucket < end
            if cell.grain is GRAIN_OF[window.kind] and is_inside:
                add(total, self.facts.get(cell, {}))
                visitors |= self.visitors.get(cell, set())
        # So few visitors are counted exactly.
        return total | ({VISITORS: len(visitors)} if visitors else {})

    def days(self, start: int, end: int) -> Facts:
        total: Facts = {}
        for cell, facts in self.facts.items():
            if cell.grain is Grain.DAY and start <= cell.bucket < end:
                add(total, facts)
        return total

    def expired(self, newest: int) -> Iterator[Cell]:
        for cell in {**self.facts, **self.visitors}:
            if not self.spans.buckets.is_kept(*cell, newest):
                yield cell

    def drop(self, cell: Cell) -> None:
        self.facts.pop(cell, None)
        self.visitors.pop(cell, None)


class Rows:
    """The rows of cells, written as a worker writes them, and read back by the next one."""

    def __init__(self) -> None:
        self.changed: set[Cell] = set()
        self.facts: dict[Cell, bytes] = {}
        self.visitors: dict[Cell, bytes] = {}

    def write(self, cells: Cells) -> None:
        for cell in self.changed:
            _put(self.facts, cell, cells.pack(cell))
        self.changed.clear()
        for cell in cells.take_changed_visitors():
            _put(self.visitors, cell, cells.pack_visitors(cell))

    def read(self, spans: Spans) -> Cells:
        cells = Cells(spans)
        for cell, packed in self.facts.items():
            cells.unpack(cell, packed)
        for cell, packed in self.visitors.items():
            cells.unpack_visitors(cell, packed)
        return cells


def _put(rows: dict[Cell, bytes], cell: Cell, packed: bytes | None) -> None:
    if packed is None:
        rows.pop(cell, None)
    else:
        rows[cell] = packed


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.sampled_from((Grain.MINUTE, Grain.MINUTE, *Grain)),
            st.one_of(st.integers(-100, 60), st.integers(-12 * DAY, DAY)),
            st.one_of(st.just({}), some_facts),
            st.sets(st.sampled_from("abcdefgh"), max_size=3),
        ),
        st.tuples(st.just("ask"), st.sampled_from((0, 0, -1, -DAY, -7 * DAY))),
        st.tuples(st.just("later"), st.sampled_from((1, 61, DAY))),
        st.tuples(st.sampled_from(("write", "forget", "restart"))),
    ),
    min_size=3,
    max_size=14,
)


@given(st.sampled_from(tuple(KEEPING_LITTLE)), MINUTES, STEPS)
@settings(max_examples=EXAMPLES)
def test_no_window_is_ever_stale(zone: str, moment: int, steps: list[tuple[object, ...]]) -> None:
    spans = KEEPING_LITTLE[zone]
    cells, model, rows, newest = Cells(spans), Model(spans), Rows(), moment
    current = [window for _, window in spans.slots(moment)]
    for step in steps:
        match step:
            case ("add", Grain() as grain, int(offset), dict(facts), set(visitors)):
                bucket = spans.buckets.start(grain, moment + offset)
                changed = cells.add(grain, bucket, facts, newest, _sketch(visitors))
                rows.changed.update(changed)
                model.add(grain, bucket, facts, newest, visitors)
            case ("ask", int(offset)):
                for window in (*current, *(w for _, w in spans.slots(moment + offset))):
                    assert cells.facts(window) == model.of(window), window
            case ("later", int(minutes)):
                newest += minutes
                for cell in list(model.expired(newest)):
                    model.drop(cell)
                    cells.drop(cell)
                    rows.changed.add(cell)
            case ("write",):
                rows.write(cells)
            case ("forget",):
                cells.forget(set(current[::2]))
            case ("restart",):
                rows.write(cells)
                cells = rows.read(spans)
    for window in current:
        assert cells.facts(window) == model.of(window), window
        assert cells.has(window) is bool(model.of(window))
    first = spans.buckets.start(Grain.DAY, moment - 5 * DAY)
    last = spans.buckets.start(Grain.DAY, moment)
    assert cells.facts_between(first, last) == model.days(first, last)
    assert cells.facts_between(last, first) == {}
    assert set(cells.days()) == {
        cell.bucket for cell, facts in model.facts.items() if facts and cell.grain is Grain.DAY
    }


def _sketch(visitors: set[str] | range) -> bytes | None:
    if not visitors:
        return None
    sketch = Sketch()
    for visitor in visitors:
        sketch.update(str(visitor))
    return sketch.to_bytes()


# ----------------------------------------------------------------------------- single cases

CROWDS = [
    _sketch(range(start, end))
    for start, end in ((0, 900), (500, 1_600), (1_000, 4_000), (0, 9_000), (7_000, 14_000), (3, 5))
]
PARIS = KEEPING_ALL["Europe/Paris"]
NOON = minute("2026-03-29T12:00:00+02:00")


def test_facts_that_were_handed_out_do_not_change_later() -> None:
    cells = Cells(PARIS)
    windows = [window for _, window in PARIS.slots(NOON)]
    cells.add(Grain.MINUTE, NOON, {"clicks": 1}, NOON)
    before = [cells.facts(window) for window in windows]
    cells.add(Grain.MINUTE, NOON, {"clicks": 1}, NOON)
    assert all(facts == {"clicks": 1} for facts in before if facts)
    assert cells.facts(LIFETIME_WINDOW) == {"clicks": 2}


def test_what_left_retention_counts_in_coarser_cells_only() -> None:
    #  minute kept 3 h   hour kept 36 days
    spans = Spans(Buckets(CALENDARS["Europe/Paris"], Retention()))
    cells = Cells(spans)
    changed = cells.add(Grain.MINUTE, NOON - 4 * 60, {"clicks": 1}, NOON)
    assert [cell.grain for cell in changed] == [Grain.HOUR, Grain.DAY, Grain.LIFETIME]
    changed = cells.add(Grain.MINUTE, NOON - 500 * DAY, {"clicks": 1}, NOON)
    assert changed == [Cell(Grain.LIFETIME, LIFETIME_BUCKET)]


def test_a_cell_is_added_to_up_to_the_last_minute_that_it_is_kept() -> None:
    #  minute NOON        NOON + 1 + 3 h
    #  [-)................|
    spans = Spans(Buckets(CALENDARS["Europe/Paris"], Retention()))
    for newest, is_kept in ((NOON + 180, True), (NOON + 181, False)):
        cells = Cells(spans)
        changed = cells.add(Grain.MINUTE, NOON, {"clicks": 1}, newest)
        assert (Cell(Grain.MINUTE, NOON) in changed) is is_kept
        assert cells.has(spans.tumbling("1m", NOON)) is is_kept


def test_facts_that_cancel_out_leave_no_row() -> None:
    cells = Cells(PARIS)
    cells.add(Grain.DAY, PARIS.buckets.start(Grain.DAY, NOON), {"clicks": 1}, NOON)
    (day, lifetime) = cells.add(
        Grain.DAY, PARIS.buckets.start(Grain.DAY, NOON), {"clicks": -1}, NOON
    )
    assert cells.pack(day) is None
    assert cells.pack(lifetime) is None
    assert not cells


def test_visitors_count_from_the_day_on_and_once() -> None:
    cells = Cells(PARIS)
    days = [PARIS.buckets.start(Grain.DAY, NOON + after) for after in (0, DAY)]
    for day in days:
        cells.add(Grain.DAY, day, {}, NOON, _sketch({"ann", "bob"}))
    for kind in ("1d", "1mo", "last_28d"):
        window = PARIS.rolling(kind, NOON + DAY) if kind in ROLLING else PARIS.tumbling(kind, NOON)
        assert cells.facts(window) == {VISITORS: 2}
        assert cells.has(window)
    assert cells.facts(PARIS.tumbling("1h", NOON)) == {}
    assert cells.facts(PARIS.rolling("last_7d", NOON)) == {}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=10), st.data()
)
@settings(max_examples=100)
def test_many_visitors_are_the_same_number_in_any_order_and_after_a_restart(
    visits: list[tuple[int, int]], data: st.DataObject
) -> None:
    days = [PARIS.buckets.start(Grain.DAY, NOON + after * DAY) for after in range(-4, 0)]
    windows = [PARIS.rolling("last_28d", NOON), PARIS.tumbling("1mo", NOON), LIFETIME_WINDOW]
    shown = []
    for order in (visits, data.draw(st.permutations(visits))):
        cells, rows = Cells(PARIS), Rows()
        for number, (day, crowd) in enumerate(order):
            cells.add(Grain.DAY, days[day], {}, NOON, CROWDS[crowd])
            if number % 3 == 0:
                assert all(cells.has(window) for window in windows)
                rows.write(cells)
                cells.forget(windows[:1])
        rows.write(cells)
        shown.append([cells.facts(window) for window in windows])
        again = rows.read(PARIS)
        assert [again.facts(window) for window in windows] == shown[-1]
    assert shown[0] == shown[1]


def test_visitors_that_are_known_change_no_cell() -> None:
    cells = Cells(PARIS)
    day = PARIS.buckets.start(Grain.DAY, NOON)
    assert len(cells.add(Grain.DAY, day, {}, NOON, _sketch({"ann", "bob"}))) == 2
    assert set(cells.take_changed_visitors()) == {
        Cell(Grain.DAY, day),
        Cell(Grain.LIFETIME, LIFETIME_BUCKET),
    }
    assert cells.add(Grain.DAY, day, {}, NOON, _sketch({"bob"})) == []
    assert cells.take_changed_visitors() == []


def test_dropped_visitors_are_told_as_changed() -> None:
    cells = Cells(PARIS)
    cell = Cell(Grain.DAY, PARIS.buckets.start(Grain.DAY, NOON))
    cells.add(*cell, {}, NOON, _sketch({"ann"}))
    cells.take_changed_visitors()
    cells.drop(cell)
    assert cells.take_changed_visitors() == [cell]
    assert cells.pack_visitors(cell) is None


# ----------------------------------------------------------------------------- packing


@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=9)), st.integers()))
@settings(max_examples=EXAMPLES)
def test_what_is_packed_is_unpacked(facts: Facts) -> None:
    assert unpack(pack(facts)) == facts


def test_known_names_take_a_byte_and_stages_their_name() -> None:
    assert len(pack({"impressions": 1, "cost": 1})) == 5
    assert len(pack({"stage_entered.mql": 1})) == 7


def test_sums_beyond_64_bits_are_packed_whole() -> None:
    facts = {"cost": 10**30, "revenue_gross": -(10**30), "clicks": 2**63}
    assert unpack(pack(facts)) == facts


def test_an_unknown_code_is_refused() -> None:
    for packed in (b"\x81\xcc\xff\x01", b"\x81\xa1x\x01"):
        with pytest.raises(ValueError, match="facts: expected the code of a name"):
            unpack(packed)


# ----------------------------------------------------------------------------- runs of hours


@given(
    st.sampled_from(ZONES),
    MINUTES,
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(-3000, 3000), some_facts), max_size=8),
)
def test_runs_of_hours_are_the_sums_of_their_hours_and_are_not_remembered(
    zone: str, moment: int, hours: int, told: list[tuple[int, Facts]]
) -> None:
    spans = KEEPING_ALL[zone]
    cells = Cells(spans)
    start = end = CALENDARS[zone].hour_start(moment)
    for _ in range(hours):
        end = CALENDARS[zone].hour_end(end)
    run = Window(HOURS, start, end)
    expected: Facts = {}
    for offset, facts in told:
        cells.add(Grain.MINUTE, moment + offset, facts, 0)
        if start <= moment + offset < end:
            add(expected, facts)
        assert cells.facts(run) == expected
        assert cells.has(run) == bool(expected)
    assert Grain.HOUR not in cells._sums
