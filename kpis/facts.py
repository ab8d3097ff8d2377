"""Facts: the additive integers that everything else is computed from, and their scopes."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple


class Scope(NamedTuple):
    """What facts are about: a campaign, a channel (campaign None) or everything (both None)."""

    channel: str | None
    campaign_id: str | None


OVERALL = Scope(None, None)

PERIOD = "period"
COHORT = "cohort"
BASES = (PERIOD, COHORT)
"""How a thing is put into a window: by its own time, or by the creation of its lead."""


class Subject(NamedTuple):
    """What a set of numbers is about: a scope, on one basis."""

    basis: str
    scope: Scope


Facts = dict[str, int]
"""Whole numbers by fact name: counts, micros or milliseconds; zeros are left out."""

AMOUNTS = frozenset({"cost", "cost_media", "revenue_gross", "refunds", "revenue_net"})
"""Facts in micros of the reporting currency, a derived one among them; the others are bare."""

STAGE_FACTS = ("stage_entered", "stage_implied", "stage_regressed", "stage_current")
"""Facts of the period basis that exist once per stage; `stage_current` only over lifetime."""

FACT_LABELS = dict.fromkeys(STAGE_FACTS, ("stage",)) | {
    "reached": ("to", "from"),
    "closed_from": ("from",),
}
"""What the parts of a fact's name behind the first are called, as in `reached.<to>.<from>`."""

_PERIOD = (
    ("impressions", "viewable_impressions", "invalid_impressions"),
    ("clicks", "invalid_clicks"),
    ("cost", "cost_media", "cost_records"),
    ("leads_gross", "leads_voided", "leads_disqualified"),
    STAGE_FACTS,
    ("sales", "sales_cancelled", "sales_unattributed", "new_customers"),
    ("revenue_gross", "refunds"),
    ("converted", "cycle_ms", "cycle_count"),
    ("fx_missing",),
)
_COHORT = (
    ("cost", "cost_media", "cost_records"),
    ("leads_gross", "leads"),
    ("stage_entered", "reached", "closed_from"),
    ("converted", "converted_gross", "converted_within"),
    ("sales", "new_customers", "revenue_net"),
    ("cycle_ms", "cycle_count"),
    ("fx_missing",),
)


def additive_facts(funnel: Sequence[str], basis: str = PERIOD) -> tuple[str, ...]:
    """Return the names of all stored facts of a basis for a funnel, but those of histograms.

    On the cohort basis a stage counts from `lead` on, as long as another one follows.

    Source: contract, section 4.
    """
    groups = _PERIOD if basis == PERIOD else _COHORT
    return tuple(name for group in groups for fact in group for name in _names(fact, funnel, basis))


def _names(fact: str, funnel: Sequence[str], basis: str) -> Iterable[str]:
    if fact not in FACT_LABELS:
        return (fact,)
    if basis == PERIOD:
        return (f"{fact}.{stage}" for stage in funnel)
    stages = tuple(funnel)[list(funnel).index("lead") :] if "lead" in funnel else ()
    if fact == "reached":
        return (f"{fact}.{later}.{earlier}" for earlier, later in pairwise(stages))
    return (f"{fact}.{stage}" for stage in stages[:-1])


def add(into: Facts, other: Mapping[str, int]) -> None:
    """Add the facts of `other` to `into`; a sum of zero leaves it."""
    for name, amount in other.items():
        total = into.get(name, 0) + amount
        if total:
            into[name] = total
        else:
            into.pop(name, None)


def difference(new: Mapping[str, int], old: Mapping[str, int]) -> Facts:
    """Return the facts that turn `old` into `new` when added; empty if they are equal."""
    changes = {
        name: amount - old.get(name, 0) for name, amount in new.items() if amount != old.get(name)
    }
    changes.update({name: -amount for name, amount in old.items() if name not in new})
    return {name: change for name, change in changes.items() if change}


_PLAIN = 1 << 62
"""Whole numbers below this are written as such; msgpack ends at 64 bits, sums do not."""


def narrow(facts: Mapping[str, int]) -> dict[str, int | str]:
    """Return facts as msgpack can carry them: what is too large for 64 bits as text."""
    return {
        name: amount if -_PLAIN < amount < _PLAIN else str(amount) for name, amount in facts.items()
    }


def widen(carried: Mapping[str, int | str]) -> Facts:
    """Return the facts that `narrow` was given."""
    return {name: int(amount) for name, amount in carried.items()}
