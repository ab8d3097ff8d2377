"""Leads as the rows of a table, as small as they can be read back exactly.

A deployment remembers every lead, so a row repeats nothing: a source, stage or channel is written once,
a usual one as a number; times as distances from the creation, canonical UUIDs as their 16 bytes; and
what is empty at the end of a row is left out.
"""

from typing import Any, Final

from msgspec import msgpack

from kpis.clicks import Attribution
from kpis.ids import packed_id, unpacked_id
from kpis.leads import Corrected, Creation, Journey, Lead, Move
from kpis.orders import Order, Waiting
from kpis.sales import SaleState

_ORDER_FIELDS: Final = 4
_MOVE_FIELDS: Final = _ORDER_FIELDS + 1
# A distance of 0 is something else than none.
_LEAST_FIELDS: Final = 2

_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder().decode
# Stored rows rest on the order of these: new ones go to the end.
_KNOWN: Final = (
    *("visitor", "lead", "mql", "sql", "customer"),
    *("google_ads", "linkedin_ads", "meta_ads", "microsoft_ads", "seo", "email", "referral"),
    *("direct", "event", "partner", "organic_social", "other"),
)
_NUMBERS: Final = {text: number for number, text in enumerate(_KNOWN)}

_decode_waiting: Final = msgpack.Decoder(list[Waiting]).decode


def encode_lead(lead: Lead) -> bytes:
    """Return the row of a lead."""
    writing = _Writing(0 if lead.created is None else lead.created.order.at_ms)
    fields = [
        None if lead.created is None else writing.creation(lead.created),
        writing.distance(lead.created_timestamp_ms),
        writing.moves(lead.moves),
        lead.is_void,
        writing.sales(lead.sales),
        writing.corrected(lead.channel),
        writing.corrected(lead.campaign_id),
        None if lead.disqualified is None else writing.order(lead.disqualified),
        None if lead.requalified is None else writing.order(lead.requalified),
        writing.corrected(lead.merged),
        {packed_id(key): writing.journey(journey) for key, journey in lead.joined.items()},
        {packed_id(key): (told.channel, told.campaign_id) for key, told in lead.clicks.items()},
        _encode(lead.waiting) if lead.waiting else None,
    ]
    while len(fields) > _LEAST_FIELDS and not fields[-1]:
        fields.pop()
    return _encode((list(writing.texts), writing.base_ms, *fields))


def decode_lead(row: bytes) -> Lead:
    """Return the lead of a row that `encode_lead` made."""
    texts, base_ms, *fields = _decode(row)
    return _Reading(texts, base_ms).lead(*fields)


class _Writing:
    """Writes parts of one row: times from `base_ms` on, shared texts by number."""

    __slots__ = ("base_ms", "texts")

    def __init__(self, base_ms: int) -> None:
        self.base_ms = base_ms
        self.texts: dict[str, int] = {}

    def text(self, text: str) -> int:
        """Return the number of a text: of a usual one from 0 on, of the row's own from -1 down."""
        number = _NUMBERS.get(text)
        return self.texts.setdefault(text, ~len(self.texts)) if number is None else number

    def distance(self, at_ms: int | None) -> int | None:
        return None if at_ms is None else at_ms - self.base_ms

    def order(self, order: Order) -> tuple[object, ...]:
        return (
            order.at_ms - self.base_ms,
            self.text(order.source),
            packed_id(order.event_id),
            order.digest,
        )

    def creation(self, created: Creation) -> tuple[object, ...]:
        return (
            *self.order(created.order),
            None if created.channel is None else self.text(created.channel),
            created.campaign_id,
            None if created.click_id is None else packed_id(created.click_id),
            self.text(created.initial_stage),
            created.content,
        )

    def moves(self, moves: list[Move]) -> list[object]:
        flat: list[object] = []
        for move in moves:
            flat += self.order(move.order)
            flat.append(self.text(move.to_stage))
        return flat

    def corrected(self, corrected: Corrected | None) -> tuple[object, ...] | None:
        return None if corrected is None else (*self.order(corrected.order), corrected.value)

    def sales(self, sales: dict[str, SaleState]) -> dict[object, object]:
        return {
            packed_id(sale_id): (
                *self.order(sale.order),
                sale.kind,
                sale.gross,
                [(self.distance(at_ms), micros) for at_ms, micros in sale.reversals],
                self.distance(sale.cancelled_ms),
                sale.stands,
            )
            for sale_id, sale in sales.items()
        }

    def journey(self, journey: Journey) -> tuple[object, ...]:
        told = () if journey.told is None else (journey.told.channel, journey.told.campaign_id)
        return (
            self.creation(journey.created),
            self.distance(journey.created_timestamp_ms),
            self.moves(journey.moves),
            self.sales(journey.sales),
            *told,
        )


class _Reading:
    """Reads what `_Writing` wrote."""

    __slots__ = ("base_ms", "texts")

    def __init__(self, texts: list[str], base_ms: int) -> None:
        self.texts = texts
        self.base_ms = base_ms

    def lead(
        self,
        created: Any = None,
        timestamp: int | None = None,
        moves: Any = (),
        is_void: bool = False,  # noqa: FBT001, FBT002 - the fields of a row have no names
        sales: Any = None,
        channel: Any = None,
        campaign_id: Any = None,
        disqualified: Any = None,
        requalified: Any = None,
        merged: Any = None,
        joined: Any = None,
        clicks: Any = None,
        waiting: bytes | None = None,
    ) -> Lead:
        return Lead(
            created=created and self.creation(created),
            created_timestamp_ms=self.instant(timestamp),
            moves=self.moves(moves),
            is_void=is_void,
            sales=self.sales(sales or {}),
            channel=channel and self.corrected(channel),
            campaign_id=campaign_id and self.corrected(campaign_id),
            disqualified=disqualified and self.order(*disqualified),
            requalified=requalified and self.order(*requalified),
            merged=merged and self.corrected(merged),
            joined={
                unpacked_id(key): self.journey(*fields) for key, fields in (joined or {}).items()
            },
            clicks={unpacked_id(key): Attribution(*told) for key, told in (clicks or {}).items()},
            waiting=_decode_waiting(waiting) if waiting else [],
        )

    def text(self, number: int) -> str:
        return _KNOWN[number] if number >= 0 else self.texts[~number]

    def instant(self, distance: int | None) -> int | None:
        return None if distance is None else self.base_ms + distance

    def order(self, distance: int, source: int, event_id: str | bytes, digest: int) -> Order:
        return Order(self.base_ms + distance, self.text(source), unpacked_id(event_id), digest)

    def creation(self, fields: Any) -> Creation:
        channel, campaign_id, click_id, stage, content = fields[_ORDER_FIELDS:]
        return Creation(
            self.order(*fields[:_ORDER_FIELDS]),
            None if channel is None else self.text(channel),
            campaign_id,
            None if click_id is None else unpacked_id(click_id),
            self.text(stage),
            content,
        )

    def moves(self, flat: Any) -> list[Move]:
        return [
            Move(self.order(*flat[at : at + _ORDER_FIELDS]), self.text(flat[at + _ORDER_FIELDS]))
            for at in range(0, len(flat), _MOVE_FIELDS)
        ]

    def corrected(self, fields: Any) -> Corrected:
        return Corrected(self.order(*fields[:_ORDER_FIELDS]), fields[_ORDER_FIELDS])

    def sales(self, sales: Any) -> dict[str, SaleState]:
        return {unpacked_id(sale_id): self.sale(fields) for sale_id, fields in sales.items()}

    def sale(self, fields: Any) -> SaleState:
        kind, gross, reversals, cancelled, stands = fields[_ORDER_FIELDS:]
        return SaleState(
            self.order(*fields[:_ORDER_FIELDS]),
            kind,
            gross,
            tuple((self.base_ms + distance, micros) for distance, micros in reversals),
            self.instant(cancelled),
            stands,
        )

    def journey(self, created: Any, timestamp: int, moves: Any, sales: Any, *told: str) -> Journey:
        return Journey(
            self.creation(created),
            self.base_ms + timestamp,
            self.moves(moves),
            self.sales(sales),
            Attribution(*told) if told else None,
        )
