"""Why a CPL changed: cost per click against click-to-lead, mix against rate, and which campaigns.

Every split sums exactly to what it splits; what is published is rounded so that it still does.

Source: contract, section 9, "Explanation".
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import log
from typing import NamedTuple

from msgspec import UNSET, Struct, UnsetType

from kpis.money import MICROS


class Part(Struct, frozen=True):
    """A factor of CPL: what it was, what it is, and its share of the change of ln CPL."""

    baseline: float
    now: float
    share: float


class ChannelPart(Struct, frozen=True):
    """What a channel adds to the change of the whole's CPL, amounts: by its weight and by its own CPL."""

    channel: str
    mix: float
    rate: float


class CampaignPart(Struct, frozen=True):
    """A campaign that adds to what was spent above the usual; `excess` and `cost` are amounts."""

    channel: str
    campaign_id: str
    excess: str
    cost: str
    leads: int


class Explanation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why; left out is what cannot be said: with no leads there are cost and clicks only.

    Attributes:
        cpc: Cost per click, in the reporting currency.
        click_to_lead: Leads per click; its share and that of `cpc` are 1 together.
        clicks: Of the window.
        usual_clicks: As many as the window's cost usually buys.
        channels: How the change of CPL splits over them; all together are the change.
        campaigns: The three that add most.
    """

    cpc: Part | UnsetType = UNSET
    click_to_lead: Part | UnsetType = UNSET
    clicks: int | UnsetType = UNSET
    usual_clicks: float | UnsetType = UNSET
    channels: tuple[ChannelPart, ...] | UnsetType = UNSET
    campaigns: tuple[CampaignPart, ...] | UnsetType = UNSET


class CampaignTold(Struct, frozen=True, array_like=True):
    """A campaign that spent above its own usual in a window, for who explains a wider scope.

    Cost in micros. `same_*` are the sums of the same hours of the last four weeks, `week_*` those of
    the seven days before the last 24 hours.
    """

    channel: str
    campaign_id: str
    window: str
    cost: int
    leads: int
    same_cost: int
    same_leads: int
    week_cost: int
    week_leads: int


# ----------------------------------------------------------------------------- factors


class Funnel(NamedTuple):
    """The three sums that a CPL and its factors are made of; cost in micros."""

    cost: int
    clicks: int
    leads: int

    @property
    def is_whole(self) -> bool:
        """Tell whether all factors are defined and above 0."""
        return self.cost > 0 and self.clicks > 0 and self.leads > 0


class Factors(NamedTuple):
    """The shares, in millionths, of both factors in the change of ln CPL; together a million."""

    cpc: int
    click_to_lead: int


def factors(now: Funnel, usual: Funnel) -> Factors | None:
    """Split the change of ln CPL into that of ln CPC less that of ln click-to-lead.

    A share above 1 says that the other factor pulled the other way. None if a sum is 0 or CPL did not
    change.
    """
    if not (now.is_whole and usual.is_whole):
        return None
    if now.cost * usual.leads == usual.cost * now.leads:
        return None
    whole = log(now.cost * usual.leads) - log(usual.cost * now.leads)
    per_click = log(now.cost * usual.clicks) - log(usual.cost * now.clicks)
    share = round(per_click / whole * MICROS)
    return Factors(share, MICROS - share)


# ----------------------------------------------------------------------------- channels


class Sums(NamedTuple):
    """Cost in micros and leads."""

    cost: int
    leads: int


class Effect(NamedTuple):
    """What a channel adds to a change of CPL, micros: as its share of leads moved, and as its CPL did."""

    mix: Fraction
    rate: Fraction


def mix_and_rate(now: Mapping[str, Sums], usual: Mapping[str, Sums]) -> dict[str, Effect]:
    """Split the change of a CPL by channel into mix and rate; they sum to it exactly.

    With s a channel's share of all leads, k its own CPL and K the usual CPL of the whole:
    mix = Δs (k̄ - K), rate = s̄ Δk, where a bar is the mean of both sides. A channel that moves from
    a dear to a cheap one helps, though no CPL changed. Without leads on a side a channel has no CPL of
    its own: it then is all rate, what its cost adds to the whole's CPL less what its leads had to bring.

    Returns:
        The effects by channel, empty if there are no leads on a side.

    Source: the midpoint form of E. M. Kitagawa, 1955.
    """
    leads_now, leads_usual = _leads(now), _leads(usual)
    if leads_now <= 0 or leads_usual <= 0:
        return {}
    level = Fraction(sum(each.cost for each in usual.values()), leads_usual)
    nothing = Sums(0, 0)
    effects = {}
    for channel in sorted({*now, *usual}):
        after, before = now.get(channel, nothing), usual.get(channel, nothing)
        share_after = Fraction(after.leads, leads_now)
        share_before = Fraction(before.leads, leads_usual)
        if after.leads > 0 and before.leads > 0:
            own_after = Fraction(after.cost, after.leads)
            own_before = Fraction(before.cost, before.leads)
            mix = (share_after - share_before) * ((own_after + own_before) / 2 - level)
            rate = (share_after + share_before) / 2 * (own_after - own_before)
        else:
            mix = Fraction(0)
            added = Fraction(after.cost, leads_now) - Fraction(before.cost, leads_usual)
            rate = added - (share_after - share_before) * level
        effects[channel] = Effect(mix, rate)
    return effects


def _leads(sums: Mapping[str, Sums]) -> int:
    return sum(each.leads for each in sums.values())


# ----------------------------------------------------------------------------- campaigns


class Campaign(NamedTuple):
    """A campaign's sums in a window and in the baseline of the scope that is explained."""

    channel: str
    campaign_id: str
    now: Sums
    usual: Sums


def excess(campaign: Campaign, now: Sums, usual: Sums, cpl: Fraction) -> Fraction:
    """Return what a campaign adds to the money spent above the usual of its scope, micros.

    What its leads cost above `cpl`, less what they usually do at today's spending. Over all campaigns
    of the scope it sums exactly to `now.cost - cpl * now.leads`.

    Args:
        campaign: The one.
        now: Of the whole scope.
        usual: Of the whole scope; no cost if its usual CPL is a target.
        cpl: The scope's usual CPL, micros per lead.
    """
    above = campaign.now.cost - cpl * campaign.now.leads
    if usual.cost <= 0:
        return above
    before = campaign.usual.cost - cpl * campaign.usual.leads
    return above - before * now.cost / usual.cost


def rounded(parts: Sequence[Fraction]) -> list[int]:
    """Return the parts in whole units that sum to the rounded sum; the largest takes what is left over."""
    whole = round(sum(parts, Fraction(0)))
    found = [round(part) for part in parts]
    if found:
        largest = max(range(len(parts)), key=lambda place: abs(parts[place]))
        found[largest] += whole - sum(found)
    return found


def top(
    campaigns: Iterable[tuple[Campaign, Fraction]], most: int
) -> list[tuple[Campaign, Fraction]]:
    """Return the campaigns with the greatest excess above 0, the greatest first."""
    above = [each for each in campaigns if each[1] > 0]
    above.sort(key=lambda each: (-each[1], each[0].channel, each[0].campaign_id))
    return above[:most]
