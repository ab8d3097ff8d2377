"""How `leadpulse explain` shows what stands behind a number: from what was found to lines of text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rich.table import Table
from rich.text import Text

from kpis import histogram
from kpis.calendar import Calendar, instant_text, minute_text
from kpis.catalog import Catalog, Combined, Formula, Kpi, Surroundings, Undefined, Value
from kpis.evaluation import TARGET_FACTS
from kpis.facts import AMOUNTS, COHORT, PERIOD, Facts
from kpis.formulas import COST_MISSING, NO_DATA, NUMBERS_AROUND, Quantity
from kpis.left_out import LeftOut
from kpis.money import MICROS
from kpis.spans import LIFETIME, TUMBLING, Spans, Window
from kpis.targets import Target
from kpis.windows import FINAL, PROVISIONAL
from streams.question import Question, scope_text, window_text
from streams.shown import Shown, View

NONE: Final = "\N{EN DASH}"
MOST_REVISIONS: Final = 20
MOST_CHANNELS: Final = 8
MINUS: Final = "\N{MINUS SIGN}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"

_MEANINGS: Final[Mapping[str, str]] = {
    "impressions": "times an advertisement was shown, without those of bots",
    "clicks": "without invalid ones",
    "invalid_clicks": "of bots, or voided",
    "visitors": "different people, an estimate",
    "cost": "of every kind, spread over the minutes it was spent in",
    "cost_media": "what the platforms took",
    "leads_gross": "every lead created",
    "leads_voided": "of these, found to be none (spam, test, duplicate, bot, error)",
    "leads": "leads created, without invalidated ones",
    "unattributed_leads": "leads that no channel brought",
    "sales": "sales that are not void",
    "new_customers": "sales that are the first of their lead, or said to be new",
    "revenue_gross": "amounts of the sales",
    "refunds": "what went back, on the day it did",
    "revenue_net": "what came in, less what went back",
    "converted": "leads with their first sale",
    "cycle_ms": "milliseconds from lead to first sale, all together",
    "cycle_count": "leads whose way to the first sale is known",
    "expected": "channels with any fact in the window that expect cost",
    "covered": "of these, channels that have reported some",
    "mature_leads": "leads of days that ended long enough ago",
    "mature_converted": "of these, leads that bought in time",
}
_COHORT_MEANINGS: Final[Mapping[str, str]] = {
    "leads": "leads created here, without invalidated ones",
    "converted": "of the leads created here, those with a sale that stands",
    "sales": "sales that stand, of the leads created here",
    "new_customers": "first sales that stand, of the leads created here",
    "revenue_net": "what the leads created here have brought so far",
}
_FAMILY_MEANINGS: Final[Mapping[str, str]] = {
    "stage_entered": "leads that entered the stage",
    "reached": "of the leads that entered the second stage here, those that reached the first",
    "closed_from": "of the leads that entered the stage here, those with a sale that stands",
}
_SUMS: Final[Mapping[str, tuple[str, str]]] = {
    "leads": ("leads_gross", "leads_voided"),
    "revenue_net": ("revenue_gross", "refunds"),
}
"""The facts of the period basis that are differences of stored ones."""


class Revision(NamedTuple):
    """One record of the ledger, as far as it is about one KPI.

    `previous` is what the KPI was before; None if the revision did not change it.
    """

    revision: int
    state: str
    cause: str | None
    value: Value | None
    previous: str | None
    computed_at_ms: int


class Counted(NamedTuple):
    """What was found in the input topics and among the rejects.

    `timeless` are rejects that tell no time, `deleted` input records that the broker has no more.
    """

    left_out: LeftOut
    timeless: int
    deleted: int
    cost_until: Mapping[str, int]


class Evidence(NamedTuple):
    """Everything that was found about one number.

    Attributes:
        view: The record.
        is_from_ledger: Whether only the ledger still has it.
        revisions: The window's records in the ledger, oldest first.
        channels: The records of the channels that the scope consists of, in the same window.
        target: What the KPI is measured by, if it is one of a target.
        counted: What the inputs say; None if nobody looked.
    """

    view: View
    is_from_ledger: bool
    revisions: Sequence[Revision]
    channels: Mapping[str, View]
    target: Target | None
    counted: Counted | None


class Coverage(NamedTuple):
    """Which of the channels that have facts expect cost and have it, or have none."""

    known: tuple[str, ...]
    missing: tuple[str, ...]


class Setting(NamedTuple):
    """What of a deployment the text depends on."""

    catalog: Catalog
    spans: Spans
    currency: str
    expects_cost: Callable[[str], bool]

    @property
    def calendar(self) -> Calendar:
        """The days of the reporting zone."""
        return self.spans.buckets.calendar


def coverage_of(evidence: Evidence, expects_cost: Callable[[str], bool]) -> Coverage:
    """Return how much of the cost of the scope's channels is known.

    Source: contract, section 5, cost_coverage.
    """
    paying = [channel for channel in sorted(evidence.channels) if expects_cost(channel)]
    known = [c for c in paying if evidence.channels[c].numbers.facts.get("cost_records", 0) > 0]
    return Coverage(tuple(known), tuple(c for c in paying if c not in known))


def surroundings_of(question: Question, evidence: Evidence, coverage: Coverage) -> Surroundings:
    """Return what went into the KPIs of a record beside its facts, from what records show."""
    facts = evidence.view.numbers.facts
    mature = facts.get("mature", 0)
    within = evidence.view.numbers.kpis.get("conversion_within", Shown(NO_DATA)).value
    nobody = evidence.channels.get("unattributed")
    is_overall = question.subject.scope.channel is None
    return Surroundings(
        expected=len(coverage.known) + len(coverage.missing),
        covered=len(coverage.known),
        unattributed_leads=nobody.numbers.facts.get("leads", 0) if nobody and is_overall else 0,
        mature_leads=mature,
        # Exact for up to half a million leads: the share has six decimals.
        mature_converted=round(within * mature / MICROS) if isinstance(within, int) else 0,
        is_overall=is_overall,
    )


# ----------------------------------------------------------------------------- all of it


def render(question: Question, evidence: Evidence, setting: Setting) -> Table:
    """Return the explanation: a line for each thing, with its heading in front."""
    shown = evidence.view.numbers.kpis.get(question.kpi)
    page = Table.grid(padding=(0, 2, 0, 0))
    page.title = Text(title(question, evidence, setting), style="bold")
    page.title_justify = "left"
    page.add_column(no_wrap=True, style="cyan")
    page.add_column(overflow="fold")
    writer = _Writer(question, evidence, setting)
    for heading, lines in (
        ("value", writer.value(shown)),
        ("formula", writer.formula(shown)),
        ("facts", writer.facts()),
        ("window", writer.window()),
        ("cost", writer.cost()),
        ("history", writer.history()),
        ("left out", writer.left_out()),
    ):
        for number, line in enumerate(lines):
            page.add_row(heading if number == 0 else "", Text(line))
    return page


def title(question: Question, evidence: Evidence, setting: Setting) -> str:
    """Return which number it is."""
    kpi = setting.catalog.kpi(question.kpi)
    window = question.window._replace(
        start_minute=evidence.view.start_minute, end_minute=evidence.view.end_minute
    )
    when = window_text(window, setting.calendar)
    where = scope_text(question.subject.scope)
    return f"{question.kpi} ({kpi.french}) of {where}, {when}, {question.subject.basis} basis"


class _Writer:
    """Writes the lines of each part."""

    def __init__(self, question: Question, evidence: Evidence, setting: Setting) -> None:
        self._basis = question.subject.basis
        self._name = question.kpi
        self._kind = question.window.kind
        self._evidence = evidence
        self._view = evidence.view
        self._setting = setting
        self._kpi: Kpi = setting.catalog.kpi(question.kpi)
        self._coverage = coverage_of(evidence, setting.expects_cost)
        self._around = surroundings_of(question, evidence, self._coverage)
        around = zip(NUMBERS_AROUND, self._around[:5], strict=True)
        self._known: Facts = {**self._view.numbers.facts, **dict(around)}

    @property
    def _formula(self) -> Formula | None:
        return self._kpi.formula(self._basis)

    @property
    def _subject_of_target(self) -> str:
        """What a target is about: a fact or another KPI."""
        return self._name.partition(".")[2]

    @property
    def _needs_cost(self) -> bool:
        kpi = self._kpi if not self._kpi.per_target else self._measured
        if kpi is None:
            return self._subject_of_target == "cost"
        return kpi.needs_cost or "covered" in kpi.facts

    @property
    def _measured(self) -> Kpi | None:
        """The KPI that a target is about; None if it is about a fact."""
        name = self._subject_of_target
        is_fact = name.partition(".")[0] in TARGET_FACTS
        return None if is_fact else self._setting.catalog.kpi(name)

    # ------------------------------------------------------------------------- value

    def value(self, shown: Shown | None) -> Iterator[str]:
        """Yield the value with everything that is said about it."""
        if shown is None:
            yield f"none: the record shows no {self._name}"
            return
        if isinstance(shown.value, Undefined):
            yield f"undefined: {self._why_undefined(shown.value)}"
            return
        yield value_text(shown.value, self._kpi.unit, self._setting.currency)
        if shown.interval is not None:
            low, high = (plain_text(end, self._kpi.unit) for end in shown.interval)
            yield f"between {low} and {high} with 95 % confidence"
        if shown.is_partial:
            yield f"partial: {'; '.join(self._why_partial())}"
        if self._kpi.is_implausible(shown.value):
            yield "implausible: more than the whole, what is counted above belongs to other windows"
        if self._setting.catalog.is_approximate(self._name):
            what = "visitors are counted within 2 %" if "visitors" in self._parts else "within 1 %"
            yield f"approximate: {what}"

    def _why_undefined(self, undefined: Undefined) -> str:
        if undefined == COST_MISSING:
            who = ", ".join(self._coverage.missing[:MOST_CHANNELS]) or "its channels"
            return (
                f"{undefined.reason}: {who} reported no cost in this window, "
                "and unknown cost is not zero cost"
            )
        if undefined == NO_DATA:
            return f"{undefined.reason}: there is nothing above and nothing below the line"
        return f"{undefined.reason}: nothing to divide by"

    def _why_partial(self) -> Iterator[str]:
        is_told = False
        if self._needs_cost and self._coverage.known and self._coverage.missing:
            is_told = True
            yield f"no cost from {_joined(self._coverage.missing)}"
        if gaps := self._known.get("fx_missing", 0):
            is_told = True
            yield f"no exchange rate for {gaps:,} sales or minutes of cost"
        if not is_told:
            yield "cost is not known for all of the window yet"

    # ------------------------------------------------------------------------- formula

    def formula(self, shown: Shown | None) -> Iterator[str]:
        """Yield the formula, and the formula with numbers put in."""
        formula = self._formula
        if formula is None:
            return
        yield formula.text(self._kpi.unit)
        if self._kpi.per_target:
            yield from self._of_target(formula, shown)
        elif formula.quantile is not None:
            share = f"{formula.quantile / 10:.0f} %"
            yield f"= the time within which {share} of {self._amount(formula.denominator)} buyers bought"
        else:
            times = f"{formula.times} {TIMES} " if formula.times != 1 else ""
            scale = " / 1000" if self._kpi.unit == "seconds" else ""
            above, below = self._amount(formula.numerator), self._amount(formula.denominator)
            yield f"= {times}{above} / {below}{scale}"
            yield from self._disagreement(shown)

    def _amount(self, quantity: Quantity) -> str:
        if isinstance(quantity, Combined):
            sign = "+" if quantity.sign > 0 else MINUS
            return f"({self._amount(quantity.first)} {sign} {self._amount(quantity.second)})"
        return fact_text(quantity, self._known.get(quantity, 0))

    def _disagreement(self, shown: Shown | None) -> Iterator[str]:
        """Say if records of different moments were put together."""
        facts = self._view.numbers.facts
        found = self._setting.catalog.quotient(self._basis, self._name, facts, self._around)
        if shown is None or isinstance(found, Undefined) or isinstance(shown.value, Undefined):
            return
        exact = found.numerator * MICROS / (found.denominator * found.parts)
        if abs(exact - shown.value) > 1:
            yield "the records of its channels are of another moment: ask again"

    def _of_target(self, formula: Formula, shown: Shown | None) -> Iterator[str]:
        target = self._evidence.target
        if target is None:
            yield "no such target is set"
            return
        unit = self._setting.catalog.target_units.get(target.kpi, "count")
        calendar = self._setting.calendar
        wanted = plain_text(target.value_micros, unit)
        start, end = (
            minute_text(minute, calendar.zone)[:10]
            for minute in (target.start_minute, target.end_minute - 1)
        )
        yield f"target: {wanted} {target.kpi} in the {target.period} from {start} to {end}, {target.profile}"
        if shown is not None and isinstance(shown.value, int) and formula.denominator == "target":
            actual = round(shown.value * target.value_micros / MICROS)
            yield f"actual: about {plain_text(actual, unit)} from {start} on"

    # ------------------------------------------------------------------------- facts

    def facts(self) -> Iterator[str]:
        """Yield each fact that goes in, with what it means."""
        names = self._parts
        width = max(map(len, names), default=0)
        for name in names:
            yield f"{name:{width}}  {self._fact(name)}"

    @property
    def _parts(self) -> list[str]:
        """The facts that go in, of a KPI of a target those of what it is about."""
        kpi = self._measured if self._kpi.per_target else self._kpi
        if kpi is None:
            return [self._subject_of_target]
        formula = kpi.formula(self._basis)
        if formula is None:
            return []
        names: list[str] = []
        for quantity in (formula.numerator, formula.denominator):
            names += [quantity] if isinstance(quantity, str) else [quantity.first, quantity.second]
        return list(dict.fromkeys(name for name in names if name != histogram.FACT))

    def _fact(self, name: str) -> str:
        text = fact_text(name, self._known.get(name, 0))
        if name in AMOUNTS:
            text += f" {self._setting.currency}"
        if self._basis == PERIOD and name in _SUMS:
            text += " = " + f" {MINUS} ".join(self._named(part) for part in _SUMS[name])
        meanings = {**_MEANINGS, **(_COHORT_MEANINGS if self._basis == COHORT else {})}
        meaning = meanings.get(name) or _FAMILY_MEANINGS.get(name.partition(".")[0], "")
        return f"{text}  ({meaning})" if meaning else text

    def _named(self, name: str) -> str:
        return f"{name} {fact_text(name, self._known.get(name, 0))}"

    # ------------------------------------------------------------------------- window

    def window(self) -> Iterator[str]:
        """Yield when it is, up to when it is counted, and whether that may change."""
        view, calendar = self._view, self._setting.calendar
        if view.start_minute is None or view.end_minute is None:
            yield "everything that was ever counted"
        else:
            start, end = (
                minute_text(minute, calendar.zone)
                for minute in (view.start_minute, view.end_minute)
            )
            length = _length(view.end_minute - view.start_minute)
            yield f"from {start} to {end} ({length} in {calendar.zone})"
        until_ms = view.complete_until_ms
        computed = instant_text(view.computed_at_ms)
        yield (
            f"computed {computed}, when nobody knew yet up to when everything is counted"
            if until_ms is None
            else f"computed {computed}; everything that arrived before {instant_text(until_ms)} is counted"
        )
        if self._evidence.is_from_ledger:
            yield "from the ledger: this window is no longer among the current numbers"
        yield self._state()

    def _state(self) -> str:
        view = self._view
        revision = f", revision {view.revision}" if view.revision else ""
        text = f"{view.state}{revision}"
        if view.state != PROVISIONAL:
            if view.state == FINAL:
                return f"{text}: what comes from now on makes a revision"
            return f"{text}, because of {view.cause}: corrected after it was final"
        kind = self._kind
        if kind not in TUMBLING:
            return f"{text}: {'the whole' if kind == LIFETIME else 'such a window'} is never final"
        if view.revision:
            return f"{text}: it has changed since, the next revision is to come"
        last = Spans.final_minute(Window(kind, view.start_minute, view.end_minute))
        if last is None:
            return text
        return f"{text}: final when everything is counted up to {minute_text(last, self._setting.calendar.zone)}"

    # ------------------------------------------------------------------------- cost

    def cost(self) -> Iterator[str]:
        """Yield how much of the cost is known; nothing for KPIs without cost in them."""
        if not self._needs_cost:
            return
        known, missing = self._coverage
        if not known and not missing:
            yield "no channel here expects cost: none reported is a known 0"
        else:
            count = len(known) + len(missing)
            verb = "has" if count == 1 else "have"
            noun = "channel that expects" if count == 1 else "channels that expect"
            yield f"{len(known)} of {count} {noun} cost {verb} it in this window" + (
                f"; none from {_joined(missing)}" if missing else f": {_joined(known)}"
            )
        yield from self._cost_until()

    def _cost_until(self) -> Iterator[str]:
        if self._evidence.counted is None:
            yield "up to when it is known was not looked at (--quick)"
            return
        until = self._evidence.counted.cost_until
        channels = [c for c in (*self._coverage.known, *self._coverage.missing) if c in until]
        zone = self._setting.calendar.zone
        for channel in sorted(channels, key=until.__getitem__)[:MOST_CHANNELS]:
            yield f"{channel}: known up to {minute_text(until[channel], zone)}"

    # ------------------------------------------------------------------------- history

    def history(self) -> Iterator[str]:
        """Yield the revisions that the ledger has."""
        revisions = self._evidence.revisions
        if not revisions:
            is_open = self._kind not in TUMBLING
            why = "such a window is never final" if is_open else "it was never final"
            yield f"the ledger has none: {why}"
            return
        rows = [("revision", "value", "was", "state", "cause", "when")]
        for one in revisions[-MOST_REVISIONS:]:
            value = self._plain(one.value)
            was = NONE if one.previous is None else one.previous
            when = instant_text(one.computed_at_ms)
            rows.append((str(one.revision), value, was, one.state, one.cause or NONE, when))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            numbers = [f"{cell:>{width}}" for cell, width in zip(row[:3], widths, strict=False)]
            words = [f"{cell:{width}}" for cell, width in zip(row[3:], widths[3:], strict=True)]
            yield "  ".join((*numbers, *words)).rstrip()
        if (earlier := len(revisions) - MOST_REVISIONS) > 0:
            yield f"and {earlier} earlier"

    def _plain(self, value: Value | None) -> str:
        if value is None:
            return NONE
        if isinstance(value, Undefined):
            return value.reason
        return plain_text(value, self._kpi.unit)

    # ------------------------------------------------------------------------- left out

    def left_out(self) -> Iterator[str]:
        """Yield what is not in the number."""
        counted = self._evidence.counted
        if counted is None:
            yield "not counted (--quick)"
            return
        here, elsewhere = counted.left_out
        yield from _counts(here)
        if not here:
            yield "nothing"
        if elsewhere:
            yield "in the window, but nobody can tell of which scope:"
            yield from _counts(elsewhere)
        if counted.timeless:
            told = "record that tells" if counted.timeless == 1 else "records that tell"
            yield f"and {counted.timeless:,} rejected {told} no time"
        if counted.deleted:
            yield (
                f"the broker has deleted the first {counted.deleted:,} input records: "
                "what was left out of those is not told here"
            )


# ----------------------------------------------------------------------------- texts


def plain_text(micros: int, unit: str) -> str:
    """Return a value without its unit: a count or amount grouped, everything with its decimals."""
    if unit == "count":
        return money_text(micros).removesuffix(".00")
    if unit == "amount":
        return money_text(micros)
    sign = "-" if micros < 0 else ""
    whole, parts = divmod(abs(micros), MICROS)
    return f"{sign}{whole:,}.{parts:06d}".rstrip("0").rstrip(".")


def value_text(micros: int, unit: str, currency: str) -> str:
    """Return a value as people read it."""
    plain = plain_text(micros, unit)
    if unit == "amount":
        return f"{plain} {currency}"
    if unit == "seconds":
        return f"{plain} s ({_length(micros // (60 * MICROS))})"
    return f"{plain} ({micros * 100 / MICROS:,.2f} %)"


def money_text(micros: int) -> str:
    """Return an amount with thousands apart and at least two decimals."""
    sign = "-" if micros < 0 else ""
    whole, parts = divmod(abs(micros), MICROS)
    decimals = f"{parts:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole:,}.{decimals}"


def fact_text(name: str, amount: int) -> str:
    """Return a fact, an amount as decimals."""
    return money_text(amount) if name in AMOUNTS else f"{amount:,}"


def _length(minutes: int) -> str:
    for size, name in ((1440, "days"), (60, "hours")):
        if minutes >= 2 * size:
            count = f"{minutes / size:,.1f}".removesuffix(".0")
            return f"{count} {name}"
    return f"{minutes:,} minutes"


def _joined(names: Sequence[str]) -> str:
    more = len(names) - MOST_CHANNELS
    return ", ".join(names[:MOST_CHANNELS]) + (f" and {more} more" if more > 0 else "")


def _counts(counts: Mapping[tuple[str, str], int]) -> Iterator[str]:
    ordered = sorted(counts.items(), key=lambda one: (one[0][0], -one[1], one[0][1]))
    width = max((len(f"{count:,}") for count in counts.values()), default=0)
    nouns = max((len(what) for what, _ in counts), default=0)
    for (what, why), count in ordered:
        yield f"{count:>{width},}  {what:{nouns}}  {why}"
