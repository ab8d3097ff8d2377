"""Alerts in French."""

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
    start = f"sur {said.window}, {said.cost}"
    if not said.has_leads:
        return f"{start} n'ont rapporté aucun lead {_instead(said)}"
    return f"{start} ont rapporté {_plural(said.leads, 'lead')} {_instead(said)}"


def _instead(said: Said) -> str:
    return f"au lieu de {_plural(said.expected, 'attendu')}"


def _plural(count: str, *words: str) -> str:
    """Return a count with words that take an s from two on: 1,9 is singular."""
    ending = "" if count.partition(",")[0] in ("0", "1") else "s"
    return " ".join((count, *(f"{word}{ending}" for word in words)))


def _cpl_spike(said: Said) -> str:
    if said.has_leads:
        return (
            f"Le CPL de {said.scope} est de {said.cpl}, soit {said.ratio} fois son niveau habituel de "
            f"{said.baseline} ({said.baseline_kind}) : {_brought(said)} ({said.p_value})."
        )
    return (
        f"{said.scope} : {_brought(said)} au coût habituel de {said.baseline} par lead "
        f"({said.baseline_kind} ; {said.p_value})."
    )


def _cpl_well(said: Said) -> str:
    if not said.baseline:
        return f"{said.scope} : l'alerte de CPL est levée, presque rien n'a été dépensé sur {said.window}."
    if not said.is_back:
        return (
            f"{said.scope} : l'alerte de CPL est levée, {_brought(said)} : ce peut être un hasard."
        )
    return (
        f"Le CPL de {said.scope} est revenu à {said.cpl} (habituel : {said.baseline}, "
        f"{said.baseline_kind}) : {_brought(said)}."
    )


def _spend_stopped(said: Said) -> str:
    return (
        f"{said.scope} a dépensé {said.cost} sur {said.window} ; aux {said.baseline_kind}, les fois où "
        f"il y a eu des dépenses, c'était au moins {said.baseline}. Vérifiez le budget, la facturation "
        "et les campagnes en pause."
    )


def _spend_well(said: Said) -> str:
    return f"{said.scope} dépense à nouveau : {said.cost} sur {said.window}."


def _leads_stopped(said: Said) -> str:
    return (
        f"{said.scope} n'a apporté aucun lead sur {said.window} {_instead(said)} "
        f"({said.baseline_kind} ; {said.p_value}). Vérifiez les formulaires, les pages d'atterrissage "
        "et l'import des leads."
    )


def _leads_well(said: Said) -> str:
    return (
        f"Les leads de {said.scope} reviennent : {said.leads} sur {said.window} pour "
        f"{_plural(said.expected, 'attendu')}."
    )


def _cost_missing(said: Said) -> str:
    return (
        f"Aucun coût reçu sur {said.window} pour {said.channels}, malgré des clics ou des leads : les "
        f"indicateurs de coût de {said.scope} sont incomplets (couverture {said.ratio_share}) et le "
        "CPL n'est pas surveillé. Vérifiez l'import des coûts."
    )


def _cost_well(said: Said) -> str:
    return f"Les coûts de {said.scope} sont à nouveau complets sur {said.window}."


def _conversion_drop(said: Said) -> str:
    return (
        f"La conversion de {said.scope} est tombée à {said.share} contre {said.baseline_share} "
        f"d'habitude ({said.baseline_kind}) sur {said.window}, au lieu de "
        f"{_plural(said.expected, 'conversion', 'attendue')} ({said.p_value})."
    )


def _conversion_well(said: Said) -> str:
    if not said.is_back:
        return (
            f"{said.scope} : l'alerte de conversion est levée, {said.share} sur {said.window} "
            f"(habituelle : {said.baseline_share}) peut être un hasard."
        )
    return (
        f"La conversion de {said.scope} est revenue à {said.share} (habituelle : "
        f"{said.baseline_share}) sur {said.window}."
    )


def _pacing_behind(said: Said) -> str:
    return (
        f"{said.kpi} de {said.scope} : {said.ratio_share} du rythme de l'objectif {said.window}, "
        f"{said.actual} au lieu de {said.expected} à ce jour (objectif {said.baseline_count}, "
        f"{said.elapsed} de la période écoulés)."
    )


def _pacing_well(said: Said) -> str:
    return f"{said.kpi} de {said.scope} : revenu à {said.ratio_share} du rythme de l'objectif."


def _silent(rule: str, said: Said) -> str:
    return f"{said.scope} : l'alerte {rule} est levée, il n'y a plus de quoi en juger."


def _factors(factors: Factored) -> str:
    cpc = f"le coût par clic ({factors.cpc})"
    conversion = f"le passage de clic en lead ({factors.click_to_lead})"
    if not factors.is_split:
        worse, better = (cpc, conversion) if factors.is_cpc_first else (conversion, cpc)
        return f"Toute la hausse vient de : {worse} ; à l'inverse, {better} s'est amélioré."
    parts = [f"{factors.cpc_share} : {cpc}", f"{factors.click_to_lead_share} : {conversion}"]
    first, second = parts if factors.is_cpc_first else reversed(parts)
    return f"La hausse s'explique ainsi : {first} ; {second}."


FRENCH: Final = Wording(
    point=",",
    group="\N{NARROW NO-BREAK SPACE}",
    percent="\N{NO-BREAK SPACE}%",
    whole="l'ensemble des canaux",
    windows={
        "last_1h": "la dernière heure",
        "last_6h": "les 6 dernières heures",
        "last_24h": "les 24 dernières heures",
        "1d": "du jour",
        "1w": "de la semaine",
        "1mo": "du mois",
    },
    baselines={
        SAME_HOURS: "mêmes heures des 4 dernières semaines",
        LAST_DAYS: "7 derniers jours",
        TARGET: "objectif",
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
    still="Toujours : ",
    factors=_factors,
    without_leads=lambda clicks, usual: (
        f"Ils ont acheté {_plural(clicks, 'clic')} ; d'habitude {usual}."
    ),
    campaigns=lambda names: f"Surtout : {names}.",
)
"""French."""
