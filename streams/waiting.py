"""Events that wait for the `created` of their lead or sale, and what becomes of them without it."""

from typing import Any

from kpis.calendar import instant_text
from kpis.instants import DAY_MS
from kpis.orders import Waiting
from kpis.reading import Refused, reject_value
from streams.deadlines import Deadlines
from streams.messages import Forwarded
from streams.stages import Context


class Parking:
    """When parked events are given up, and the rejects of forwarded events.

    `rejects` are keys and values of records that are to be written.
    """

    def __init__(self, context: Context) -> None:
        self._topics = context.deployment.topics
        self._rules = context.deployment.rules
        self._park_ms = context.deployment.park_ms
        self._tally = context.tally
        self.deadlines = Deadlines(context.tables["journeys"])
        self.rejects: list[tuple[bytes, bytes]] = []

    def count(self, change: int) -> None:
        """Take note that so many more events, or fewer, wait."""
        self._tally.parked += change

    def park(self, key: bytes, timestamp_ms: int) -> None:
        """Look at a row again when what arrived at `timestamp_ms` has waited long enough."""
        self.deadlines.add(timestamp_ms + self._park_ms, key)

    def reject_orphan(self, orphan: Waiting, kind: str) -> None:
        """Reject an event whose lead or sale (`kind`) was not created in time."""
        field = f"{kind}_id"
        entity_id = getattr(orphan.event, field)
        shown = "one that was not" if field in self._rules.personal else f"{entity_id!r:.40}"
        days = self._park_ms // DAY_MS
        message = f"{field}: expected a {kind} created within {days} days, got {shown}"
        self.reject(orphan, f"orphan_{kind}", field, message)

    def reject(self, told: Waiting, reason: str, field: str, message: str) -> None:
        """Reject an event that was forwarded to its entity."""
        envelope = told.event.envelope
        occurred_at = instant_text(envelope.occurred_ms)
        refused = Refused(reason, field, message, envelope.event_id, occurred_at)
        place = (self._topics.inputs[told.topic], told.partition, told.offset)
        value = reject_value(refused, *place, told.raw, self._rules)
        self.rejects.append(("{}/{}/{}".format(*place).encode(), value))
        self._tally.rejected(told.topic, reason)


def waiting_of(item: Forwarded) -> Waiting:
    """Return a forwarded event in the form in which it can wait."""
    event: Any = item.event
    return Waiting(event, item.timestamp_ms, item.topic, item.partition, item.offset, item.raw)
