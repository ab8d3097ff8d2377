"""The KPI catalogue: every formula, its unit, its bases, and when its value is undefined."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from kpis import histogram
from kpis.evaluation import (
    NO_SURROUNDINGS,
    TARGET_FACTS,
    Evaluator,
    Progress,
    Quotient,
    Surroundings,
    derived,
)
from kpis.facts import AMOUNTS, PERIOD
from kpis.formulas import COST_MISSING, NO_DATA, Combined, Formula, Interval, Kpi, Undefined, Value

__all__ = [
    "COST_MISSING",
    "NO_DATA",
    "NO_SURROUNDINGS",
    "Catalog",
    "Combined",
    "Formula",
    "Interval",
    "Kpi",
    "Progress",
    "Quotient",
    "Surroundings",
    "Undefined",
    "Value",
    "derived",
    "labels_of",
    "unit_of",
]


_PROFIT: Final = Combined("revenue_net", -1, "cost")
_CLICKS_SEEN: Final = Combined("clicks", 1, "invalid_clicks")


def _asked_as(words: str) -> str:
    return f"contract section 5: “{words}”"


_BEFORE_STAGES = (
    Kpi(
        name="ctr",
        unit="share",
        period=Formula("clicks", "impressions"),
        reason="no_impressions",
        french="Taux de clics",
        source=_asked_as("taux de clics"),
    ),
    Kpi(
        name="cpc",
        unit="amount",
        period=Formula("cost", "clicks"),
        reason="no_clicks",
        french="Coût par clic",
        source=_asked_as("coût par clic"),
    ),
    Kpi(
        name="cpm",
        unit="amount",
        period=Formula("cost", "impressions", times=1000),
        reason="no_impressions",
        french="Coût pour mille impressions",
        source=_asked_as("coût pour mille"),
    ),
    Kpi(
        name="cpl",
        unit="amount",
        both=Formula("cost", "leads"),
        reason="no_leads",
        french="Coût par lead",
        source=_asked_as("coût par lead"),
        is_poisson=True,
    ),
    Kpi(
        name="cpl_gross",
        unit="amount",
        both=Formula("cost", "leads_gross"),
        reason="no_leads",
        french="Coût par lead brut",
    ),
    Kpi(
        name="click_to_lead",
        unit="share",
        period=Formula("leads", "clicks"),
        reason="no_clicks",
        french="Clic en lead",
    ),
    Kpi(
        name="visitor_to_lead",
        unit="share",
        period=Formula("leads", "visitors"),
        reason="no_visitors",
        french="Visiteur en lead",
        source=_asked_as("visiteur → lead"),
    ),
)


def _stage_conversion(earlier: str, later: str) -> Kpi:
    return Kpi(
        name=f"stage_conversion.{earlier}.{later}",
        unit="share",
        period=Formula(f"stage_entered.{later}", f"stage_entered.{earlier}"),
        cohort=Formula(f"reached.{later}.{earlier}", f"stage_entered.{earlier}"),
        reason="no_leads" if earlier == "lead" else "no_stage",
        french=f"Taux d'étape {earlier} → {later}",
        source=_asked_as("lead → MQL → SQL"),
        labels=("from", "to"),
    )


def _conversions(horizon_days: int) -> tuple[Kpi, ...]:
    return (
        Kpi(
            name="conversion",
            unit="share",
            both=Formula("converted", "leads"),
            reason="no_leads",
            french="Taux de conversion",
            source=_asked_as("taux de conversion"),
        ),
        Kpi(
            name="conversion_within",
            unit="share",
            cohort=Formula("mature_converted", "mature_leads"),
            reason="no_mature_leads",
            french=f"Conversion à {horizon_days} jours",
        ),
    )


_MQL_TO_CLOSE = Kpi(
    name="mql_to_close",
    unit="share",
    period=Formula("converted", "stage_entered.mql"),
    cohort=Formula("closed_from.mql", "stage_entered.mql"),
    reason="no_stage",
    french="Lead to close (MQL)",
    source=_asked_as("lead to close"),
)


def _cycle_quantile(permille: int, french: str) -> Kpi:
    return Kpi(
        name=f"purchase_cycle_p{permille // 10}",
        unit="seconds",
        both=Formula(histogram.FACT, "cycle_count", quantile=permille),
        reason="no_sales",
        french=french,
    )


_AFTER_STAGES = (
    Kpi(
        name="purchase_cycle_mean",
        unit="seconds",
        both=Formula("cycle_ms", "cycle_count"),
        reason="no_sales",
        french="Durée du cycle d'achat",
        source=_asked_as("cycle d'achat"),
    ),
    _cycle_quantile(500, "Cycle médian"),
    _cycle_quantile(900, "Cycle, 90 %"),
    Kpi(
        name="cac",
        unit="amount",
        both=Formula("cost", "new_customers"),
        reason="no_customers",
        french="Coût d'acquisition client",
        source=_asked_as("CAC"),
    ),
    Kpi(
        name="cac_media",
        unit="amount",
        both=Formula("cost_media", "new_customers"),
        reason="no_customers",
        french="CAC média",
    ),
    Kpi(
        name="revenue_per_lead",
        unit="amount",
        both=Formula("revenue_net", "leads"),
        reason="no_leads",
        french="Revenu par lead",
        source=_asked_as("revenu moyen par lead"),
    ),
    Kpi(
        name="net_profit_per_lead",
        unit="amount",
        both=Formula(_PROFIT, "leads"),
        reason="no_leads",
        french="Rentabilité nette par lead",
        source=_asked_as("rentabilité nette par lead"),
    ),
    Kpi(
        name="average_revenue_per_sale",
        unit="amount",
        period=Formula("revenue_gross", "sales"),
        cohort=Formula("revenue_net", "sales"),
        reason="no_sales",
        french="Revenu moyen par vente",
        source=_asked_as("revenu moyen par vente"),
    ),
    Kpi(
        name="roi",
        unit="ratio",
        both=Formula(_PROFIT, "cost"),
        reason="no_cost",
        french="Retour sur investissement",
        source=_asked_as("ROI"),
    ),
    Kpi(
        name="roas",
        unit="ratio",
        both=Formula("revenue_net", "cost"),
        reason="no_cost",
        french="ROAS",
    ),
    Kpi(
        name="target_attainment",
        unit="ratio",
        period=Formula("actual", "target"),
        reason="no_target",
        french="Atteinte de l'objectif",
        source=_asked_as("volumes escomptés"),
        per_target="any",
        labels=("kpi",),
    ),
    Kpi(
        name="pacing",
        unit="ratio",
        period=Formula("actual", "target_by_now"),
        reason="no_target",
        french="Rythme",
        per_target="facts",
        labels=("kpi",),
    ),
    Kpi(
        name="unattributed_share",
        unit="share",
        period=Formula("unattributed_leads", "leads"),
        reason="no_leads",
        french="Part non attribuée",
        is_overall=True,
    ),
    Kpi(
        name="invalid_click_share",
        unit="share",
        period=Formula("invalid_clicks", _CLICKS_SEEN),
        reason="no_clicks",
        french="Clics invalides",
    ),
    Kpi(
        name="cost_coverage",
        unit="share",
        both=Formula("covered", "expected"),
        reason="no_data",
        french="Couverture des coûts",
        is_census=True,
    ),
    Kpi(
        name="cohort_maturity",
        unit="share",
        cohort=Formula("mature_leads", "leads"),
        reason="no_leads",
        french="Maturité",
        is_census=True,
    ),
)

_FAMILIES: Final = {
    kpi.name.partition(".")[0]: kpi
    for kpi in (
        *_BEFORE_STAGES,
        _stage_conversion("lead", "customer"),
        *_conversions(30),
        _MQL_TO_CLOSE,
        *_AFTER_STAGES,
    )
}


@lru_cache(maxsize=1024)
def unit_of(name: str) -> str:
    """Return the unit of the KPI `name`: share, ratio, seconds or amount.

    Raises:
        KeyError: if the catalogue has no such KPI.
    """
    return _FAMILIES[name.partition(".")[0]].unit


@lru_cache(maxsize=1024)
def labels_of(name: str) -> tuple[tuple[str, str], ...]:
    """Return the parts of a KPI's name behind the first with what they are called.

    So `stage_conversion.lead.mql` has from=lead and to=mql, `pacing.leads` has kpi=leads.

    Raises:
        KeyError: if the catalogue has no such KPI.
    """
    first, _, rest = name.partition(".")
    labels = _FAMILIES[first].labels
    return tuple(zip(labels, rest.split(".", len(labels) - 1), strict=True)) if labels else ()


class Catalog(Evaluator):
    """The KPIs of one funnel, in the order of the contract.

    Args:
        funnel: The stages in order.
        horizon_days: Up to which age `conversion_within` counts a lead's first sale.

    Raises:
        ValueError: if the funnel has no stage `lead`.
    """

    def __init__(self, funnel: Sequence[str], horizon_days: int = 30) -> None:
        if "lead" not in funnel:
            msg = f"funnel: expected a stage 'lead', got {list(funnel)!r:.200}"
            raise ValueError(msg)
        stages = tuple(funnel)[list(funnel).index("lead") :]
        self.funnel = tuple(funnel)
        super().__init__(
            (
                *_BEFORE_STAGES,
                *(_stage_conversion(*pair) for pair in pairwise(stages)),
                *_conversions(horizon_days),
                *((_MQL_TO_CLOSE,) if "mql" in stages[:-1] else ()),
                *_AFTER_STAGES,
            )
        )

    @property
    def target_units(self) -> dict[str, str]:
        """What a target may be about, with its unit: `count` or one of the catalogue's.

        Source: contract, section 5, target_attainment.
        """
        stages = (f"stage_entered.{stage}" for stage in self.funnel)
        facts = (*sorted(TARGET_FACTS - {"stage_entered"}), *stages)
        units = {fact: "amount" if fact in AMOUNTS else "count" for fact in facts}
        return units | {name: self._kpis[name].unit for name in self.names(PERIOD, is_overall=True)}
