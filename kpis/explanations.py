"""The explanation of a finding, from what is counted and what shards told of their campaigns.

Source: contract, section 9.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from heapq import nlargest
from typing import Final

from msgspec import UNSET, UnsetType

from kpis.alert_rules import CPL_SPIKE, WINDOWS
from kpis.alerts import FIRES, Finding
from kpis.baselines import LAST_DAYS
from kpis.decomposition import (
    Campaign,
    CampaignPart,
    CampaignTold,
    ChannelPart,
    Explanation,
    Funnel,
    Part,
    Sums,
    excess,
    factors,
    mix_and_rate,
    rounded,
    top,
)
from kpis.facts import PERIOD, Facts, Scope, Subject
from kpis.money import MICROS
from kpis.sight import Sight
from kpis.surroundings import Outlook, leads_of
from kpis.windows import amount_text

MOST_TOLD: Final = 10
"""So many campaigns a shard tells of each window: three are shown, and each may be another scope's."""
_MOST_SHOWN: Final = 3


def explanation(
    finding: Finding,
    told: Iterable[CampaignTold],
    outlook: Outlook,
    usual_of_channels: Mapping[str, Facts],
) -> Explanation | None:
    """Return why a CPL is what it is; None for other rules and where nothing fires.

    Args:
        finding: What was found.
        told: What shards told of their campaigns.
        outlook: What is counted.
        usual_of_channels: What the channels had in the baseline's hours, if the finding is of the whole.
    """
    if finding.rule.kind != CPL_SPIKE or finding.condition != FIRES:
        return None
    scope = finding.scope
    cpc, click_to_lead = _factors(finding)
    usual_clicks = _usual_clicks(finding)
    is_without_leads = not finding.evidence.leads
    shown = Explanation(
        cpc=cpc,
        click_to_lead=click_to_lead,
        clicks=finding.facts.get("clicks", 0) if is_without_leads else UNSET,
        usual_clicks=usual_clicks if is_without_leads and usual_clicks is not None else UNSET,
        channels=_channels(finding, outlook, usual_of_channels) or UNSET,
        campaigns=(_campaigns(finding, told) or UNSET) if scope.campaign_id is None else UNSET,
    )
    return None if shown == Explanation() else shown


def _funnel(facts: Facts) -> Funnel:
    return Funnel(facts.get("cost", 0), facts.get("clicks", 0), leads_of(PERIOD, facts))


def _sums(facts: Facts) -> Sums:
    return Sums(facts.get("cost", 0), leads_of(PERIOD, facts))


def _number(value: Fraction) -> float:
    return round(value * MICROS) / MICROS


def _factors(finding: Finding) -> tuple[Part | UnsetType, Part | UnsetType]:
    now, usual = _funnel(finding.facts), _funnel(finding.usual)
    shares = factors(now, usual)
    if shares is None:
        return UNSET, UNSET
    return (
        Part(
            _number(Fraction(usual.cost, usual.clicks * MICROS)),
            _number(Fraction(now.cost, now.clicks * MICROS)),
            shares.cpc / MICROS,
        ),
        Part(
            _number(Fraction(usual.leads, usual.clicks)),
            _number(Fraction(now.leads, now.clicks)),
            shares.click_to_lead / MICROS,
        ),
    )


def _usual_clicks(finding: Finding) -> float | None:
    """Return how many clicks the window's cost usually buys."""
    now, usual = _funnel(finding.facts), _funnel(finding.usual)
    return _number(Fraction(usual.clicks * now.cost, usual.cost)) if usual.cost > 0 else None


# ----------------------------------------------------------------------------- channels


def _channels(
    finding: Finding, outlook: Outlook, usual_of_channels: Mapping[str, Facts]
) -> tuple[ChannelPart, ...]:
    if not usual_of_channels:
        return ()
    now: dict[str, Sums] = {}
    usual: dict[str, Sums] = {}
    for channel in outlook.sums.channels(PERIOD):
        subject = Subject(PERIOD, Scope(channel, None))
        sums = _sums(outlook.sums.facts(subject, finding.window))
        before = _sums(usual_of_channels.get(channel, {}))
        if any((*sums, *before)):
            now[channel], usual[channel] = sums, before
    effects = mix_and_rate(now, usual)
    parts = rounded([part for effect in effects.values() for part in effect])
    return tuple(
        ChannelPart(channel, parts[2 * place] / MICROS, parts[2 * place + 1] / MICROS)
        for place, channel in enumerate(effects)
    )


# ----------------------------------------------------------------------------- campaigns


def _campaigns(finding: Finding, told: Iterable[CampaignTold]) -> tuple[CampaignPart, ...]:
    baseline = finding.evidence.baseline
    if baseline is None:
        return ()
    cpl = baseline * MICROS
    now, usual = _sums(finding.facts), _sums(finding.usual)
    is_last_days = finding.evidence.baseline_kind == LAST_DAYS
    found = [
        (campaign, excess(campaign, now, usual, cpl))
        for each in told
        if each.window == finding.window.kind and finding.scope.channel in (None, each.channel)
        for campaign in (_campaign(each, is_last_days),)
    ]
    return tuple(
        CampaignPart(
            campaign.channel,
            campaign.campaign_id,
            amount_text(round(above)),
            amount_text(campaign.now.cost),
            campaign.now.leads,
        )
        for campaign, above in top(found, _MOST_SHOWN)
    )


def _campaign(told: CampaignTold, is_last_days: bool) -> Campaign:  # noqa: FBT001 - which pair
    usual = (
        Sums(told.week_cost, told.week_leads)
        if is_last_days
        else Sums(told.same_cost, told.same_leads)
    )
    return Campaign(told.channel, told.campaign_id, Sums(told.cost, told.leads), usual)


def ranked(sights: Sequence[Sight], least_coverage: float) -> list[CampaignTold]:
    """Return the campaigns that spent most above their own usual, at most `MOST_TOLD` of each window.

    Args:
        sights: Campaigns at one minute.
        least_coverage: That of the baselines.
    """
    found = []
    for kind in WINDOWS:
        spending = (sight for sight in sights if sight.facts(kind).get("cost", 0) > 0)
        most = nlargest(
            MOST_TOLD, spending, key=lambda sight: _own_excess(sight, kind, least_coverage)
        )
        found += [_told(sight, kind, least_coverage) for sight in most]
    return found


def _told(sight: Sight, kind: str, least_coverage: float) -> CampaignTold:
    channel, campaign_id = sight.scope
    return CampaignTold(
        channel or "",
        campaign_id or "",
        kind,
        *_sums(sight.facts(kind)),
        *_sums(sight.same_hours(kind, least_coverage).facts),
        *_sums(sight.last_days(least_coverage).facts),
    )


def _own_excess(sight: Sight, kind: str, least_coverage: float) -> tuple[float, int]:
    """Return what a campaign spent above the usual price of its leads, micros.

    By its own usual CPL; without one all of its cost is above it if it has no leads either.
    """
    now = _sums(sight.facts(kind))
    usual = _sums(sight.same_hours(kind, least_coverage).facts)
    if usual.leads > 0:
        return now.cost - now.leads * usual.cost / usual.leads, now.cost
    return (float(now.cost) if now.leads <= 0 else 0.0), now.cost
