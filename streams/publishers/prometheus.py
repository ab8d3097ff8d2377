"""The committed numbers as Prometheus gauges, and the HTTP endpoint that serves them."""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from kpis.catalog import Catalog, Surroundings, Undefined, Value, derived, labels_of, unit_of
from kpis.cells import VISITORS
from kpis.facts import AMOUNTS, FACT_LABELS, Facts, Scope, add
from kpis.histogram import FACT
from kpis.money import MICROS
from kpis.retention import Grain
from kpis.spans import GRAIN_OF, LIFETIME, ROLLING
from kpis.windows import ALL
from streams.metrics import Metrics
from streams.publishers import ScopeView, Snapshot, shown_facts

OTHER = "__other__"
STOP_SECONDS = 2.0
WINDOW_LABELS = {
    **{kind: kind for kind in ROLLING},
    "1d": "today",
    "1mo": "month",
    LIFETIME: LIFETIME,
}
"""The label `window` by slot; the other slots are not exported."""

_TEXTS_OF_STAGES = {
    "stage_entered": "Leads that entered the stage for the first time, also by skipping it; see docs/decisions.md.",
    "stage_implied": "Leads that entered the stage only by skipping it.",
    "stage_regressed": "Times that a lead fell back to the stage.",
    "stage_current": "Leads that are in the stage now.",
    "reached": "Leads that entered the stage `from` in the window and the stage `to` ever.",
    "closed_from": "Leads that entered the stage in the window and have a sale that stands.",
}
_COST_FACTS = frozenset({"cost", "cost_media"})
_COUNTED_BY_DAYS = frozenset({VISITORS, "mature"})
_NOT_SUMMED = frozenset({"visitor_to_lead", "conversion_within", "cohort_maturity"})
_UNIT_SUFFIXES = {"share": "_ratio", "ratio": "_ratio", "seconds": "_seconds", "amount": "_amount"}


class Series(NamedTuple):
    """How a fact or KPI is exported: its metric, labels of its own, and what a unit consists of."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    parts: int
    is_amount: bool
    text: str


class Row(NamedTuple):
    """One subject as it is exported, by slot; a slot without facts is missing."""

    basis: str
    channel: str
    campaign: str
    slots: Mapping[str, tuple[Facts, Mapping[str, Value]]]


# ----------------------------------------------------------------------------- names


@lru_cache(maxsize=1024)
def series_of_fact(name: str) -> Series:
    """Return how the fact `name` is exported; stages become the label `stage`."""
    base, *stages = name.split(".")
    if base in FACT_LABELS:
        labels = tuple(zip(FACT_LABELS[base], stages, strict=True))
        text = _TEXTS_OF_STAGES[base]
        return Series(f"leadkpi_{base}", labels, 1, is_amount=False, text=text)
    text = f"Fact {name} of the window."
    if name in AMOUNTS:
        return Series(f"leadkpi_{name}_amount", (), MICROS, is_amount=True, text=text)
    if name == "cycle_ms":
        return Series("leadkpi_cycle_seconds", (), 1000, is_amount=False, text=text)
    if name == "cycle_count":
        # "_count" at the end is reserved for histograms.
        return Series("leadkpi_cycles", (), 1, is_amount=False, text=text)
    return Series(f"leadkpi_{name}", (), 1, is_amount=False, text=text)


@lru_cache(maxsize=1024)
def series_of_kpi(name: str) -> Series:
    """Return how the KPI `name` is exported; the parts of its name become labels."""
    base = name.partition(".")[0]
    unit = unit_of(name)
    return Series(
        f"leadkpi_{base}{_UNIT_SUFFIXES[unit]}",
        labels_of(name),
        MICROS,
        unit == "amount",
        f"KPI {base}; never to be added or averaged.",
    )


# ----------------------------------------------------------------------------- collecting


class KpiCollector(Collector):
    """Exports the views of live shards as gauges.

    Args:
        snapshot: The committed views.
        is_live: Whether a shard is open and was confirmed of late; asked at each scrape, from
            any thread.
        catalog: Evaluates what is left of a channel beside its top campaigns.
        expects_cost: Whether a channel expects cost.
        currency: The reporting currency, the label of amounts.
        top_campaigns: How many campaigns, by lifetime cost, have series of their own; the others
            are summed per channel as `__other__`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        is_live: Callable[[int], bool],
        catalog: Catalog,
        expects_cost: Callable[[str], bool],
        *,
        currency: str,
        top_campaigns: int = 50,
    ) -> None:
        self._snapshot = snapshot
        self._is_live = is_live
        self._catalog = catalog
        self._expects_cost = expects_cost
        self._currency = currency
        self._top_campaigns = top_campaigns

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing: the series depend on what was committed."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return one family per metric, with all scopes and windows."""
        families: dict[str, GaugeMetricFamily] = {}
        for row in self._rows():
            ever, _ = row.slots.get(LIFETIME, ({}, {}))
            for slot, window in WINDOW_LABELS.items():
                facts, kpis = row.slots.get(slot, ({}, {}))
                labels = {"basis": row.basis, "window": window}
                labels |= {"channel": row.channel, "campaign": row.campaign}
                for name, fact in _known_facts(slot, ever, facts):
                    self._add(families, series_of_fact(name), labels, fact)
                for name, kpi in kpis.items():
                    if not isinstance(kpi, Undefined):
                        self._add(families, series_of_kpi(name), labels, kpi)
        yield from families.values()

    def _add(
        self,
        families: dict[str, GaugeMetricFamily],
        series: Series,
        labels: Mapping[str, str],
        amount: int,
    ) -> None:
        own = dict(series.labels)
        if series.is_amount:
            own["currency"] = self._currency
        family = families.get(series.metric)
        if family is None:
            family = GaugeMetricFamily(series.metric, series.text, labels=(*labels, *own))
            families[series.metric] = family
        family.add_metric((*labels.values(), *own.values()), amount / series.parts)

    def _rows(self) -> Iterator[Row]:
        live = {shard for shard in self._snapshot.shards() if self._is_live(shard)}
        views = [view for view in self._snapshot.views() if view.shard in live]
        campaigns = [view for view in views if view.scope.campaign_id is not None]
        top = heapq.nsmallest(self._top_campaigns, _costs(campaigns).items(), key=_rank)
        shown = {scope for scope, _ in top}
        for view in views:
            if view.scope.campaign_id is None or view.scope in shown:
                yield _row(view)
        rest = [view for view in campaigns if view.scope not in shown]
        yield from self._others(rest)

    def _others(self, rest: Iterable[ScopeView]) -> Iterator[Row]:
        sums: dict[tuple[str, str], dict[str, Facts]] = {}
        for view in rest:
            of_channel = sums.setdefault((view.subject.basis, str(view.scope.channel)), {})
            for slot in WINDOW_LABELS:
                if values := view.slots.get(slot):
                    add(of_channel.setdefault(slot, {}), _additive(values.facts))
        for (basis, channel), slots in sums.items():
            numbers = {slot: self._evaluated(basis, channel, slots[slot]) for slot in slots}
            yield Row(basis, channel, OTHER, numbers)

    def _evaluated(
        self, basis: str, channel: str, facts: Facts
    ) -> tuple[Facts, Mapping[str, Value]]:
        is_expected = self._expects_cost(channel)
        surroundings = Surroundings(
            expected=int(is_expected),
            covered=int(is_expected and facts.get("cost_records", 0) > 0),
        )
        kpis = self._catalog.evaluate(basis, facts, surroundings)
        # What rests on more than sums of facts cannot be told of several campaigns.
        known = {name: kpi for name, kpi in kpis.items() if name not in _NOT_SUMMED}
        return _single(derived(facts, basis)), known


def _additive(facts: Facts) -> Facts:
    return {name: fact for name, fact in facts.items() if name != VISITORS}


def _single(facts: Facts) -> Facts:
    return {name: fact for name, fact in facts.items() if not name.startswith(f"{FACT}.")}


def _costs(campaigns: Iterable[ScopeView]) -> dict[Scope, int]:
    """Return the lifetime cost of each campaign; it is the same on both bases."""
    costs: dict[Scope, int] = {}
    for view in campaigns:
        lifetime = view.slots.get(LIFETIME)
        cost = lifetime.facts.get("cost", 0) if lifetime else 0
        costs[view.scope] = max(cost, costs.get(view.scope, 0))
    return costs


def _rank(costing: tuple[Scope, int]) -> tuple[int, Scope]:
    scope, cost = costing
    return -cost, scope


def _row(view: ScopeView) -> Row:
    channel, campaign_id = view.scope
    return Row(
        view.subject.basis,
        ALL if channel is None else channel,
        ALL if campaign_id is None else campaign_id,
        {
            slot: (shown_facts(values), values.kpis)
            for slot in WINDOW_LABELS
            if (values := view.slots.get(slot))
        },
    )


def _known_facts(slot: str, ever: Facts, facts: Facts) -> Iterator[tuple[str, int]]:
    """Return the facts of a window; what the scope has ever had is a 0 now, not a gap."""
    is_cost_known = facts.get("cost_records", 0) > 0
    has_days = GRAIN_OF[slot] >= Grain.DAY
    for name in {**ever, **facts}:
        if name.startswith("stage_current.") and name not in facts:
            continue
        # Nobody counts visitors by the hour: that there were none cannot be said.
        if name in _COUNTED_BY_DAYS and not has_days:
            continue
        # Unknown cost is not zero cost.
        if name not in _COST_FACTS or is_cost_known:
            yield name, facts.get(name, 0)


# ----------------------------------------------------------------------------- serving


class MetricsEndpoint:
    """Serves `/metrics` and `/healthz` over HTTP, and what else it is given.

    Args:
        metrics: Its registry is served, with whatever collectors were registered on it.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        problem: Returns what stands still, or None while all is well; asked by `/healthz`.
        routes: What is served besides; whose answers do not end is to end them before `stop`.
    """

    def __init__(
        self,
        metrics: Metrics,
        host: str,
        port: int,
        problem: Callable[[], str | None],
        routes: Iterable[web.RouteDef] = (),
    ) -> None:
        self._registry = metrics.registry
        self._up = metrics.publisher_up.labels("prometheus")
        self._host = host
        self._port = port
        self._problem = problem
        self._routes = tuple(routes)
        self._runner: web.AppRunner | None = None
        # Slow scrapes wait for each other instead of sharing the one interpreter.
        self._rendering = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where the endpoint listens."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: if the address cannot be had.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.add_routes(self._routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._up.set(1)

    async def stop(self) -> None:
        """End listening."""
        self._up.set(0)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        async with self._rendering:
            # Ten thousand series take 50 ms or more, too long for the loop that commits.
            body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self._problem()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)
