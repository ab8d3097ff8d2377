"""The last hours of the whole and of each channel, as small rows for who draws lines of them."""

from collections.abc import Mapping
from typing import Final

from kpis.calendar import HOUR_MINUTES
from kpis.catalog import derived
from kpis.facts import PERIOD, Subject
from kpis.spans import Spans, Window
from kpis.windows import WindowValues
from streams.books import Books
from streams.figures import Figures, Numbers
from streams.publishers import NO_HOURS, SHOWN_HOURS, Hour

_HOUR: Final = "1h"


class Hours:
    """Keeps the rows of what was published; only hours that changed are made anew.

    Args:
        books: The sums of the shard.
        figures: What the sums say.
        spans: Which hours there are.
    """

    def __init__(self, books: Books, figures: Figures, spans: Spans) -> None:
        self._books = books
        self._figures = figures
        self._spans = spans
        self._rows: dict[Subject, Mapping[int, Hour]] = {}

    def of(
        self, subject: Subject, settled: Mapping[Window, WindowValues | None], minute: int
    ) -> Mapping[int, Hour]:
        """Return the rows at `minute` by their first minutes, the oldest first; not to be changed.

        An hour without facts has none. The same mapping is returned as long as nothing is new.

        Args:
            subject: Whose hours; of campaigns and of the cohort basis none are kept.
            settled: The windows that changed since the last call, None where no fact is left.
            minute: Now.
        """
        if subject.basis != PERIOD or subject.scope.campaign_id is not None:
            return NO_HOURS
        oldest = self._start(minute - (SHOWN_HOURS - 1) * HOUR_MINUTES)
        before = self._rows.get(subject)
        if before is None:
            rows = self._all(subject, oldest, minute)
        else:
            rows = self._changed(subject, before, settled, oldest, self._start(minute))
        self._rows[subject] = rows
        return rows

    def _all(self, subject: Subject, oldest: int, minute: int) -> Mapping[int, Hour]:
        rows = {}
        while oldest <= minute:
            window = self._spans.tumbling(_HOUR, oldest)
            if (row := self._row(subject, window)) is not None:
                rows[oldest] = row
            oldest = window.end_minute or minute + 1
        return rows

    def _changed(
        self,
        subject: Subject,
        before: Mapping[int, Hour],
        settled: Mapping[Window, WindowValues | None],
        oldest: int,
        newest: int,
    ) -> Mapping[int, Hour]:
        news: dict[int, Hour | None] = {
            window.start_minute: None if values is None else _hour(window, values)
            for window, values in settled.items()
            if window.kind == _HOUR
            and window.start_minute is not None
            and oldest <= window.start_minute <= newest
        }
        if newest not in before and newest not in news:
            # It may have lain ahead when its facts came.
            news[newest] = self._row(subject, self._spans.tumbling(_HOUR, newest))
        gone = next(iter(before), oldest) < oldest
        if not gone and all(before.get(start) == row for start, row in news.items()):
            return before
        rows: dict[int, Hour | None] = {**before, **news}
        return {
            start: row for start, row in sorted(rows.items()) if row is not None and start >= oldest
        }

    def _row(self, subject: Subject, window: Window) -> Hour | None:
        if not self._books.has(subject, window):
            return None
        return _hour(window, self._figures.numbers(subject, window, None))

    def _start(self, minute: int) -> int:
        return self._spans.tumbling(_HOUR, minute).start_minute or 0


def _hour(window: Window, values: WindowValues | Numbers) -> Hour:
    facts = derived(values.facts, PERIOD)
    around = values.around if isinstance(values, Numbers) else values.surroundings
    # Unknown cost is not zero cost.
    is_missing = around.expected > 0 and not facts.get("cost_records")
    get = facts.get
    return Hour(
        start_minute=window.start_minute or 0,
        impressions=get("impressions", 0),
        clicks=get("clicks", 0),
        cost_micros=None if is_missing else get("cost", 0),
        leads=get("leads", 0),
        sales=get("sales", 0),
        new_customers=get("new_customers", 0),
        revenue_net_micros=get("revenue_net", 0),
    )
