"""Alerts in English."""

from typing import Final

from kpis.alert_rules import (
    CONVERSION_DROP,
    COST_MISSING,
    CPL_SPIKE,
    LEADS_STOPPED,
    PACING_BEHIND,
    SPEND_STOPPED,
)
from kpis.alert_wording import Factored, Said, Wording
from kpis.baselines import LAST_DAYS, SAME_HOURS, TARGET


def _brought(said: Said) -> str:
    leads = "no lead" if said.leads == "0" else _plural(said.leads, "lead")
    return f"in the {said.window} {said.cost} brought {leads} where {_were(said.expected)} expected"


def _plural(count: str, word: str) -> str:
    return f"{count} {word}" if count == "1" else f"{count} {word}s"


def _were(count: str) -> str:
    return f"{count} was" if count == "1" else f"{count} were"


def _cpl_spike(said: Said) -> str:
    if said.has_leads:
        return (
            f"CPL of {said.scope} is {said.cpl}, {said.ratio} times its usual {said.baseline} "
            f"({said.baseline_kind}): {_brought(said)} ({said.p_value})."
        )
    return (
        f"{said.scope}: {_brought(said)} at the usual {said.baseline} per lead "
        f"({said.baseline_kind}; {said.p_value})."
    )


def _cpl_well(said: Said) -> str:
    if not said.baseline:
        return (
            f"{said.scope}: the CPL alert is over, in the {said.window} hardly anything was spent."
        )
    if not said.is_back:
        return f"{said.scope}: the CPL alert is over, {_brought(said)}: that may well be chance."
    return (
        f"CPL of {said.scope} is back at {said.cpl} (usual {said.baseline}, {said.baseline_kind}): "
        f"{_brought(said)}."
    )


def _spend_stopped(said: Said) -> str:
    return (
        f"{said.scope} spent {said.cost} in the {said.window}; whenever it spent in the "
        f"{said.baseline_kind}, it was at least {said.baseline}. Check budget, billing and whether "
        "campaigns are paused."
    )


def _spend_well(said: Said) -> str:
    return f"{said.scope} spends again: {said.cost} in the {said.window}."


def _leads_stopped(said: Said) -> str:
    return (
        f"{said.scope} brought no lead in the {said.window} where {_were(said.expected)} expected "
        f"({said.baseline_kind}; {said.p_value}). Check forms, landing pages and the import of leads."
    )


def _leads_well(said: Said) -> str:
    return (
        f"Leads come again from {said.scope}: {said.leads} in the {said.window}, "
        f"{_were(said.expected)} expected."
    )


def _cost_missing(said: Said) -> str:
    return (
        f"No cost was reported in the {said.window} for {said.channels}, though clicks or leads came: "
        f"cost KPIs of {said.scope} are incomplete (coverage {said.ratio_share}) and CPL is not "
        "watched. Check the import of costs."
    )


def _cost_well(said: Said) -> str:
    return f"Cost of {said.scope} is complete again in the {said.window}."


def _conversion_drop(said: Said) -> str:
    return (
        f"Conversion of {said.scope} fell to {said.share} from its usual {said.baseline_share} "
        f"({said.baseline_kind}) in the {said.window}: {_were(said.expected)} expected to go on "
        f"({said.p_value})."
    )


def _conversion_well(said: Said) -> str:
    if not said.is_back:
        return (
            f"{said.scope}: the conversion alert is over, {said.share} in the {said.window} (usual "
            f"{said.baseline_share}) may well be chance."
        )
    return (
        f"Conversion of {said.scope} is back at {said.share} (usual {said.baseline_share}) in the "
        f"{said.window}."
    )


def _pacing_behind(said: Said) -> str:
    return (
        f"{said.kpi} of {said.scope} is at {said.ratio_share} of its target's pace {said.window}: "
        f"{said.actual} where {said.expected} are asked for by now (target {said.baseline_count}, "
        f"{said.elapsed} of the period is over)."
    )


def _pacing_well(said: Said) -> str:
    return f"{said.kpi} of {said.scope} is back at {said.ratio_share} of its target's pace."


def _silent(rule: str, said: Said) -> str:
    return f"{said.scope}: the alert {rule} is over, there is nothing left to judge by."


def _factors(factors: Factored) -> str:
    cpc = f"cost per click ({factors.cpc})"
    conversion = f"click-to-lead ({factors.click_to_lead})"
    if not factors.is_split:
        worse, better = (cpc, conversion) if factors.is_cpc_first else (conversion, cpc)
        return f"All of the rise is {worse}; {better} went the other way."
    parts = [f"{factors.cpc_share} is {cpc}", f"{factors.click_to_lead_share} is {conversion}"]
    first, second = parts if factors.is_cpc_first else reversed(parts)
    return f"Of the rise {first}, {second}."


ENGLISH: Final = Wording(
    point=".",
    group=",",
    percent=" %",
    whole="all channels together",
    windows={
        "last_1h": "last hour",
        "last_6h": "last 6 h",
        "last_24h": "last 24 h",
        "1d": "today",
        "1w": "this week",
        "1mo": "this month",
    },
    baselines={
        SAME_HOURS: "same hours of the last 4 weeks",
        LAST_DAYS: "last 7 days",
        TARGET: "target",
    },
    fired={
        CPL_SPIKE: _cpl_spike,
        SPEND_STOPPED: _spend_stopped,
        LEADS_STOPPED: _leads_stopped,
        COST_MISSING: _cost_missing,
        CONVERSION_DROP: _conversion_drop,
        PACING_BEHIND: _pacing_behind,
    },
    resolved={
        CPL_SPIKE: _cpl_well,
        SPEND_STOPPED: _spend_well,
        LEADS_STOPPED: _leads_well,
        COST_MISSING: _cost_well,
        CONVERSION_DROP: _conversion_well,
        PACING_BEHIND: _pacing_well,
    },
    silent=_silent,
    still="Still: ",
    factors=_factors,
    without_leads=lambda clicks, usual: f"It bought {_plural(clicks, 'click')}; usually {usual}.",
    campaigns=lambda names: f"Most of it: {names}.",
)
"""English."""
