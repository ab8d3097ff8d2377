"""What one shard counted about its own work since its last commit; only committed work is reported."""

from collections import Counter

from streams.metrics import Metrics


class Tally:
    """Counts of events by what became of them, until they are reported."""

    def __init__(self) -> None:
        self._events: Counter[tuple[str, str]] = Counter()
        self._rejects: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()
        self._revisions: Counter[str] = Counter()
        self._alerts: Counter[tuple[str, str]] = Counter()
        self._overflow = 0
        self._cost_reported_ms: dict[str, int] = {}
        self.parked = 0

    def outcome(self, topic: str, outcome: str, amount: int = 1) -> None:
        """Count events of a topic (short name) by what became of them."""
        if amount:
            self._events[topic, outcome] += amount

    def rejected(self, topic: str, reason: str) -> None:
        """Count an event that can never be counted."""
        self._events[topic, "rejected"] += 1
        self._rejects[reason] += 1

    def remarked(self, remark: str, amount: int = 1) -> None:
        """Count something odd about accepted events, for example fields that nobody knows."""
        self._remarks[remark] += amount

    def revised(self, cause: str) -> None:
        """Count a revision in the ledger."""
        self._revisions[cause] += 1

    def alerted(self, rule: str, state: str) -> None:
        """Count an alert that fired or resolved."""
        self._alerts[rule, state] += 1

    def overflowed(self) -> None:
        """Count a campaign scope that is not kept."""
        self._overflow += 1

    def cost_reported(self, channel: str, reported_ms: int) -> None:
        """Remember when cost of a channel was last reported."""
        known_ms = self._cost_reported_ms.get(channel, 0)
        self._cost_reported_ms[channel] = max(known_ms, reported_ms)

    def take(self) -> "Tally":
        """Return what was counted so far, and start again."""
        taken, empty = Tally(), Tally()
        for name in vars(empty).keys() - {"parked"}:
            setattr(taken, name, getattr(self, name))
            setattr(self, name, getattr(empty, name))
        return taken

    def report(self, metrics: Metrics) -> None:
        """Add everything to the metrics."""
        for (topic, outcome), amount in self._events.items():
            metrics.events.labels(topic, outcome).inc(amount)
        for reason, amount in self._rejects.items():
            metrics.rejects.labels(reason).inc(amount)
        for remark, amount in self._remarks.items():
            metrics.remarks.labels(remark).inc(amount)
        for cause, amount in self._revisions.items():
            metrics.revisions.labels(cause).inc(amount)
        for (rule, state), amount in self._alerts.items():
            metrics.alerts.labels(rule, state).inc(amount)
        for channel, reported_ms in self._cost_reported_ms.items():
            # Rows of a channel lie in several shards: the newest of all counts.
            newest_ms = max(reported_ms, metrics.cost_reported_ms.get(channel, 0))
            metrics.cost_reported_ms[channel] = newest_ms
            metrics.cost_last_reported.labels(channel).set(newest_ms / 1000)
        metrics.scopes_overflow.inc(self._overflow)
