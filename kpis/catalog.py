"""The KPI catalogue: every formula, its unit, and when its value is undefined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from kpis.facts import Facts
from kpis.money import MICROS, scaled_quotient


class Undefined(NamedTuple):
    """Why a KPI has no value: `cost_missing`, `no_data` or the reason of the catalogue."""

    reason: str


Value = int | Undefined
"""A KPI's value in millionths, rounded half-even; or why there is none."""

NO_DATA = Undefined("no_data")
COST_MISSING = Undefined("cost_missing")

# How many of the unit of a numerator are one of the KPI's: micros in an amount, ms in a second.
_PARTS = {"share": 1, "ratio": 1, "seconds": 1000, "amount": MICROS}
_USES_COST = frozenset({"cost", "profit"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One line of the catalogue.

    `numerator` and `denominator` name facts, derived facts, `profit` (revenue_net - cost) or
    `clicks_seen` (clicks + invalid_clicks); `times` multiplies the numerator. `reason` is given
    when the denominator is not positive. Source of all lines: contract section 5.
    """

    name: str
    formula: str
    unit: str
    numerator: str
    denominator: str
    reason: str
    french: str
    source: str = "contract section 5"
    times: int = 1

    @property
    def needs_cost(self) -> bool:
        """Whether cost is in it, so that unknown cost makes it undefined."""
        return bool(_USES_COST & {self.numerator, self.denominator})

    def is_implausible(self, value: Value) -> bool:
        """Return whether `value` is a share of more than the whole; it is published all the same."""
        return self.unit == "share" and isinstance(value, int) and value > MICROS


def _asked_as(words: str) -> str:
    return f"contract section 5, asked for as “{words}”"


_BEFORE_STAGES = (
    Kpi(
        name="ctr",
        formula="clicks / impressions",
        unit="share",
        numerator="clicks",
        denominator="impressions",
        reason="no_impressions",
        french="Taux de clics",
        source=_asked_as("taux de clics"),
    ),
    Kpi(
        name="cpc",
        formula="cost / clicks",
        unit="amount",
        numerator="cost",
        denominator="clicks",
        reason="no_clicks",
        french="Coût par clic",
        source=_asked_as("coût par clic"),
    ),
    Kpi(
        name="cpm",
        formula="1000 * cost / impressions",
        unit="amount",
        numerator="cost",
        times=1000,
        denominator="impressions",
        reason="no_impressions",
        french="Coût pour mille impressions",
        source=_asked_as("coût pour mille"),
    ),
    Kpi(
        name="cpl",
        formula="cost / leads",
        unit="amount",
        numerator="cost",
        denominator="leads",
        reason="no_leads",
        french="Coût par lead",
        source=_asked_as("coût par lead"),
    ),
    Kpi(
        name="cpl_gross",
        formula="cost / leads_gross",
        unit="amount",
        numerator="cost",
        denominator="leads_gross",
        reason="no_leads",
        french="Coût par lead brut",
    ),
    Kpi(
        name="click_to_lead",
        formula="leads / clicks",
        unit="share",
        numerator="leads",
        denominator="clicks",
        reason="no_clicks",
        french="Clic en lead",
    ),
)
_AFTER_STAGES = (
    Kpi(
        name="conversion",
        formula="converted / leads",
        unit="share",
        numerator="converted",
        denominator="leads",
        reason="no_leads",
        french="Conversion",
        source=_asked_as("taux de conversion"),
    ),
    Kpi(
        name="purchase_cycle_mean",
        formula="cycle_ms / cycle_count / 1000",
        unit="seconds",
        numerator="cycle_ms",
        denominator="cycle_count",
        reason="no_sales",
        french="Durée du cycle d'achat",
        source=_asked_as("cycle d'achat"),
    ),
    Kpi(
        name="cac",
        formula="cost / new_customers",
        unit="amount",
        numerator="cost",
        denominator="new_customers",
        reason="no_customers",
        french="Coût d'acquisition client",
        source=_asked_as("CAC"),
    ),
    Kpi(
        name="revenue_per_lead",
        formula="revenue_net / leads",
        unit="amount",
        numerator="revenue_net",
        denominator="leads",
        reason="no_leads",
        french="Revenu par lead",
        source=_asked_as("revenu moyen par lead"),
    ),
    Kpi(
        name="net_profit_per_lead",
        formula="(revenue_net - cost) / leads",
        unit="amount",
        numerator="profit",
        denominator="leads",
        reason="no_leads",
        french="Rentabilité nette par lead",
        source=_asked_as("rentabilité nette par lead"),
    ),
    Kpi(
        name="average_revenue_per_sale",
        formula="revenue_gross / sales",
        unit="amount",
        numerator="revenue_gross",
        denominator="sales",
        reason="no_sales",
        french="Revenu moyen par vente",
        source=_asked_as("revenu moyen par vente"),
    ),
    Kpi(
        name="roi",
        formula="(revenue_net - cost) / cost",
        unit="ratio",
        numerator="profit",
        denominator="cost",
        reason="no_cost",
        french="Retour sur investissement",
        source=_asked_as("ROI"),
    ),
    Kpi(
        name="roas",
        formula="revenue_net / cost",
        unit="ratio",
        numerator="revenue_net",
        denominator="cost",
        reason="no_cost",
        french="ROAS",
    ),
    Kpi(
        name="invalid_click_share",
        formula="invalid_clicks / (clicks + invalid_clicks)",
        unit="share",
        numerator="invalid_clicks",
        denominator="clicks_seen",
        reason="no_clicks",
        french="Clics invalides",
    ),
)


def _stage_conversion(earlier: str, later: str) -> Kpi:
    return Kpi(
        name=f"stage_conversion.{earlier}.{later}",
        formula=f"stage_entered.{later} / stage_entered.{earlier}",
        unit="share",
        numerator=f"stage_entered.{later}",
        denominator=f"stage_entered.{earlier}",
        reason="no_leads" if earlier == "lead" else "no_stage",
        french=f"Taux d'étape {earlier} → {later}",
        source=_asked_as("lead → MQL → SQL"),
    )


_UNITS = {"stage_conversion": "share"} | {
    kpi.name: kpi.unit for kpi in _BEFORE_STAGES + _AFTER_STAGES
}


@lru_cache(maxsize=1024)
def unit_of(name: str) -> str:
    """Return the unit of the KPI `name`: share, ratio, seconds or amount.

    Raises:
        KeyError: if the catalogue has no such KPI.
    """
    return _UNITS[name.partition(".")[0]]


def derived(facts: Mapping[str, int]) -> Facts:
    """Return the facts with `leads` and `revenue_net`, which are never stored; zeros left out.

    Source: contract section 4, "derived".
    """
    known = dict(facts)
    get = known.get
    if leads := get("leads_gross", 0) - get("leads_voided", 0):
        known["leads"] = leads
    if revenue_net := get("revenue_gross", 0) - get("refunds", 0):
        known["revenue_net"] = revenue_net
    return known


class Catalog:
    """The KPIs of one funnel, in the order of the contract.

    Raises:
        ValueError: if the funnel has no stage `lead`.
    """

    def __init__(self, funnel: Sequence[str]) -> None:
        if "lead" not in funnel:
            msg = f"funnel: expected a stage 'lead', got {list(funnel)!r:.200}"
            raise ValueError(msg)
        stages = tuple(funnel)[list(funnel).index("lead") :]
        steps = tuple(_stage_conversion(*pair) for pair in pairwise(stages))
        self.kpis: tuple[Kpi, ...] = _BEFORE_STAGES + steps + _AFTER_STAGES
        self._lines = tuple(
            (
                kpi.name,
                kpi.numerator,
                kpi.times,
                kpi.denominator,
                _PARTS[kpi.unit],
                kpi.needs_cost,
                Undefined(kpi.reason),
            )
            for kpi in self.kpis
        )

    def evaluate(self, facts: Mapping[str, int], *, cost_expected: bool) -> dict[str, Value]:
        """Return the value of every KPI, in the order of the catalogue.

        Args:
            facts: The stored facts of one scope and window.
            cost_expected: Whether a channel of the scope with any fact in the window expects
                cost; without any cost record its cost is then unknown, else a known 0.

        Source: contract section 5 and the paragraph below its table.
        """
        get = _quantities(facts).get
        is_cost_missing = cost_expected and get("cost_records", 0) <= 0
        values: dict[str, Value] = {}
        for name, numerator, times, denominator, parts, needs_cost, undefined in self._lines:
            if needs_cost and is_cost_missing:
                values[name] = COST_MISSING
                continue
            above, below = get(numerator, 0) * times, get(denominator, 0)
            if below > 0:
                values[name] = scaled_quotient(above, below * parts)
            else:
                values[name] = undefined if above or below else NO_DATA
        return values


def _quantities(facts: Mapping[str, int]) -> Facts:
    """Return everything that a numerator or denominator may name."""
    known = derived(facts)
    get = known.get
    known["profit"] = get("revenue_net", 0) - get("cost", 0)
    known["clicks_seen"] = get("clicks", 0) + get("invalid_clicks", 0)
    return known
