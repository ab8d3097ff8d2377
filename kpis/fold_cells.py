"""The sums of the recomputation: cells of all scopes and grains, from what each entity adds."""

from collections.abc import Iterable, Mapping
from itertools import chain

from kpis.contributions import Contribution
from kpis.facts import OVERALL, PERIOD, Facts, Scope, Subject, add
from kpis.retention import LIFETIME_BUCKET, Buckets, Grain
from kpis.visitors import Sketch

Cells = dict[Grain, dict[int, Facts]]
"""The facts of one subject by grain and bucket; none that are empty."""

Visits = dict[Grain, dict[int, Sketch]]
"""The visitors of one subject by grain and bucket."""


class RollUp:
    """Sums up to coarser grains and wider scopes, and leaves out what is not kept at a minute."""

    def __init__(self, buckets: Buckets, newest_minute: int) -> None:
        self._buckets = buckets
        self._newest_minute = newest_minute

    def cells(self, contributions: Iterable[Contribution]) -> dict[Subject, Cells]:
        """Return the cells of campaigns, channels and the whole that are kept, none that are empty."""
        finest: dict[Subject, Cells] = {}
        for contribution in contributions:
            for (basis, channel, campaign_id, grain, bucket), facts in contribution.items():
                campaign = Subject(basis, Scope(channel, campaign_id))
                _add_cell(finest.setdefault(campaign, {}), grain, bucket, facts)
        for whole in (_channel_of, _overall_of):
            for subject, by_grain in list(finest.items()):
                if (wider := whole(subject)) is not None:
                    _add_cells(finest.setdefault(wider, {}), by_grain)
        return without_empty({each: self._with_coarser(cells) for each, cells in finest.items()})

    def visits(self, visits: Mapping[tuple[str, str, int], Sketch]) -> dict[Subject, Visits]:
        """Return the visitors of all scopes, from those of each campaign and day."""
        rolled: dict[Subject, Visits] = {}
        for (channel, campaign_id, day), sketch in visits.items():
            stored = sketch.to_bytes()
            is_kept = self._buckets.is_kept(Grain.DAY, day, self._newest_minute)
            days = [(Grain.DAY, day)] if is_kept else []
            for grain, bucket in (*days, (Grain.LIFETIME, LIFETIME_BUCKET)):
                for scope in scopes_of(channel, campaign_id):
                    by_bucket = rolled.setdefault(Subject(PERIOD, scope), {}).setdefault(grain, {})
                    if bucket not in by_bucket:
                        by_bucket[bucket] = Sketch()
                    by_bucket[bucket].merge(stored)
        return rolled

    def _with_coarser(self, finest: Cells) -> Cells:
        """Return the cells of all grains that are kept, of facts that are each in one cell."""
        kept: Cells = {}
        finer: dict[int, Facts] = {}
        for grain in Grain:
            cells: Cells = {grain: {}}
            for bucket, facts in chain(finer.items(), finest.get(grain, {}).items()):
                _add_cell(cells, grain, self._buckets.start(grain, bucket), facts)
            finer = cells[grain]
            kept[grain] = {
                bucket: facts
                for bucket, facts in finer.items()
                if self._buckets.is_kept(grain, bucket, self._newest_minute)
            }
        return kept


def scopes_of(channel: str, campaign_id: str) -> tuple[Scope, Scope, Scope]:
    """Return the scopes in which facts of a campaign count."""
    return Scope(channel, campaign_id), Scope(channel, None), OVERALL


def _channel_of(subject: Subject) -> Subject | None:
    """Return what a campaign is part of; None for what is no campaign."""
    basis, (channel, campaign_id) = subject
    return None if campaign_id is None else Subject(basis, Scope(channel, None))


def _overall_of(subject: Subject) -> Subject | None:
    """Return what a channel is part of; None for what is no channel."""
    basis, (channel, campaign_id) = subject
    is_channel = channel is not None and campaign_id is None
    return Subject(basis, OVERALL) if is_channel else None


def _add_cell(cells: Cells, grain: Grain, bucket: int, facts: Mapping[str, int]) -> None:
    of_grain = cells.setdefault(grain, {})
    known = of_grain.get(bucket)
    if known is None:
        of_grain[bucket] = dict(facts)
    else:
        add(known, facts)


def _add_cells(cells: Cells, others: Cells) -> None:
    for grain, buckets in others.items():
        for bucket, facts in buckets.items():
            _add_cell(cells, grain, bucket, facts)


def sum_of(cells: Cells, others: Cells) -> Cells:
    """Return the sum of both, which stay as they are."""
    total = {grain: dict(buckets) for grain, buckets in cells.items()}
    for grain, buckets in others.items():
        for bucket, facts in buckets.items():
            of_grain = total.setdefault(grain, {})
            of_grain[bucket] = dict(of_grain.get(bucket, {}))
            add(of_grain[bucket], facts)
    return total


def without_empty(cells: dict[Subject, Cells]) -> dict[Subject, Cells]:
    """Leave out cells whose facts came to nothing."""
    kept: dict[Subject, Cells] = {}
    for subject, by_grain in cells.items():
        for grain, buckets in by_grain.items():
            full = {bucket: facts for bucket, facts in buckets.items() if facts}
            if full:
                kept.setdefault(subject, {})[grain] = full
    return kept


def union_of(sketches: Iterable[Sketch]) -> Sketch:
    """Return the visitors of all sketches, each once."""
    union = Sketch()
    for sketch in sketches:
        union.merge(sketch.to_bytes())
    return union


def estimates_of(
    sketches: Mapping[Subject, Visits],
) -> dict[Subject, dict[Grain, dict[int, int]]]:
    """Return how many visitors each stored cell has."""
    return {
        subject: {
            grain: {bucket: sketch.estimate() for bucket, sketch in buckets.items()}
            for grain, buckets in by_grain.items()
        }
        for subject, by_grain in sketches.items()
    }
