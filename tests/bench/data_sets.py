"""What the engines read: impressions and clicks out of a fixed seed, and their true totals."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import NamedTuple

CAMPAIGNS = 100
CHANNELS = ("google_ads", "meta_ads", "linkedin_ads", "email", "seo")
CLICK_SHARE = 0.1
SPAN_SECONDS = 600
DISORDER_MS = 2_000
DRAFTS = 10_000
TOPICS = ("impressions", "clicks")
TYPES = {"impressions": "impression.served", "clicks": "click.recorded"}

Totals = Counter[tuple[str, str]]
"""Events by campaign_id and topic ("impressions", "clicks")."""


class Draft(NamedTuple):
    """An event without its id and time; every `DRAFTS`-th event is made of the same one."""

    topic: str
    campaign_id: str
    channel: str
    delay_ms: int


class Event(NamedTuple):
    """A record to produce."""

    topic: str
    value: bytes


@dataclass(frozen=True, slots=True)
class DataSet:
    """`events` events of the ten minutes before `end_ms`, in record batches of `batch_size`."""

    batch_size: int
    events: int
    end_ms: int

    @property
    def prefix(self) -> str:
        """The prefix of its topics."""
        return f"bench.{self.batch_size}.{self.events}."

    def totals(self) -> Totals:
        """Return how many events of each campaign there are."""
        cycles, rest = divmod(self.events, DRAFTS)
        drafts = _drafts()
        totals = Counter((draft.campaign_id, draft.topic) for draft in drafts[:rest])
        for draft in drafts if cycles else ():
            totals[draft.campaign_id, draft.topic] += cycles
        return totals

    def read(self) -> Iterator[Event]:
        """Yield the events in the order of time, up to two seconds out of it."""
        begin_ms = self.end_ms - SPAN_SECONDS * 1000
        seconds = _second_texts(begin_ms // 1000)
        frames = [(draft.topic, draft.delay_ms, *_frame(draft)) for draft in _drafts()]
        for index in range(self.events):
            topic, delay_ms, head, tail = frames[index % DRAFTS]
            at_ms = begin_ms + max(0, index * SPAN_SECONDS * 1000 // self.events - delay_ms)
            second, milliseconds = divmod(at_ms, 1000)
            time = f"{seconds[second - begin_ms // 1000]}.{milliseconds:03d}Z"
            yield Event(topic, f'{head}{index:012d}","occurred_at":"{time}{tail}'.encode())


@cache
def _drafts() -> list[Draft]:
    random = Random(1)
    drafts = []
    for _ in range(DRAFTS):
        number = random.randrange(CAMPAIGNS)
        topic = TOPICS[random.random() < CLICK_SHARE]
        channel = CHANNELS[number % len(CHANNELS)]
        delay_ms = random.randrange(DISORDER_MS)
        drafts.append(Draft(topic, f"campaign-{number:03d}", channel, delay_ms))
    return drafts


def _frame(draft: Draft) -> tuple[str, str]:
    head = f'{{"source":"/ads/{draft.channel}","type":"{TYPES[draft.topic]}","event_id":"e'
    tail = f'","channel":"{draft.channel}","campaign_id":"{draft.campaign_id}"}}'
    return head, tail


def _second_texts(begin: int) -> list[str]:
    instants = (datetime.fromtimestamp(begin + i, UTC) for i in range(SPAN_SECONDS + 1))
    return [f"{instant:%Y-%m-%dT%H:%M:%S}" for instant in instants]
