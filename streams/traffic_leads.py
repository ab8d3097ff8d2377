"""Simulated journeys: what becomes of a click, from the lead to what is left of its sale."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from kpis.windows import amount_text
from streams.traffic_plan import CENT, Campaign, Planner, time_text

CRM: Final = "/crm/hubspot"
SHOP: Final = "/shop"

INVALID_REASONS: Final = ("spam", "test", "duplicate", "bot", "error")

MISMATCHED: Final = "currency_mismatch"
"""The reason for which a refund is refused that only its sale can tell."""

EARLY_MS: Final = 900
"""Less than lies between any two steps of a journey."""

# What happens to a sale afterwards, and in how many of 1,000 cases; else it stands.
FATES: Final[tuple[tuple[int, tuple[str, ...]], ...]] = (
    (780, ()),
    (30, ("void",)),
    (30, ("cancel",)),
    (10, ("cancel", "cancel")),
    (40, ("amend",)),
    (10, ("amend", "amend")),
    (10, ("change_currency",)),
    (30, ("refund",)),
    (10, ("refund", "refund")),
    (10, ("refund_all",)),
    (8, ("refund_too_much",)),
    (8, ("refund", "cancel")),
    (6, ("amend", "refund")),
    (4, ("refund_all", "void")),
    (14, ("refund_otherwise",)),
)


@dataclass(slots=True)
class _Sale:
    """A sale as its refunds and corrections see it."""

    sale_id: str
    created_ms: int
    micros: int
    currency: str


class Journeys:
    """Plans leads and all that is said of them."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._mix = planner.mix
        self._chance = planner.chance
        first, last = self._mix.funnel.index("lead"), self._mix.funnel.index("customer")
        self._stages = self._mix.funnel[first + 1 : last]
        self._recent: deque[str] = deque(maxlen=30)
        self._weights = [weight for weight, _ in FATES]

    def lead(self, at_ms: int, campaign: Campaign, click_id: str, visitor_id: str) -> None:
        """Plan a lead and its journey; with `late_days`, some of them lie in the past."""
        if self._mix.late_days and self._chance(self._mix.late_share * 5):
            self._planner.back_ms = self._planner.long_ago_ms()
        self._lead(at_ms, campaign, click_id, visitor_id)
        self._planner.back_ms = 0

    def _lead(self, at_ms: int, campaign: Campaign, click_id: str, visitor_id: str) -> None:
        lead_id = self._planner.new_id("lead")
        moves = self._moves(at_ms, campaign, lead_id)
        fields: dict[str, object] = {"lead_id": lead_id, "visitor_id": visitor_id}
        if not self._chance(0.10):
            fields |= {"channel": campaign.channel, "campaign_id": campaign.campaign_id}
        if click_id:
            fields["click_id"] = click_id
        if self._stages and self._chance(0.01):
            fields["initial_stage"] = self._stages[0]
        if self._chance(0.3):
            fields["email"] = f"{lead_id}@example.com"
        if self._chance(0.02):
            fields["test"] = True
        # Some forms are slower than the sales people.
        arrives = moves[0] + 1_000 if moves and self._chance(0.05) else at_ms
        value = self._planner.event(at_ms, "/site/forms", "lead.created", **fields)
        self._planner.plan(arrives, "leads", lead_id.encode(), value)
        self._correct(at_ms, campaign, lead_id)
        self._recent.append(lead_id)

    # ------------------------------------------------------------------------- the way down

    def _moves(self, created_ms: int, campaign: Campaign, lead_id: str) -> list[int]:
        """Plan the moves of a lead, perhaps to its sale, and return when they happen."""
        at_ms, moves, stage_before = created_ms, list[int](), "lead"
        step_ms = self._mix.cycle_ms // (len(self._stages) + 1)
        for stage in self._stages:
            if not self._chance(campaign.step_ratio):
                if moves and self._chance(0.05):
                    self._move(at_ms + self._planner.delay_ms(step_ms), lead_id, "lead", None)
                if self._chance(0.10):
                    self._disqualify(at_ms + self._planner.delay_ms(step_ms), lead_id)
                return moves
            at_ms += self._planner.delay_ms(step_ms)
            # A stage that nobody entered by hand is implied by the next one.
            if not self._chance(0.06):
                self._move(at_ms, lead_id, stage, stage_before)
                moves.append(at_ms)
            stage_before = stage
        if self._chance(campaign.step_ratio):
            at_ms += self._planner.delay_ms(step_ms)
            if self._chance(0.10):
                self._move(at_ms, lead_id, "customer", stage_before)
            self._sell(at_ms, campaign, lead_id)
            moves.append(at_ms)
        return moves

    def _move(self, at_ms: int, lead_id: str, stage: str, before: str | None) -> None:
        fields: dict[str, object] = {"lead_id": lead_id, "to_stage": stage}
        if before is not None and self._chance(0.5):
            fields["from_stage"] = before
        self._tell(at_ms, "stage-changes", "lead.stage_changed", lead_id, fields)

    # ------------------------------------------------------------------------- corrections of leads

    def _correct(self, created_ms: int, campaign: Campaign, lead_id: str) -> None:
        at_ms = created_ms + self._planner.delay_ms(self._mix.cycle_ms // 3)
        if self._chance(0.04):
            reason = self._planner.random.choice(INVALID_REASONS)
            fields: dict[str, object] = {"lead_id": lead_id, "reason": reason}
            self._tell(at_ms, "leads", "lead.invalidated", lead_id, fields)
        if self._chance(0.05):
            self._update(at_ms, campaign, lead_id)
        if self._recent and self._chance(0.03):
            self._merge(at_ms, lead_id)

    def _update(self, at_ms: int, campaign: Campaign, lead_id: str) -> None:
        """Plan late attributions of a lead: mostly one, sometimes two that overtake each other."""
        random = self._planner.random
        for _ in range(1 if self._chance(0.7) else 2):
            other = random.choice(self._mix.campaigns) if self._chance(0.5) else campaign
            fields: dict[str, object] = {"lead_id": lead_id, "campaign_id": other.campaign_id}
            if self._chance(0.8):
                fields["channel"] = other.channel
            fields["recorded_at"] = time_text(at_ms - random.randrange(60_000))
            self._tell(at_ms, "leads", "lead.updated", lead_id, fields)
            at_ms += self._planner.delay_ms(20_000)

    def _disqualify(self, at_ms: int, lead_id: str) -> None:
        step_ms = self._mix.cycle_ms // 4
        kinds = ("disqualified", "requalified", "disqualified")
        for kind in kinds[: self._planner.random.choices((1, 2, 3), (7, 2, 1))[0]]:
            fields: dict[str, object] = {"lead_id": lead_id, "reason": f"{kind} by sales"}
            self._tell(at_ms, "leads", f"lead.{kind}", lead_id, fields)
            at_ms += self._planner.delay_ms(step_ms)

    def _merge(self, at_ms: int, lead_id: str) -> None:
        """Plan that a lead turns out to be another one; some links make chains, a few a circle."""
        first, second = (self._planner.random.choice(self._recent) for _ in range(2))
        links = [(lead_id, first)]
        drawn = self._planner.random.random()
        if drawn < 0.15 and first != second:
            links.append((first, second))
        elif drawn < 0.25:
            links.append((first, lead_id))
        elif drawn < 0.35:
            links.append((lead_id, second))
        elif drawn < 0.40:
            links.append((lead_id, self._planner.new_id("unknown")))
        for merged, survivor in links:
            fields: dict[str, object] = {"lead_id": merged, "into_lead_id": survivor}
            self._tell(at_ms, "leads", "lead.merged", merged, fields)
            at_ms += self._planner.delay_ms(10_000)

    # ------------------------------------------------------------------------- sales

    def _sell(self, at_ms: int, campaign: Campaign, lead_id: str | None) -> None:
        random, currency = self._planner.random, self._currency()
        euro_micros = campaign.deal_micros * random.lognormvariate(0.0, 0.45)
        micros = 0 if self._chance(0.005) else self._mix.in_currency(euro_micros, currency)
        sale = _Sale(self._planner.new_id("sale"), at_ms, micros, currency)
        fields: dict[str, object] = {"sale_id": sale.sale_id}
        stranger = random.random()
        if stranger < 0.03:
            fields["lead_id"] = self._planner.new_id("unknown")
        elif stranger > 0.02 + 0.03:
            fields["lead_id"] = lead_id
        fields |= {"amount": amount_text(micros), "currency": currency}
        if self._chance(0.2):
            fields["kind"] = "new"
        if self._chance(0.3):
            fields["cost_of_goods"] = amount_text(micros // 3 // CENT * CENT)
        self._tell(at_ms, "sales", "sale.created", sale.sale_id, fields)
        self._meet_fate(sale)
        if self._chance(0.08):
            later_ms = at_ms + self._planner.delay_ms(self._mix.cycle_ms)
            self._sell(later_ms, campaign, lead_id)

    def _currency(self) -> str:
        drawn = self._planner.random.random()
        if drawn < 0.03:
            return self._mix.late_currency
        return self._mix.foreign if drawn < 0.15 else self._mix.currency

    def _meet_fate(self, sale: _Sale) -> None:
        at_ms = sale.created_ms
        (fate,) = self._planner.random.choices(FATES, self._weights)
        for step in fate[1]:
            if step != "refund_otherwise" and self._chance(0.05):
                # Some shops are faster with what comes after than with the sale itself.
                at_ms = sale.created_ms - EARLY_MS
            else:
                at_ms += self._planner.delay_ms(self._mix.cycle_ms // 4)
            self._take_step(step, at_ms, sale)

    def _take_step(self, step: str, at_ms: int, sale: _Sale) -> None:
        if step == "void":
            self._of_sale(at_ms, sale, "sale.voided", reason="entered twice")
        elif step == "cancel":
            self._of_sale(at_ms, sale, "sale.cancelled", reason="withdrawn")
        elif step in ("amend", "change_currency"):
            self._amend(at_ms, sale, is_other_currency=step == "change_currency")
        else:
            self._refund(step, at_ms, sale)

    def _amend(self, at_ms: int, sale: _Sale, *, is_other_currency: bool) -> None:
        if is_other_currency:
            is_own = sale.currency == self._mix.currency
            sale.currency = self._mix.foreign if is_own else self._mix.currency
        else:
            sale.micros = int(sale.micros * (0.5 + self._planner.random.random())) // CENT * CENT
        self._of_sale(
            at_ms,
            sale,
            "sale.amended",
            amount=amount_text(sale.micros),
            currency=sale.currency,
            recorded_at=time_text(at_ms),
        )

    def _refund(self, step: str, at_ms: int, sale: _Sale) -> None:
        share = {"refund_all": 1.0, "refund_too_much": 1.4}.get(step)
        part = self._planner.random.uniform(0.1, 0.6) if share is None else share
        micros = max(CENT, int(sale.micros * part) // CENT * CENT)
        is_mismatched = step == "refund_otherwise"
        self._of_sale(
            at_ms,
            sale,
            "sale.refunded",
            MISMATCHED if is_mismatched else None,
            refund_id=self._planner.new_id("refund"),
            amount=amount_text(micros),
            currency=self._wrong_currency(sale) if is_mismatched else sale.currency,
        )

    def _wrong_currency(self, sale: _Sale) -> str:
        return next(c for c in ("EUR", "USD", "GBP") if c != sale.currency)

    def _of_sale(
        self, at_ms: int, sale: _Sale, kind: str, broken: str | None = None, /, **fields: object
    ) -> None:
        fields["sale_id"] = sale.sale_id
        value = self._planner.event(at_ms, SHOP, kind, **fields)
        self._planner.plan(at_ms, "sales", sale.sale_id.encode(), value, broken)

    def _tell(self, at_ms: int, topic: str, kind: str, key: str, fields: dict[str, object]) -> None:
        source = SHOP if topic == "sales" else CRM
        value = self._planner.event(at_ms, source, kind, **fields)
        self._planner.plan(at_ms, topic, key.encode(), value)
