"""Compares the ledger of windows with what the input comes to, and with leadgen.kpis.v1.

Source: contract, section 6, and property P9.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from kpis.calendar import MINUTE_MS
from kpis.catalog import COST_MISSING
from kpis.facts import COHORT, Subject
from kpis.ledger import OUTCOME_MS, REVISION_MS, Cause
from kpis.spans import TUMBLING, Window
from kpis.windows import FINAL, PROVISIONAL, REVISED, key_of
from streams.comparison import (
    MATURE,
    NOTHING,
    Comparison,
    Expected,
    Wanted,
    parsed,
    readable,
)
from streams.shown import Numbers, Shown, View, view_of_record

MARGIN_MS: Final = 2 * MINUTE_MS
"""So long a window may be due before it must be in the ledger: shards get there one after the other."""

_BY_READING_TIME: Final = frozenset({"conversion_within", "cohort_maturity"})
_FROM_OTHERS: Final = frozenset({"cost_coverage", "unattributed_share"})
"""KPIs that may change while the facts of their window do not, which makes no revision."""
_OF_TARGETS: Final = ("target_attainment.", "pacing.")


class Ledger(NamedTuple):
    """The records of leadgen.kpi-windows.v1.

    Attributes:
        records: Key and value of each, those of one key in the order in which they were written.
        is_whole: Whether none has left the topic.
    """

    records: Sequence[tuple[bytes, bytes]]
    is_whole: bool = True


class _Place(NamedTuple):
    where: str
    subject: Subject
    window: Window


def compare_ledger(
    expected: Expected,
    ledger: Ledger,
    records: Mapping[bytes, bytes],
    complete_until_ms: int | None,
    found: Comparison,
) -> None:
    """Compare the ledger with the recomputation, and the records of leadgen.kpis.v1 with the ledger.

    Args:
        expected: What the outputs have to show.
        ledger: The ledger.
        records: The last record of each key of leadgen.kpis.v1.
        complete_until_ms: The largest that any of these shows.
        found: Takes the differences.
    """
    revisions = _revisions(ledger, found)
    shown = {key: _quietly(value) for key, value in records.items()}
    for key, of_key in revisions.items():
        place = _place(key, expected, found)
        if place is not None:
            _compare_chain(place, of_key, expected, found, is_whole=ledger.is_whole)
            last, record = of_key[-1], shown.get(key)
            if not expected.is_kept(place.window):
                continue
            if _is_pending(place, last, record, expected):
                _compare_wait(place, last, complete_until_ms, found)
            else:
                compare = partial(_compare_last, place, last, expected)
                expected.compare(place.where, last.record_id.encode(), compare, found)
    _find_missing(expected, revisions.keys(), complete_until_ms, found)
    _compare_states(shown, revisions, found)


# ----------------------------------------------------------------------------- each record


def _revisions(ledger: Ledger, found: Comparison) -> dict[bytes, list[View]]:
    """Return what the records of each key say; an id that comes twice is a difference."""
    revisions: dict[bytes, list[View]] = {}
    seen: dict[str, str] = {}
    for key, value in ledger.records:
        where = f"ledger {_text(key)}"
        view = readable(where, value, view_of_record, "a record of the ledger", found)
        if view is None:
            continue
        if view.record_id in seen:
            found.add(f"{where} id", "one of its own", f"that of {seen[view.record_id]}")
        seen[view.record_id] = f"{_text(key)} revision {view.revision}"
        revisions.setdefault(key, []).append(view)
    return revisions


def _place(key: bytes, expected: Expected, found: Comparison) -> _Place | None:
    """Return what a key of the ledger is about; only windows that end are in it."""
    told, where = parsed(key), f"ledger {_text(key)}"
    if told is None or told.kind not in TUMBLING or told.start_minute is None:
        found.add(where, "no record", "one of no window that ends")
        return None
    window = expected.spans.tumbling(told.kind, told.start_minute)
    return _Place(where, Subject(told.basis, told.scope), window)


def _compare_chain(
    place: _Place, views: Sequence[View], expected: Expected, found: Comparison, *, is_whole: bool
) -> None:
    """Look at what the records of one key say of themselves: revisions, states, causes, and when."""
    final_minute = expected.spans.final_minute(place.window) or 0
    revision = 0 if is_whole else views[0].revision - 1
    for view in views:
        revision += 1
        where = f"{place.where} revision {view.revision}"
        found.values += 1
        if view.revision != revision:
            found.add(f"{place.where} revision", str(revision), str(view.revision))
            revision = view.revision
        state = FINAL if view.revision == 1 else REVISED
        if view.state != state:
            found.add(f"{where} state", state, view.state)
        if (view.cause in _CAUSES) != (state == REVISED) or (view.cause is None) != (
            state == FINAL
        ):
            wanted = "no cause" if state == FINAL else "a cause"
            found.add(f"{where} cause", wanted, str(view.cause))
        if view.has_previous and state == FINAL:
            found.add(f"{where} previous", NOTHING, "values")
        until_ms = view.complete_until_ms
        if until_ms is None or until_ms // MINUTE_MS < final_minute:
            wanted = f"a window that is complete at minute {final_minute}"
            found.add(where, wanted, f"complete_until {until_ms} ms")
        span = (view.start_minute, view.end_minute)
        if span != place.window[1:]:
            found.add(f"{where} window", f"minutes {place.window[1:]}", f"{span}")


_CAUSES: Final = frozenset(cause.label for cause in Cause)


# ----------------------------------------------------------------------------- the last one


def _is_pending(place: _Place, last: View, record: View | None, expected: Expected) -> bool:
    """Tell whether a window changed since its last revision, by its record on leadgen.kpis.v1."""
    if record is not None:
        return record.state == PROVISIONAL
    # Of a window that has lost its facts there is no record any more.
    return bool(last.numbers.facts) and not expected.facts(place.subject, place.window)


def _compare_wait(
    place: _Place, last: View, complete_until_ms: int | None, found: Comparison
) -> None:
    """Look whether the next revision of a window has to wait for so long."""
    # Mere outcomes of a cohort may wait for a day.
    wait_ms = OUTCOME_MS if place.subject.basis == COHORT else REVISION_MS
    due_ms = last.computed_at_ms + wait_ms + MARGIN_MS
    if complete_until_ms is not None and due_ms < complete_until_ms:
        found.add(place.where, f"a revision {last.revision + 1}", NOTHING)


def _compare_last(place: _Place, last: View, expected: Expected, found: Comparison) -> None:
    """Compare the last record of a key with the recomputation."""
    wanted = expected.wanted(place.subject, place.window, last.complete_until_ms)
    if wanted is None and not last.numbers.facts:
        return
    got = _comparable(last.numbers, place.subject)
    found.numbers(
        f"{place.where} revision {last.revision}",
        None if wanted is None else _lasting(wanted, got, place.subject),
        got,
    )


def _lasting(wanted: Wanted, got: Numbers, subject: Subject) -> Wanted:
    """Return of the wanted numbers those that only depend on the facts of the window.

    Whether cost of the whole is missing depends on which channels have facts, and may differ.
    """
    numbers = _comparable(wanted.numbers, subject)
    if subject.scope.channel is None:
        shown = {name: got.kpis.get(name, kpi) for name, kpi in numbers.kpis.items()}
        kpis = {
            name: shown[name] if COST_MISSING in (kpi.value, shown[name].value) else kpi
            for name, kpi in numbers.kpis.items()
        }
        numbers = Numbers(numbers.facts, kpis)
    return Wanted(numbers)


def _comparable(numbers: Numbers, subject: Subject) -> Numbers:
    """Leave out what may change without a change of facts."""
    left_out = _BY_READING_TIME | (_FROM_OTHERS if subject.scope.channel is None else frozenset())
    return Numbers(
        {name: fact for name, fact in numbers.facts.items() if name != MATURE},
        {
            name: _without_partial(kpi)
            for name, kpi in numbers.kpis.items()
            if name not in left_out and not name.startswith(_OF_TARGETS)
        },
    )


def _without_partial(kpi: Shown) -> Shown:
    # Cost that is reported later makes whole what was partial.
    return kpi._replace(is_partial=False)


# ----------------------------------------------------------------------------- what is missing


def _find_missing(
    expected: Expected,
    keys: Iterable[bytes],
    complete_until_ms: int | None,
    found: Comparison,
) -> None:
    if complete_until_ms is None:
        return
    known = frozenset(keys)
    for subject, window in expected.stored():
        final_minute = expected.spans.final_minute(window)
        if (
            final_minute is not None
            and final_minute * MINUTE_MS + MARGIN_MS <= complete_until_ms
            and (key := key_of(subject.basis, window, subject.scope, expected.zone)) not in known
        ):
            found.numbers(f"ledger {_text(key)}", expected.wanted(subject, window, None), None)


def _compare_states(
    shown: Mapping[bytes, View | None], revisions: Mapping[bytes, Sequence[View]], found: Comparison
) -> None:
    """Compare what leadgen.kpis.v1 says of the state of windows with the ledger."""
    for key, view in shown.items():
        told = parsed(key)
        if view is None or told is None or told.kind not in TUMBLING:
            continue
        of_key = revisions.get(key)
        revision = of_key[-1].revision if of_key else 0
        state = (FINAL if revision == 1 else REVISED) if revision else PROVISIONAL
        if view.revision != revision or view.state not in (state, PROVISIONAL):
            found.add(f"{_text(key)} state", f"{state} {revision}", f"{view.state} {view.revision}")


def _quietly(value: bytes) -> View | None:
    """Return what a record says; who compares the records tells of one that cannot be read."""
    return readable("", value, view_of_record, "", Comparison())


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")
