"""Evaluates lines of KPIs: their values, what is partial, and how sure they are."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from kpis import histogram
from kpis.facts import AMOUNTS, BASES, PERIOD, Facts
from kpis.formulas import (
    COST_FACTS,
    COST_MISSING,
    NO_DATA,
    NUMBERS_AROUND,
    Combined,
    Formula,
    Interval,
    Kpi,
    Quantity,
    Undefined,
    Value,
)
from kpis.intervals import poisson_limits, wilson
from kpis.money import MICROS, scaled_quotient
from kpis.targets import Target

TARGET_FACTS: Final = frozenset(
    {"leads", "sales", "new_customers", "revenue_net", "cost", "stage_entered"}
)
"""Facts that may have a target, `stage_entered` with a stage. Source: contract, section 5."""

# How many of the unit of a numerator are one of the KPI's: micros in an amount, ms in a second.
_PARTS: Final = {"share": 1, "ratio": 1, "seconds": 1000, "amount": MICROS}


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


class _Plan(NamedTuple):
    """The lines of a basis, found by their quantities.

    `nothing` has the value of each if none is there, `over` the lines by denominator, `of` by numerator.
    """

    nothing: dict[str, Value]
    over: dict[str, tuple[_Line, ...]]
    of: dict[str, tuple[_Line, ...]]


def _plan(lines: Sequence[_Line], *, is_cost_missing: bool) -> _Plan:
    known = [line for line in lines if not (is_cost_missing and line.needs_cost)]
    nothing: dict[str, Value] = {line.name: COST_MISSING for line in lines}
    nothing |= {line.name: NO_DATA for line in known}
    over: dict[str, tuple[_Line, ...]] = {}
    of: dict[str, tuple[_Line, ...]] = {}
    for line in known:
        over[line.denominator] = (*over.get(line.denominator, ()), line)
        of[line.numerator] = (*of.get(line.numerator, ()), line)
    return _Plan(nothing, over, of)


def _line(kpi: Kpi, formula: Formula) -> _Line:
    return _Line(
        kpi.name,
        str(formula.numerator),
        formula.times,
        str(formula.denominator),
        _PARTS[kpi.unit],
        kpi.needs_cost,
        Undefined(kpi.reason),
        formula.quantile,
    )


class Evaluator:
    """Lines of KPIs, prepared to be evaluated for many windows.

    Args:
        kpis: The lines, in the order in which their values come.
    """

    def __init__(self, kpis: Sequence[Kpi]) -> None:
        self.kpis = tuple(kpis)
        self._kpis = {kpi.name: kpi for kpi in self.kpis}
        self._lines = {
            (basis, is_overall): tuple(self._lines_of(basis, is_overall=is_overall))
            for basis in BASES
            for is_overall in (False, True)
        }
        self._combined = tuple(
            (str(quantity), quantity)
            for quantity in dict.fromkeys(self._named())
            if isinstance(quantity, Combined)
        )
        self._plans = {
            (*place, is_cost_missing): _plan(lines, is_cost_missing=is_cost_missing)
            for place, lines in self._lines.items()
            for is_cost_missing in (False, True)
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
        known = self._quantities(basis, facts, surroundings)
        get = known.get
        plan = self._plans[basis, surroundings.is_overall, _is_cost_missing(known, surroundings)]
        values = plan.nothing.copy()
        counts: Mapping[int, int] | None = None
        # Few quantities of the many are there, so each looks for its lines, not each line for them.
        for quantity, amount in known.items():
            if amount > 0:
                for line in plan.over.get(quantity, ()):
                    if line.quantile is None:
                        above = get(line.numerator, 0) * line.times
                        values[line.name] = scaled_quotient(above, amount * line.parts)
                    else:
                        counts = histogram.counts_of(known) if counts is None else counts
                        values[line.name] = _quantile(counts, line)
            elif amount:
                values.update((line.name, line.undefined) for line in plan.over.get(quantity, ()))
            for line in plan.of.get(quantity, ()):
                if amount and not get(line.denominator):
                    values[line.name] = line.undefined
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
        return _quotient(line, self._quantities(basis, facts, surroundings), surroundings)

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
        needs_cost = name in COST_FACTS if kpi is None else kpi.needs_cost
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
        get = self._quantities(basis, facts, surroundings).get
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

    def _quantities(
        self, basis: str, facts: Mapping[str, int], surroundings: Surroundings
    ) -> Facts:
        """Return everything that a numerator or denominator may name."""
        known = derived(facts, basis)
        get = known.get
        for text, (first, sign, second) in self._combined:
            known[text] = get(first, 0) + sign * get(second, 0)
        around = surroundings[:5]
        if any(around):
            numbers = zip(NUMBERS_AROUND, around, strict=True)
            known.update((name, amount) for name, amount in numbers if amount)
        return known

    def _named(self) -> Iterator[Quantity]:
        for kpi in self.kpis:
            for basis in kpi.bases:
                if (formula := kpi.formula(basis)) is not None:
                    yield formula.numerator
                    yield formula.denominator

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
                formula = kpi.formula(basis)
                is_meant = kpi.per_target == "any" or name not in self._kpis
                if formula is not None and actual is not None and is_meant:
                    undefined = Undefined(kpi.reason)
                    yield f"{kpi.name}.{name}", _attainment(formula, undefined, progress, actual)

    def _actual(
        self, basis: str, progress: Progress, known: Facts, surroundings: Surroundings
    ) -> Quotient | Undefined | None:
        """Return what there is of a target's fact or KPI; None if the scope has no such number."""
        if progress.facts is not None:
            surroundings = progress.surroundings or NO_SURROUNDINGS
            known = self._quantities(basis, progress.facts, surroundings)
        name = progress.target.kpi
        line = self._by_name[basis, surroundings.is_overall].get(name)
        if line is not None:
            return _quotient(line, known, surroundings)
        if name.partition(".")[0] not in TARGET_FACTS:
            return None
        if name in COST_FACTS and _is_cost_missing(known, surroundings):
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


def _quantile(counts: Mapping[int, int], line: _Line) -> Value:
    duration_ms = histogram.quantile(counts, line.quantile or 0)
    return NO_DATA if duration_ms is None else scaled_quotient(duration_ms, line.parts)


def _attainment(
    formula: Formula, undefined: Undefined, progress: Progress, actual: Quotient | Undefined
) -> Value:
    """Return a KPI of a target, its quantities all in the one unit that makes them whole numbers."""
    if isinstance(actual, Undefined):
        return actual
    over, whole = progress.elapsed.as_integer_ratio()
    target = progress.target.value_micros * actual.denominator * actual.parts
    quantities = {
        "actual": actual.numerator * MICROS * whole,
        "target": target * whole,
        "target_by_now": target * over,
    }
    above, below = quantities[str(formula.numerator)], quantities[str(formula.denominator)]
    # A period of which nothing is over asks for nothing yet.
    return scaled_quotient(above, below) if below > 0 else undefined
