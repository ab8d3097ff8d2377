"""The alerts that are firing as Prometheus gauges."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kpis.windows import ALL
from streams.publishers import Snapshot

FIRING: Final = frozenset({"fired", "updated"})
"""The states of a record of leadgen.alerts.v1 whose alert is firing. Source: contract, section 7."""


class _Told(msgspec.Struct):
    state: str


_TOLD = msgspec.json.Decoder(_Told)


class AlertCollector(Collector):
    """Exports 1 for each firing alert of live shards, and no series for the others.

    Args:
        snapshot: The committed alerts.
        is_live: Whether a shard is open and was confirmed of late; asked at each scrape, from any
            thread.
    """

    def __init__(self, snapshot: Snapshot, is_live: Callable[[int], bool]) -> None:
        self._snapshot = snapshot
        self._is_live = is_live

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return nothing: the series depend on what was committed."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the one family."""
        text = "Always 1; there is no series while an alert is not firing."
        family = GaugeMetricFamily(
            "leadkpi_alert_firing", text, labels=("rule", "channel", "campaign")
        )
        for view in self._snapshot.alerts():
            if view.value is None or not self._is_live(view.shard):
                continue
            if _TOLD.decode(view.value).state in FIRING:
                channel, campaign_id = view.scope
                family.add_metric((view.rule, channel or ALL, campaign_id or ALL), 1)
        yield family
