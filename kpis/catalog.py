"""The KPI catalogue: every formula, its unit, its bases, and when its value is undefined."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from kpis import histogram
from kpis.facts import AMOUNTS, BASES, PERIOD, Facts
from kpis.intervals import poisson_limits, wilson
from kpis.money import MICROS, scaled_quotient
from kpis.targets import Target


class Undefined(NamedTuple):
    """Why a KPI has no value: `cost_missing`, `no_data` or the reason of the catalogue."""

    reason: str


Value = int | Undefined
"""A KPI's value in millionths, rounded half-even; or why there is none."""

NO_DATA: Final = Undefined("no_data")
COST_MISSING: Final = Undefined("cost_missing")

Interval = tuple[int, int]
"""The 95 % limits of a KPI's value, low and high, in millionths."""


# ----------------------------------------------------------------------------- surroundings


class Progress(NamedTuple):
    """A target, and how far its period is.

    `elapsed` is the share of the period that is over at `complete_until`, 0 to 1. `facts` and
    `surroundings` are those from the start of the target's period to the end of the window; None
    if the window is that period, so that its own are meant.
    """

    target: Target
    elapsed: Fraction
    facts: Facts | None = None
    surroundings: "Surroundings | None" = None


class Surroundings(NamedTuple):
    """What the KPIs of a window need beside its own facts.

    Attributes:
        expected: How many channels of the scope that have any fact in the window expect cost.
        covered: How many of those have `cost_records` in the window.
        unattributed_leads: `leads` of the channel `unattributed` in the window, period basis.
        mature_leads: Cohort `leads` of those days of the window that ended at least the horizon
            before `complete_until`; 0 in windows shorter than a day.
        mature_converted: Cohort `converted_within` of the same days.
        cost_until_reached: False if the window reaches beyond the scope's `cost_complete_until`.
        is_overall: Whether the scope is the whole.
        targets: The targets that the window shows; period basis only.

    Source: contract, sections 3 to 5.
    """

    expected: int = 0
    covered: int = 0
    unattributed_leads: int = 0
    mature_leads: int = 0
    mature_converted: int = 0
    cost_until_reached: bool = True
    is_overall: bool = False
    targets: tuple[Progress, ...] = ()

    @property
    def is_cost_partial(self) -> bool:
        """Whether some of the cost is known and some is still to come."""
        return 0 < self.covered < self.expected or not self.cost_until_reached


NO_SURROUNDINGS: Final = Surroundings()


# ----------------------------------------------------------------------------- lines


class Combined(NamedTuple):
    """A quantity that is the sum (`sign` 1) or difference (-1) of two others."""

    first: str
    sign: int
    second: str

    @property
    def text(self) -> str:
        """The quantity as it stands in a formula."""
        sign = "+" if self.sign > 0 else "\N{MINUS SIGN}"
        return f"({self.first} {sign} {self.second})"


COMBINED: Final = {
    "profit": Combined("revenue_net", -1, "cost"),
    "clicks_seen": Combined("clicks", 1, "invalid_clicks"),
}
"""Quantities that formulas may name beside facts, derived facts and surroundings."""

_COST_FACTS: Final = frozenset({"cost", "cost_media"})
# How many of the unit of a numerator are one of the KPI's: micros in an amount, ms in a second.
_PARTS: Final = {"share": 1, "ratio": 1, "seconds": 1000, "amount": MICROS}


@dataclass(frozen=True, slots=True)
class Formula:
    """A quotient of two named quantities, of which the numerator is taken `times` times.

    A quantity is a fact, a derived fact, one of COMBINED or a number of the Surroundings. With
    `quantile` (permille) the value is not the quotient but that quantile of the histogram
    `numerator`; the denominator then only says whether there is one.
    """

    numerator: str
    denominator: str
    times: int = 1
    quantile: int | None = None

    @property
    def facts(self) -> frozenset[str]:
        """The names of everything that goes in."""
        names: set[str] = set()
        for quantity in (self.numerator, self.denominator):
            combined = COMBINED.get(quantity)
            names |= {quantity} if combined is None else {combined.first, combined.second}
        return frozenset(names)

    def text(self, unit: str) -> str:
        """Return the formula as people write it."""
        numerator, denominator = (
            COMBINED[name].text if name in COMBINED else name
            for name in (self.numerator, self.denominator)
        )
        scale = " / 1000" if unit == "seconds" else ""
        if self.quantile is not None:
            return f"p{self.quantile // 10} of {numerator}{scale}"
        times = f"{self.times} \N{MULTIPLICATION SIGN} " if self.times != 1 else ""
        return f"{times}{numerator} / {denominator}{scale}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One line of the catalogue.

    Everything else about a KPI follows from it. `reason` is given when the denominator is not
    positive. Source of all lines: contract, section 5.

    Attributes:
        name: The full name; of a KPI that exists once per target, what its names begin with.
        unit: share (0 to 1), ratio, seconds or amount (of the reporting currency).
        both: The formula, if both bases have the same.
        period: The formula on the period basis, if it is another or the only one.
        cohort: The formula on the cohort basis, likewise.
        is_overall: Whether only the whole has it.
        is_census: Whether a share is of things that are all known, so that it has no interval.
        is_poisson: Whether its denominator is a count with an interval of its own.
        per_target: Whether it exists once for each target that is set: of facts, or of any KPI.
        labels: What the parts of the name after the first are called where names cannot have parts.
    """

    name: str
    unit: str
    reason: str
    french: str
    both: Formula | None = None
    period: Formula | None = None
    cohort: Formula | None = None
    source: str = "contract section 5"
    is_overall: bool = False
    is_census: bool = False
    is_poisson: bool = False
    per_target: str = ""
    labels: tuple[str, ...] = ()

    def formula(self, basis: str) -> Formula | None:
        """Return the formula on a basis, None if the KPI does not exist there."""
        return (self.period if basis == PERIOD else self.cohort) or self.both

    @property
    def bases(self) -> tuple[str, ...]:
        """The bases on which it exists."""
        return tuple(basis for basis in BASES if self.formula(basis) is not None)

    @property
    def facts(self) -> frozenset[str]:
        """The names of everything that goes in on any basis."""
        formulas = map(self.formula, BASES)
        return frozenset().union(*(formula.facts for formula in formulas if formula is not None))

    @property
    def needs_cost(self) -> bool:
        """Whether cost is in it, so that unknown cost makes it undefined."""
        return bool(_COST_FACTS & self.facts)

    @property
    def is_money(self) -> bool:
        """Whether an amount is in it, so that a missing rate makes it partial."""
        return bool(AMOUNTS & self.facts)

    @property
    def is_approximate(self) -> bool:
        """Whether it rests on an estimate: of visitors (within 2 %) or a histogram (1 %)."""
        return bool({"visitors", histogram.FACT} & self.facts)

    @property
    def has_interval(self) -> bool:
        """Whether its values come with 95 % limits."""
        return self.is_poisson or (self.unit == "share" and not self.is_census)

    def is_implausible(self, value: Value) -> bool:
        """Return whether `value` is a share of more than the whole; it is published all the same."""
        return self.unit == "share" and isinstance(value, int) and value > MICROS


def _asked_as(words: str) -> str:
    return f"contract section 5, asked for as “{words}”"


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
        both=Formula("profit", "leads"),
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
        both=Formula("profit", "cost"),
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
        period=Formula("invalid_clicks", "clicks_seen"),
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

TARGET_FACTS: Final = frozenset(
    {"leads", "sales", "new_customers", "revenue_net", "cost", "stage_entered"}
)
"""Facts that may have a target, `stage_entered` with a stage. Source: contract, section 5."""

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


# ----------------------------------------------------------------------------- evaluating


def derived(facts: Mapping[str, int], basis: str) -> Facts:
    """Return the facts with those that are never stored on this basis; zeros left out.

    These are `leads` and `revenue_net` on the period basis, none on the cohort basis.

    Source: contract section 4, "derived".
    """
    known = dict(facts)
    if basis == PERIOD:
        get = known.get
        if leads := get("leads_gross", 0) - get("leads_voided", 0):
            known["leads"] = leads
        if revenue_net := get("revenue_gross", 0) - get("refunds", 0):
            known["revenue_net"] = revenue_net
    return known


class Quotient(NamedTuple):
    """What a defined value is made of, exactly: `numerator / denominator / parts` is the value.

    The quantities are counts, micros or ms, the numerator already taken as often as the formula
    says; `parts` of them are one of the KPI's unit. A quantile is its duration over 1.
    """

    numerator: int
    denominator: int
    parts: int


class _Line(NamedTuple):
    name: str
    numerator: str
    times: int
    denominator: str
    parts: int
    needs_cost: bool
    undefined: Undefined
    quantile: int | None


def _line(kpi: Kpi, formula: Formula) -> _Line:
    return _Line(
        kpi.name,
        formula.numerator,
        formula.times,
        formula.denominator,
        _PARTS[kpi.unit],
        kpi.needs_cost,
        Undefined(kpi.reason),
        formula.quantile,
    )


class Catalog:
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
        self.kpis: tuple[Kpi, ...] = (
            *_BEFORE_STAGES,
            *(_stage_conversion(*pair) for pair in pairwise(stages)),
            *_conversions(horizon_days),
            *((_MQL_TO_CLOSE,) if "mql" in stages[:-1] else ()),
            *_AFTER_STAGES,
        )
        self._kpis = {kpi.name: kpi for kpi in self.kpis}
        self._lines = {
            (basis, is_overall): tuple(self._lines_of(basis, is_overall=is_overall))
            for basis in BASES
            for is_overall in (False, True)
        }
        self._by_name = {
            place: {line.name: line for line in lines} for place, lines in self._lines.items()
        }
        self._per_target = tuple(kpi for kpi in self.kpis if kpi.per_target)
        self._intervals = {
            basis: tuple(
                line for line in self._lines[basis, True] if self._kpis[line.name].has_interval
            )
            for basis in BASES
        }
        estimates = [kpi.name for kpi in self.kpis if kpi.is_approximate]
        self._approximate = frozenset(
            (*estimates, *(f"{of.name}.{name}" for of in self._per_target for name in estimates))
        )
        self._partial = {
            (cost, money): frozenset(
                kpi.name
                for kpi in self.kpis
                if (cost and kpi.needs_cost) or (money and kpi.is_money)
            )
            for cost in (False, True)
            for money in (False, True)
        }

    def kpi(self, name: str) -> Kpi:
        """Return the line of a KPI by its full name.

        Raises:
            KeyError: if the catalogue has no such KPI.
        """
        kpi = self._kpis.get(name)
        return self._kpis[name.partition(".")[0]] if kpi is None else kpi

    def is_approximate(self, name: str) -> bool:
        """Tell whether a KPI, or that of a target, rests on an estimate; see `Kpi.is_approximate`."""
        return name in self._approximate

    def names(self, basis: str, *, is_overall: bool) -> tuple[str, ...]:
        """Return the KPIs that every window has on a basis, those of targets left out."""
        return tuple(line.name for line in self._lines[basis, is_overall])

    @property
    def target_units(self) -> dict[str, str]:
        """What a target may be about, with its unit: `count` or one of the catalogue's.

        Source: contract, section 5, target_attainment.
        """
        stages = (f"stage_entered.{stage}" for stage in self.funnel)
        facts = (*sorted(TARGET_FACTS - {"stage_entered"}), *stages)
        units = {fact: "amount" if fact in AMOUNTS else "count" for fact in facts}
        return units | {name: self._kpis[name].unit for name in self.names(PERIOD, is_overall=True)}

    # ------------------------------------------------------------------------- values

    def evaluate(
        self, basis: str, facts: Mapping[str, int], surroundings: Surroundings = NO_SURROUNDINGS
    ) -> dict[str, Value]:
        """Return the value of every KPI of a basis, in the order of the catalogue, targets last.

        Args:
            basis: `period` or `cohort`.
            facts: The facts of one scope and window: the stored ones and `visitors`.
            surroundings: What else goes in.

        Source: contract section 5 and the paragraph below its table.
        """
        known = _quantities(basis, facts, surroundings)
        get = known.get
        is_cost_missing = _is_cost_missing(known, surroundings)
        values: dict[str, Value] = {}
        for (
            name, numerator, times, denominator, parts, needs_cost, undefined, quantile,
        ) in self._lines[basis, surroundings.is_overall]:  # fmt: skip
            if needs_cost and is_cost_missing:
                values[name] = COST_MISSING
                continue
            above, below = get(numerator, 0), get(denominator, 0)
            if below <= 0:
                values[name] = undefined if above or below else NO_DATA
            elif quantile is None:
                values[name] = scaled_quotient(above * times, below * parts)
            else:
                values[name] = _quantile(known, quantile, parts)
        if surroundings.targets:
            values.update(self._attained(basis, known, surroundings))
        return values

    def quotient(
        self,
        basis: str,
        name: str,
        facts: Mapping[str, int],
        surroundings: Surroundings = NO_SURROUNDINGS,
    ) -> Quotient | Undefined:
        """Return what the value of a KPI is made of, or why there is none.

        Raises:
            KeyError: if no KPI of this name is evaluated for every such window.
        """
        line = self._by_name[basis, surroundings.is_overall][name]
        return _quotient(line, _quantities(basis, facts, surroundings), surroundings)

    # ------------------------------------------------------------------------- remarks

    def partial(
        self, basis: str, facts: Mapping[str, int], surroundings: Surroundings = NO_SURROUNDINGS
    ) -> frozenset[str]:
        """Return the names of the KPIs that rest on a part of their cost or money, if defined.

        Names of KPIs that the window does not have may be among them.

        Source: contract, section 2 (`fx_missing`), 3 (`cost_complete_until`) and 5.
        """
        partial = self._partial[surroundings.is_cost_partial, facts.get("fx_missing", 0) > 0]
        if basis != PERIOD or not surroundings.targets:
            return partial
        return partial | frozenset(
            f"{kpi.name}.{progress.target.kpi}"
            for progress in surroundings.targets
            for kpi in self._per_target
            if self._is_partial(progress, facts, surroundings)
        )

    def _is_partial(
        self, progress: Progress, facts: Mapping[str, int], surroundings: Surroundings
    ) -> bool:
        facts = facts if progress.facts is None else progress.facts
        around = progress.surroundings or surroundings
        name = progress.target.kpi
        kpi = self._kpis.get(name)
        needs_cost = name in _COST_FACTS if kpi is None else kpi.needs_cost
        is_money = name in AMOUNTS if kpi is None else kpi.is_money
        has_gap = is_money and facts.get("fx_missing", 0) > 0
        return has_gap or (needs_cost and around.is_cost_partial)

    def intervals(
        self,
        basis: str,
        facts: Mapping[str, int],
        surroundings: Surroundings,
        values: Mapping[str, Value],
    ) -> dict[str, Interval]:
        """Return the 95 % limits of the `values` that have them: shares of 0 to 1, and cpl.

        Source: contract, section 7, "interval".
        """
        get = _quantities(basis, facts, surroundings).get
        found: dict[str, Interval] = {}
        for line in self._intervals[basis]:
            value = values.get(line.name)
            if not isinstance(value, int):
                continue
            above, below = get(line.numerator, 0), get(line.denominator, 0)
            if self._kpis[line.name].is_poisson:
                ends = (scaled_quotient(above, most) for most in poisson_limits(below))
                low, high = sorted(ends)
                found[line.name] = low, high
            elif 0 <= above <= below:
                found[line.name] = wilson(above, below)
        return found

    # ------------------------------------------------------------------------- lines

    def _lines_of(self, basis: str, *, is_overall: bool) -> Iterator[_Line]:
        for kpi in self.kpis:
            formula = kpi.formula(basis)
            if formula is not None and not kpi.per_target and (is_overall or not kpi.is_overall):
                yield _line(kpi, formula)

    def _attained(
        self, basis: str, known: Facts, surroundings: Surroundings
    ) -> Iterator[tuple[str, Value]]:
        """Yield the KPIs of the targets that the window shows."""
        for progress in surroundings.targets:
            actual = self._actual(basis, progress, known, surroundings)
            name = progress.target.kpi
            for kpi in self._per_target:
                if actual is not None and (kpi.per_target == "any" or name not in self._kpis):
                    yield f"{kpi.name}.{name}", _attainment(kpi, basis, progress, actual)

    def _actual(
        self, basis: str, progress: Progress, known: Facts, surroundings: Surroundings
    ) -> Quotient | Undefined | None:
        """Return what there is of a target's fact or KPI; None if the scope has no such number."""
        if progress.facts is not None:
            surroundings = progress.surroundings or NO_SURROUNDINGS
            known = _quantities(basis, progress.facts, surroundings)
        name = progress.target.kpi
        line = self._by_name[basis, surroundings.is_overall].get(name)
        if line is not None:
            return _quotient(line, known, surroundings)
        if name.partition(".")[0] not in TARGET_FACTS:
            return None
        if name in _COST_FACTS and _is_cost_missing(known, surroundings):
            return COST_MISSING
        return Quotient(known.get(name, 0), 1, MICROS if name in AMOUNTS else 1)


def _is_cost_missing(known: Mapping[str, int], surroundings: Surroundings) -> bool:
    return surroundings.expected > 0 and known.get("cost_records", 0) <= 0


def _quotient(
    line: _Line, known: Mapping[str, int], surroundings: Surroundings
) -> Quotient | Undefined:
    if line.needs_cost and _is_cost_missing(known, surroundings):
        return COST_MISSING
    above, below = known.get(line.numerator, 0), known.get(line.denominator, 0)
    if below <= 0:
        return line.undefined if above or below else NO_DATA
    if line.quantile is None:
        return Quotient(above * line.times, below, line.parts)
    duration_ms = histogram.quantile(histogram.counts_of(known), line.quantile)
    return NO_DATA if duration_ms is None else Quotient(duration_ms, 1, line.parts)


def _quantile(known: Mapping[str, int], permille: int, parts: int) -> Value:
    duration_ms = histogram.quantile(histogram.counts_of(known), permille)
    return NO_DATA if duration_ms is None else scaled_quotient(duration_ms, parts)


def _attainment(kpi: Kpi, basis: str, progress: Progress, actual: Quotient | Undefined) -> Value:
    """Return a KPI of a target, whose quantities are in one unit that makes them whole numbers."""
    formula = kpi.formula(basis)
    if formula is None or isinstance(actual, Undefined):
        return actual if isinstance(actual, Undefined) else NO_DATA
    over, whole = progress.elapsed.as_integer_ratio()
    target = progress.target.value_micros * actual.denominator * actual.parts
    quantities = {
        "actual": actual.numerator * MICROS * whole,
        "target": target * whole,
        "target_by_now": target * over,
    }
    above, below = quantities[formula.numerator], quantities[formula.denominator]
    # A period of which nothing is over asks for nothing yet.
    return scaled_quotient(above, below) if below > 0 else Undefined(kpi.reason)


def _quantities(basis: str, facts: Mapping[str, int], surroundings: Surroundings) -> Facts:
    """Return everything that a numerator or denominator may name."""
    known = derived(facts, basis)
    get = known.get
    for name, (first, sign, second) in COMBINED.items():
        known[name] = get(first, 0) + sign * get(second, 0)
    (
        known["expected"],
        known["covered"],
        known["unattributed_leads"],
        known["mature_leads"],
        known["mature_converted"],
    ) = surroundings[:5]
    return known
