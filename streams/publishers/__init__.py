"""What publishers share: the committed numbers, and what each has yet to publish."""

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from kpis.catalog import derived
from kpis.facts import PERIOD, Facts, Scope, Subject
from kpis.histogram import FACT
from kpis.spans import LIFETIME, ROLLING, TUMBLING
from kpis.windows import WindowValues, escaped, scope_parts

SLOTS = (*TUMBLING, LIFETIME, *ROLLING, *(f"{kind}@previous" for kind in TUMBLING))
"""The windows of a scope that are shown: the current one of each kind and the one before."""

_HISTOGRAM = f"{FACT}."


SHOWN_HOURS: Final = 50
"""So many hours, the running one among them, are shown of the whole and of each channel."""


class Hour(NamedTuple):
    """What happened in an hour, on the period basis; `cost_micros` is None where it is missing."""

    start_minute: int
    impressions: int
    clicks: int
    cost_micros: int | None
    leads: int
    sales: int
    new_customers: int
    revenue_net_micros: int


NO_HOURS: Final[Mapping[int, Hour]] = MappingProxyType({})


class ScopeView(NamedTuple):
    """All shown windows of a scope on one basis as of one commit of its shard.

    `version` is "position.epoch.lineage" of that commit: with an equal lineage a greater
    (position, epoch) is newer. A slot that is missing has no facts. `hours` are the last ones by
    their first minutes, the oldest first; those without facts are missing, and campaigns and the
    cohort basis have none.
    """

    shard: int
    version: str
    subject: Subject
    slots: dict[str, WindowValues]
    hours: Mapping[int, Hour] = NO_HOURS

    @property
    def scope(self) -> Scope:
        """The scope of its subject."""
        return self.subject.scope

    @property
    def identity(self) -> Hashable:
        """What a later view of the same has too."""
        return self.subject


class AlertView(NamedTuple):
    """The alert of a rule and scope as of one commit of its shard.

    `version` as in `ScopeView`; `value` is that of its last record of leadgen.alerts.v1, None once it
    is shown no more.
    """

    shard: int
    version: str
    rule: str
    scope: Scope
    value: bytes | None

    @property
    def identity(self) -> Hashable:
        """What a later view of the same has too."""
        return ("alert", self.rule, self.scope)

    @property
    def member(self) -> str:
        """Rule, channel and campaign as they stand in keys, between bars."""
        return "|".join((escaped(self.rule), *scope_parts(self.scope)))


View = ScopeView | AlertView


def shown_facts(values: WindowValues) -> Facts:
    """Return the facts of a window that are single numbers: the derived ones too, no histogram."""
    known = derived(values.facts, values.basis)
    if mature := values.surroundings.mature_leads:
        known["mature"] = mature
    return {name: fact for name, fact in known.items() if not name.startswith(_HISTOGRAM)}


class Publisher(Protocol):
    """Shows committed numbers to the world; its failures are its own."""

    async def start(self) -> None:
        """Begin to publish what is in the snapshot, until `stop`."""
        ...

    async def stop(self) -> None:
        """Publish what is left, if it can be done at once, and end."""
        ...


class Outbox:
    """Views yet to publish: the latest of each subject and alert, so never more than there are of them."""

    def __init__(self) -> None:
        self._views: dict[Hashable, View] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._views)

    def put(self, view: View) -> None:
        """Add a view in place of the earlier one of the same, whose turn it keeps."""
        self._views[view.identity] = view
        self._filled.set()

    def take(self, limit: int) -> list[View]:
        """Remove and return at most `limit` views, those that wait longest."""
        first = [identity for identity, _ in zip(self._views, range(limit), strict=False)]
        views = [self._views.pop(identity) for identity in first]
        if not self._views:
            self._filled.clear()
        return views

    def drop_shard(self, shard: int) -> None:
        """Forget the views of a shard."""
        self._views = {key: view for key, view in self._views.items() if view.shard != shard}

    def wake(self) -> None:
        """End the wait under way, though nothing was put."""
        self._filled.set()

    async def wait(self, seconds: float) -> None:
        """Return when there is a view or `wake` was called, at the latest after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._filled.wait()
        except TimeoutError:
            return


class Snapshot:
    """The latest committed view of every subject and alert of the open shards.

    Written on the event loop; `views` and `alerts` may be called from any thread.
    """

    def __init__(self) -> None:
        self._views: dict[int, dict[Subject, ScopeView]] = {}
        self._alerts: dict[int, dict[Hashable, AlertView]] = {}
        self._scopes: Counter[int] = Counter()
        self._outboxes: list[Outbox] = []

    def replace(self, view: ScopeView) -> None:
        """Put a newly committed view in place of the earlier one of its subject."""
        views = self._views.setdefault(view.shard, {})
        if view.subject.basis == PERIOD and view.subject not in views:
            # What has numbers has some on this basis.
            self._scopes[view.shard] += 1
        views[view.subject] = view
        for outbox in self._outboxes:
            outbox.put(view)

    def replace_alert(self, view: AlertView) -> None:
        """Put a newly committed alert in place of the earlier one of its rule and scope.

        One that is shown no more stays here as such: it may have to be taken away once more.
        """
        self._alerts.setdefault(view.shard, {})[view.identity] = view
        for outbox in self._outboxes:
            outbox.put(view)

    def drop_shard(self, shard: int) -> None:
        """Forget a shard that was closed: another worker may own it from now on."""
        self._views.pop(shard, None)
        self._alerts.pop(shard, None)
        self._scopes.pop(shard, None)
        for outbox in self._outboxes:
            outbox.drop_shard(shard)

    def views(self) -> list[ScopeView]:
        """Return the latest view of every subject."""
        return [view for views in list(self._views.values()) for view in list(views.values())]

    def alerts(self) -> list[AlertView]:
        """Return the latest alert of every rule and scope that had any."""
        return [view for views in list(self._alerts.values()) for view in list(views.values())]

    def has_numbers(self, subjects: Iterable[Subject]) -> bool:
        """Tell whether any of the subjects has a window with facts."""
        return any(
            view.slots
            for subject in subjects
            for views in list(self._views.values())
            if (view := views.get(subject)) is not None
        )

    def shards(self) -> Iterable[int]:
        """Return the shards that have views."""
        return list(self._views)

    def __len__(self) -> int:
        return sum(self._scopes.values())

    def subscribe(self) -> Outbox:
        """Return an outbox that gets every view from now on."""
        outbox = Outbox()
        self._outboxes.append(outbox)
        return outbox
