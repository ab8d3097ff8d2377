"""What one entity adds to the facts, by place; corrections are the difference of two of these."""

from typing import NamedTuple

from kpis.facts import PERIOD, Facts, difference
from kpis.retention import LIFETIME_BUCKET, Grain


class Place(NamedTuple):
    """Where facts count: a campaign's bucket of one grain; coarser grains and scopes follow from it."""

    basis: str
    channel: str
    campaign_id: str
    grain: Grain
    bucket: int


Contribution = dict[Place, Facts]


def lifetime_place(channel: str, campaign_id: str) -> Place:
    """Return the place of facts of the period basis that only exist over lifetime."""
    return Place(PERIOD, channel, campaign_id, Grain.LIFETIME, LIFETIME_BUCKET)


def count(contribution: Contribution, place: Place, name: str, amount: int = 1) -> None:
    """Add `amount` of the fact `name` at `place`."""
    if not amount:
        return
    facts = contribution.get(place)
    if facts is None:
        contribution[place] = {name: amount}
        return
    total = facts.get(name, 0) + amount
    if total:
        facts[name] = total
    else:
        facts.pop(name, None)


def correction(new: Contribution, old: Contribution) -> Contribution:
    """Return what to add so that `old` becomes `new`; empty if nothing changed."""
    changes = {place: difference({}, facts) for place, facts in old.items() if place not in new}
    for place, facts in new.items():
        before = old.get(place)
        if before is None:
            changes[place] = dict(facts)
        elif facts != before:
            changes[place] = difference(facts, before)
    return {place: facts for place, facts in changes.items() if facts}
