"""Compares what was published with what the input comes to, number by number, in both directions."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from kpis import histogram
from kpis.catalog import Catalog, Surroundings, Undefined, derived
from kpis.facts import AMOUNTS, Facts, Subject
from kpis.fold import FoldResult
from kpis.retention import Grain
from kpis.spans import LIFETIME, ROLLING, Window
from kpis.windows import PROVISIONAL, Key, amount_text, decimal_text, key_of, parse_key
from streams.publishers import SLOTS
from streams.publishers.redis_hashes import hash_name
from streams.shown import BROKEN, Numbers, Shown, View, view_of_hash, view_of_record

NOTHING: Final = "nothing"
MATURE: Final = "mature"
_WITHOUT_END: Final = frozenset({*ROLLING, LIFETIME})
_HISTOGRAM: Final = f"{histogram.FACT}."

RejectPlace = tuple[str, int, int, str]
"""Full topic, partition, offset and reason."""

_Output = TypeVar("_Output")


class Difference(NamedTuple):
    """One thing that is not as it has to be; `record` is what it is a part of."""

    where: str
    expected: str
    got: str
    record: str

    def __str__(self) -> str:
        """Return the one line that is shown."""
        return f"{self.where}: expected {self.expected}, got {self.got}"


class Wanted(NamedTuple):
    """The numbers that an output has to show, and what of them it need not.

    `unsure_partial` are KPIs that may be marked as partial or not: how far cost is known is not told
    anew to windows that have no end. `unsure` are KPIs whose value may be another one: what there was
    of a quarter's target when an earlier month was published.
    """

    numbers: Numbers
    unsure_partial: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()


class Expected:
    """What the outputs have to show, from the fold of the inputs."""

    def __init__(
        self,
        result: FoldResult,
        catalog: Catalog,
        expects_cost: Callable[[str], bool],
        horizon_ms: int,
    ) -> None:
        self.catalog = catalog
        self.spans = result.spans
        self.zone = result.spans.buckets.calendar.zone
        self.result = result
        self._outlook = result.outlook(expects_cost, horizon_ms)
        self._exact: dict[str, tuple[int, int]] = {}

    @property
    def subjects(self) -> Collection[Subject]:
        """Everything that has facts."""
        return self.result.subjects

    def stored(self) -> Iterator[tuple[Subject, Window]]:
        """Yield every tumbling and lifetime window that has facts and is still kept."""
        newest = self.result.newest_minute or 0
        for subject in self.subjects:
            windows = {
                window: None
                for grain in Grain
                for bucket in sorted(self.result.buckets(subject, grain))
                for window in self.spans.touched(grain, bucket)
            }
            for window in windows:
                if self.spans.is_kept(window, newest) and self.facts(subject, window):
                    yield subject, window

    def is_kept(self, window: Window) -> bool:
        """Tell whether all of a window is still stored, so that it can be computed."""
        return self.spans.is_kept(window, self.result.newest_minute or 0)

    def facts(self, subject: Subject, window: Window) -> Facts:
        """Return the stored facts of a window and its visitors."""
        return self.result.facts(subject, window)

    def surroundings(
        self, subject: Subject, window: Window, complete_until_ms: int | None
    ) -> Surroundings:
        """Return what the KPIs of a window need beside its facts."""
        return self._outlook.surroundings(subject, window, complete_until_ms)

    def wanted(
        self, subject: Subject, window: Window, complete_until_ms: int | None
    ) -> Wanted | None:
        """Return the numbers of a window when so much was complete; None if it has no facts."""
        facts, basis = self.facts(subject, window), subject.basis
        if not facts:
            return None
        around = self.surroundings(subject, window, complete_until_ms)
        values = self.catalog.evaluate(basis, facts, around)
        incomplete = self.catalog.partial(basis, facts, around)
        intervals = self.catalog.intervals(basis, facts, around, values)
        known = derived(facts, basis)
        if around.mature_leads:
            known[MATURE] = around.mature_leads
        kpis = {
            name: Shown(value)
            if isinstance(value, Undefined)
            else Shown(value, name in incomplete, intervals.get(name))
            for name, value in values.items()
        }
        other = around._replace(cost_until_reached=not around.cost_until_reached)
        is_open = window.kind in _WITHOUT_END
        return Wanted(
            Numbers(known, kpis),
            incomplete ^ self.catalog.partial(basis, facts, other) if is_open else frozenset(),
            frozenset(
                f"{name}.{progress.target.kpi}"
                for progress in around.targets
                if progress.facts is not None
                for name in ("target_attainment", "pacing")
            ),
        )

    def compare(
        self, where: str, told: bytes, compare: Callable[["Comparison"], None], found: "Comparison"
    ) -> None:
        """Compare what is told somewhere, unless the same was found exact there before."""
        known = self._exact.get(where)
        if known is not None and known[0] == hash(told):
            found.values += known[1]
            return
        trial = Comparison()
        compare(trial)
        found.values += trial.values
        found.differences += trial.differences
        if not trial.differences:
            self._exact[where] = hash(told), trial.values

    def window(self, slot: str, minute: int) -> Window:
        """Return the window of a Redis slot when `minute` is running."""
        return next(each.window for each in self.spans.slots(minute) if each.name == slot)


class Comparison:
    """Differences found so far, and how many numbers were looked at."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.values = 0

    def add(self, where: str, expected: str, got: str, record: str = "") -> None:
        """Note a difference, of the record called `record` or of one that is all there is at `where`."""
        self.differences.append(Difference(where, expected, got, record or where))

    def numbers(self, where: str, expected: Wanted | None, got: Numbers | None) -> None:
        """Compare two sets of numbers, either of which may not be there."""
        wanted = None if expected is None else expected.numbers
        if expected is None or wanted is None or got is None:
            self.values += len((wanted or got or Numbers({}, {})).facts)
            if wanted is not got:
                self.add(where, _summary(wanted), _summary(got))
            return
        for name in {**wanted.facts, **got.facts}:
            self.values += 1
            fact, found = wanted.facts.get(name), got.facts.get(name)
            if fact != found:
                texts = _fact_text(name, fact), _fact_text(name, found)
                self.add(f"{where} {name}", *texts, where)
        for name in {**wanted.kpis, **got.kpis}:
            self.values += 1
            kpi, shown = wanted.kpis.get(name), got.kpis.get(name)
            if kpi is not None and shown is not None and name in expected.unsure_partial:
                kpi = kpi._replace(is_partial=shown.is_partial)
            if kpi != shown and name not in expected.unsure:
                self.add(f"{where} {name}", _kpi_text(kpi), _kpi_text(shown), where)


def wrong_in_all(comparisons: Sequence[Comparison]) -> Comparison:
    """Return what the first says of the records that are exact in none of several comparisons."""
    first = comparisons[0]
    records = [{one.record for one in each.differences} for each in comparisons]
    wrong = set.intersection(*records)
    found = Comparison()
    found.values = first.values
    found.differences = [one for one in first.differences if one.record in wrong]
    return found


def readable(
    where: str, output: _Output, read: Callable[[_Output], View], what: str, found: Comparison
) -> View | None:
    """Return what an output says; None, and a difference, if it cannot be read."""
    try:
        return read(output)
    except BROKEN as error:
        found.add(where, what, f"{error!r:.80}")
        return None


def parsed(key: bytes) -> Key | None:
    """Return what a key says, None if it is none."""
    try:
        return parse_key(key)
    except ValueError:
        return None


# ----------------------------------------------------------------------------- leadgen.kpis.v1


def compare_records(
    expected: Expected, records: Mapping[bytes, bytes], minute: int, found: Comparison
) -> None:
    """Compare with the last record of each key of leadgen.kpis.v1; `minute` is the one now running."""
    left = dict(records)
    for subject, window in expected.stored():
        key = key_of(subject.basis, window, subject.scope, expected.zone)
        value = left.pop(key, None)
        if value is None:
            found.numbers(key.decode(), expected.wanted(subject, window, None), None)
        else:
            compare = partial(_compare_span, key.decode(), subject, window, value, expected)
            expected.compare(key.decode(), value, compare, found)
    shown = {
        key: readable(_text(key), value, view_of_record, "a record of KPIs", found)
        for key, value in left.items()
    }
    rolling = _take_rolling(shown)
    for key, record in shown.items():
        if record is not None:
            found.add(_text(key), "no record", _summary(record.numbers))
    _compare_rolling(expected, rolling, minute, found)


_Rolling = dict[tuple[str, Subject], View]


def _take_rolling(shown: dict[bytes, View | None]) -> _Rolling:
    rolling: _Rolling = {}
    for key, record in list(shown.items()):
        told = parsed(key)
        if record is not None and told is not None and told.kind in ROLLING:
            rolling[told.kind, Subject(told.basis, told.scope)] = record
            del shown[key]
    return rolling


def _compare_rolling(expected: Expected, rolling: _Rolling, minute: int, found: Comparison) -> None:
    """Compare each rolling window over its own span, and look for those that are missing."""
    for (kind, subject), record in rolling.items():
        window = Window(kind, record.start_minute, record.end_minute)
        where = key_of(subject.basis, window, subject.scope, expected.zone).decode()
        _compare_state(where, window, record, found)
        wanted = expected.wanted(subject, window, record.complete_until_ms)
        found.numbers(where, wanted, record.numbers)
    for kind in ROLLING:
        # Shards move their windows one after the other: facts that lie in all of them must show.
        spans = [(r.start_minute, r.end_minute) for (of, _), r in rolling.items() if of == kind]
        now = expected.window(kind, minute)
        starts, ends = zip((now.start_minute, now.end_minute), *spans, strict=True)
        common = Window(kind, max(s or 0 for s in starts), min(e or 0 for e in ends))
        for subject in expected.subjects:
            if (kind, subject) not in rolling and (
                numbers := expected.wanted(subject, common, None)
            ):
                where = key_of(subject.basis, common, subject.scope, expected.zone).decode()
                found.numbers(where, numbers, None)


def _compare_span(
    where: str,
    subject: Subject,
    window: Window,
    value: bytes,
    expected: Expected,
    found: Comparison,
) -> None:
    record = readable(where, value, view_of_record, "a record of KPIs", found)
    if record is None:
        return
    if (record.start_minute, record.end_minute) != (window.start_minute, window.end_minute):
        got = f"{record.start_minute} to {record.end_minute}"
        wanted = f"minutes {window.start_minute} to {window.end_minute}"
        found.add(f"{where} window", wanted, got)
    _compare_state(where, window, record, found)
    wanted_numbers = expected.wanted(subject, window, record.complete_until_ms)
    found.numbers(where, wanted_numbers, record.numbers)


def _compare_state(where: str, window: Window, record: View, found: Comparison) -> None:
    """Look at the state of windows that never end; that of the others is compared with the ledger."""
    if window.kind in _WITHOUT_END and (record.state, record.revision) != (PROVISIONAL, 0):
        found.add(f"{where} state", PROVISIONAL, f"{record.state} {record.revision}")


# ----------------------------------------------------------------------------- Redis


Hashes = Mapping[tuple[Subject, str], Mapping[str, str]]
"""The fields of every hash by subject and slot; empty where there is none."""


def compare_hashes(expected: Expected, hashes: Hashes, minute: int, found: Comparison) -> None:
    """Compare with the Redis hashes; `minute` is the one now running.

    A hash of a window that is over is passed over: it is about to move, or nobody publishes.
    """
    shown = {
        (subject, slot): readable(
            hash_name(slot, subject.scope, subject.basis),
            fields,
            view_of_hash,
            "a hash of KPIs",
            found,
        )
        for (subject, slot), fields in hashes.items()
        if fields
    }
    ends = {slot: window.end_minute for slot, window in expected.spans.slots(minute)}
    is_live = any(
        record is not None and slot == "last_1h" and record.end_minute == ends[slot]
        for (_, slot), record in shown.items()
    )
    every = {*hashes, *((subject, slot) for subject in expected.subjects for slot in SLOTS)}
    for subject, slot in every:
        record = shown.get((subject, slot))
        window = expected.window(slot, minute)
        if record is not None and slot in ROLLING:
            window = Window(slot, record.start_minute, record.end_minute)
        is_current = record is not None and record.start_minute == window.start_minute
        # Only who publishes now can be asked for hashes of windows that began just now.
        if is_current or slot == LIFETIME or is_live:
            until_ms = record.complete_until_ms if record is not None else None
            found.numbers(
                hash_name(slot, subject.scope, subject.basis),
                _in_hash(expected.wanted(subject, window, until_ms)),
                record.numbers if record is not None and is_current else None,
            )


def _in_hash(wanted: Wanted | None) -> Wanted | None:
    """Leave out what a hash has no room for: histograms and intervals."""
    if wanted is None:
        return None
    facts, kpis = wanted.numbers
    return wanted._replace(
        numbers=Numbers(
            {name: fact for name, fact in facts.items() if not name.startswith(_HISTOGRAM)},
            {name: kpi._replace(interval=None) for name, kpi in kpis.items()},
        )
    )


# ----------------------------------------------------------------------------- rejects


class WantedRejects(NamedTuple):
    """What may be refused.

    Attributes:
        required: What must be there.
        one_of: Of each of these exactly one must be there: whichever was read first.
        allowed: What may be there: orphans are decided some time after they are known.
    """

    required: Collection[RejectPlace]
    one_of: Collection[Collection[RejectPlace]]
    allowed: Collection[RejectPlace]


def compare_rejects(
    where: str, wanted: WantedRejects, got: Counter[RejectPlace], found: Comparison
) -> None:
    """Compare what was refused, each exactly once; `where` is the name of the topic of rejects."""
    for place in sorted({*wanted.required} - got.keys()):
        found.add(f"{where} {_place_text(place)}", place[3], NOTHING)
    for places in wanted.one_of:
        times = sum(got[place] for place in places)
        if times != 1:
            first = min(places)
            told = f"{times} times" if times else NOTHING
            found.add(f"{where} {_place_text(first)}", f"{first[3]} once", told)
    for place, times in sorted(got.items()):
        if place not in wanted.allowed:
            found.add(f"{where} {_place_text(place)}", NOTHING, place[3])
        elif times > 1:
            found.add(f"{where} {_place_text(place)}", f"{place[3]} once", f"{times} times")


def _place_text(place: RejectPlace) -> str:
    topic, partition, offset, _ = place
    return f"{topic}/{partition}/{offset}"


# ----------------------------------------------------------------------------- texts


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def _summary(numbers: Numbers | None) -> str:
    if numbers is None:
        return NOTHING
    facts = (f"{name} {_fact_text(name, fact)}" for name, fact in numbers.facts.items())
    text = ", ".join(facts) or "no facts"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _fact_text(name: str, fact: int | None) -> str:
    if fact is None:
        return NOTHING
    return amount_text(fact) if name in AMOUNTS else str(fact)


def _kpi_text(kpi: Shown | None) -> str:
    if kpi is None:
        return NOTHING
    if isinstance(kpi.value, Undefined):
        return f"null ({kpi.value.reason})"
    text = decimal_text(kpi.value)
    if kpi.is_partial:
        text += " (partial)"
    if kpi.interval is not None:
        low, high = map(decimal_text, kpi.interval)
        text += f" [{low}, {high}]"
    return text
