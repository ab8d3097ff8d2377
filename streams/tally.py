"""What one shard counted about its own work since its last commit; only committed work is reported."""

from collections import Counter

from streams.metrics import Metrics


class Tally:
    """Counts of events by what became of them, until they are reported."""

    def __init__(self) -> None:
        self._events: Counter[tuple[str, str]] = Counter()
        self._rejects: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()
        self._overflow = 0
        self._cost_reported_ms: dict[str, int] = {}
        self.parked = 0

    def outcome(self, topic: str, outcome: str, amount: int = 1) -> None:
        """Count events of a topic (short name) by what became of them."""
        self._events[topic, outcome] += amount

    def rejected(self, topic: str, reason: str) -> None:
        """Count an event that can never be counted."""
        self._events[topic, "rejected"] += 1
        self._rejects[reason] += 1

    def remarked(self, remark: str, amount: int = 1) -> None:
        """Count something odd about accepted events, for example fields that nobody knows."""
        self._remarks[remark] += amount

    def overflowed(self) -> None:
        """Count a campaign scope that is not kept."""
        self._overflow += 1

    def cost_reported(self, channel: str, reported_ms: int) -> None:
        """Remember when cost of a channel was last reported."""
        known_ms = self._cost_reported_ms.get(channel, 0)
        self._cost_reported_ms[channel] = max(known_ms, reported_ms)

    def report(self, metrics: Metrics) -> None:
        """Add everything to the metrics and start again."""
        for (topic, outcome), amount in self._events.items():
            metrics.events.labels(topic, outcome).inc(amount)
        for reason, amount in self._rejects.items():
            metrics.rejects.labels(reason).inc(amount)
        for remark, amount in self._remarks.items():
            metrics.remarks.labels(remark).inc(amount)
        for channel, reported_ms in self._cost_reported_ms.items():
            metrics.cost_last_reported.labels(channel).set(reported_ms / 1000)
        metrics.scopes_overflow.inc(self._overflow)
        self._events.clear()
        self._rejects.clear()
        self._remarks.clear()
        self._overflow = 0
