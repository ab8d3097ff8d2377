"""Why a CPL changed: cost per click against click-to-lead, mix against rate, and which campaigns.

Every split sums exactly to what it splits.

Source: contract, section 9, "Explanation".
"""

from msgspec import UNSET, Struct, UnsetType


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


class Explanation(Struct, frozen=True, kw_only=True):
    """Why: left out is what does not apply, so with no leads there are cost and clicks only."""

    cpc: Part | UnsetType = UNSET
    click_to_lead: Part | UnsetType = UNSET
    clicks: int | UnsetType = UNSET
    baseline_clicks: float | UnsetType = UNSET
    baseline_cost: str | UnsetType = UNSET
    channels: tuple[ChannelPart, ...] | UnsetType = UNSET
    campaigns: tuple[CampaignPart, ...] | UnsetType = UNSET


class CampaignTold(Struct, frozen=True, array_like=True):
    """A campaign that spent above its own usual in a window, for who explains a wider scope.

    Cost in micros. `same_*` are the sums of the same hours of the last four weeks, `week_*` those of
    the seven days before.
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
