"""What a KPI is made of: its formula on each basis, and what follows from it."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from kpis import histogram
from kpis.facts import AMOUNTS, BASES, PERIOD
from kpis.money import MICROS


class Undefined(NamedTuple):
    """Why a KPI has no value: `cost_missing`, `no_data` or the reason of the catalogue."""

    reason: str


Value = int | Undefined
"""A KPI's value in millionths, rounded half-even; or why there is none."""

NO_DATA: Final = Undefined("no_data")
COST_MISSING: Final = Undefined("cost_missing")

Interval = tuple[int, int]
"""The 95 % limits of a KPI's value, low and high, in millionths."""


class Combined(NamedTuple):
    """A quantity that is the sum (`sign` 1) or difference (-1) of two facts."""

    first: str
    sign: int
    second: str

    def __str__(self) -> str:
        """Return the quantity as it stands in a formula."""
        sign = "+" if self.sign > 0 else "\N{MINUS SIGN}"
        return f"({self.first} {sign} {self.second})"


Quantity = str | Combined
"""What a formula may name: a fact, a derived fact, one of NUMBERS_AROUND, or two facts combined."""

NUMBERS_AROUND: Final = (
    "expected",
    "covered",
    "unattributed_leads",
    "mature_leads",
    "mature_converted",
)
"""The numbers of `Surroundings`, its first fields: quantities too, and not additive."""

COST_FACTS: Final = frozenset({"cost", "cost_media"})


@dataclass(frozen=True, slots=True)
class Formula:
    """A quotient of two quantities, of which the numerator is taken `times` times.

    With `quantile` (permille) the value is not the quotient but that quantile of the histogram
    `numerator`; the denominator then only says whether there is one.
    """

    numerator: Quantity
    denominator: Quantity
    times: int = 1
    quantile: int | None = None

    @property
    def facts(self) -> frozenset[str]:
        """The names of everything that goes in."""
        names: set[str] = set()
        for quantity in (self.numerator, self.denominator):
            names |= {quantity} if isinstance(quantity, str) else {quantity.first, quantity.second}
        return frozenset(names)

    def text(self, unit: str) -> str:
        """Return the formula as people write it."""
        scale = " / 1000" if unit == "seconds" else ""
        if self.quantile is not None:
            return f"p{self.quantile // 10} of {self.numerator}{scale}"
        times = f"{self.times} \N{MULTIPLICATION SIGN} " if self.times != 1 else ""
        return f"{times}{self.numerator} / {self.denominator}{scale}"


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
        return bool(COST_FACTS & self.facts)

    @property
    def is_money(self) -> bool:
        """Whether an amount is in it, so that a missing rate makes it partial."""
        return bool(AMOUNTS & self.facts)

    @property
    def is_approximate(self) -> bool:
        """Whether it rests on an estimate: of visitors (within 2 %) or a histogram (1 %)."""
        return bool({"visitors", histogram.FACT} & self.facts)

    @property
    def is_of_sums(self) -> bool:
        """Whether it follows from facts that can be added up, so that several scopes can be summed."""
        return not self.per_target and not {"visitors", *NUMBERS_AROUND} & self.facts

    @property
    def has_interval(self) -> bool:
        """Whether its values come with 95 % limits."""
        return self.is_poisson or (self.unit == "share" and not self.is_census)

    def is_implausible(self, value: Value) -> bool:
        """Return whether `value` is a share of more than the whole; it is published all the same."""
        return self.unit == "share" and isinstance(value, int) and value > MICROS
