"""Clicks with a `click_id` of a shard: counted once, and asked by leads without a channel."""

from typing import Final, NamedTuple

from msgspec import msgpack

from kpis.clicks import (
    Attribution,
    Click,
    answers,
    ask_click,
    click_contribution,
    forget_ms,
    take_click,
    void_click,
)
from kpis.contributions import Contribution, correction
from kpis.events import ClickRecorded
from kpis.ledger import causes_of
from kpis.orders import Outcome
from kpis.remembered import begins_anew
from streams.entity_rows import TakenUp, Work
from streams.messages import (
    ClickAsked,
    ClickEvent,
    ClickTold,
    click_key,
    entity_key,
    lead_key,
)
from streams.remembered_rows import RememberedRows

CLICK: Final = b"c"


class _Shown(NamedTuple):
    """What a click adds, what it answered whom, and until when it is remembered."""

    contribution: Contribution
    answers: dict[str, Attribution | None]
    forget_ms: int


class ClickRows(RememberedRows[Click, _Shown]):
    """The clicks that one shard remembers, and who asked for them."""

    def __init__(self, work: Work) -> None:
        super().__init__(work, msgpack.Decoder(Click).decode)
        self._park_ms = work.deployment.park_ms

    def apply(self, event: ClickEvent, timestamp_ms: int) -> Outcome:
        """Take in a click or a void."""
        key = entity_key(event)
        taken = self.take_up(key)
        if not isinstance(event, ClickRecorded):
            taken.because(causes_of(event))
            return void_click(taken.entity, timestamp_ms, self._keep_ms)
        if begins_anew(taken.entity, timestamp_ms, self._keep_ms):
            # What it counted until now stays.
            self._settle(key, taken)
            taken.before = self._show(key, taken.entity)._replace(contribution={})
        outcome = take_click(taken.entity, event, timestamp_ms, self._keep_ms)
        taken.because(causes_of(event))
        return outcome

    def ask(self, asked: ClickAsked) -> None:
        """Take in the question of a lead; it is answered now and on every change."""
        taken = self.take_up(click_key(asked.click_id))
        ask_click(taken.entity, asked.lead_id, asked.timestamp_ms)
        if taken.before.answers.get(asked.lead_id) is not None:
            # It asks with another timestamp, or again: what it was answered is taken back first.
            taken.before.answers[asked.lead_id] = None
            self._work.tell(lead_key(asked.lead_id), ClickTold(asked.lead_id, asked.click_id, None))

    def _forget_ms(self, entity: Click) -> int:
        return forget_ms(entity, self._keep_ms, self._park_ms)

    def _new(self) -> Click:
        return Click()

    def _is_empty(self, entity: Click) -> bool:
        return entity.first is None and not entity.voided_ms and not entity.asks

    def _show(self, key: bytes, entity: Click) -> _Shown:
        del key
        return _Shown(
            click_contribution(entity, self._keep_ms),
            answers(entity, self._keep_ms, self._park_ms),
            self._forget_ms(entity),
        )

    def _settle(self, key: bytes, taken: TakenUp[Click, _Shown]) -> None:
        work, before, now = self._work, taken.before, self._show(key, taken.entity)
        work.deltas.add(correction(now.contribution, before.contribution), taken.causes)
        click_id = key[len(CLICK) :].decode()
        for lead_id, attribution in now.answers.items():
            if attribution != before.answers.get(lead_id):
                work.tell(lead_key(lead_id), ClickTold(lead_id, click_id, attribution))
        if now.forget_ms != before.forget_ms:
            self.deadlines.add(now.forget_ms, key)
