"""How alerts put things into words, whatever the language: numbers, scopes, windows, and which sentence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

from msgspec import UnsetType

from kpis.alert_rules import CPL_SPIKE
from kpis.alerts import RESOLVED, SILENT, Alert, Evidence, Finding
from kpis.decomposition import Explanation
from kpis.facts import AMOUNTS, Scope
from kpis.money import MICROS

Number = Fraction | float | int
_LEAST_P: Final = 0.0001
_TEN: Final = 10
_LONGEST_NAME: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The words and numbers that sentences are made of, in one language.

    `scope` is the name of the scope, or how the whole is called; `share` and the like are numbers as
    text; empty where the evidence has none. `is_back`: the ratio is near enough to the usual to
    resolve, not only too little to go by.
    """

    scope: str
    window: str
    baseline_kind: str
    cost: str
    leads: str
    expected: str
    cpl: str
    baseline: str
    baseline_share: str
    baseline_count: str
    share: str
    ratio: str
    ratio_share: str
    p_value: str
    kpi: str
    actual: str
    elapsed: str
    channels: str
    has_leads: bool
    is_back: bool


Sentence = Callable[[Said], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A language.

    Attributes:
        point: Between whole and parts.
        group: Between thousands.
        percent: Behind a percentage.
        whole: What everything is called.
        windows: How a kind of window is called.
        baselines: How a kind of baseline is called.
        fired: What is said of a kind of rule while it fires.
        resolved: The same when it is over.
        silent: When nothing is left to judge by; with the name of the rule.
        still: What an update begins with.
        factors: How the shares of both factors are told.
        without_leads: How clicks are told where there are no leads.
        campaigns: What comes before the campaigns that add most.
    """

    point: str
    group: str
    percent: str
    whole: str
    windows: Mapping[str, str]
    baselines: Mapping[str, str]
    fired: Mapping[str, Sentence]
    resolved: Mapping[str, Sentence]
    silent: Callable[[str, Said], str]
    still: str
    factors: Callable[["Factored"], str]
    without_leads: Callable[[str, str], str]
    campaigns: Callable[[str], str]

    # ------------------------------------------------------------------------- numbers

    def number(self, value: Number, digits: int = 0) -> str:
        """Return a number with so many decimals, its thousands apart."""
        text = f"{float(value):,.{digits}f}"
        return text.translate({ord(","): self.group, ord("."): self.point})

    def money(self, value: Number, currency: str) -> str:
        """Return an amount with two decimals and its currency."""
        return f"{self.number(value, 2)}\N{NO-BREAK SPACE}{currency}"

    def share(self, value: Number, digits: int = 0) -> str:
        """Return a share as a percentage."""
        return f"{self.number(value * 100, digits)}{self.percent}"

    def count(self, value: Number) -> str:
        """Return how many were expected: below ten with a decimal, if it says anything."""
        text = self.number(value, 1 if value < _TEN else 0)
        return text.removesuffix(f"{self.point}0")

    def chance(self, value: float) -> str:
        """Return a p-value with two digits that count: `p = 0.0025`."""
        if value < _LEAST_P:
            return f"p < {_decimals(_LEAST_P).replace('.', self.point)}"
        return f"p = {_decimals(value).replace('.', self.point)}"

    def scope(self, scope: Scope) -> str:
        """Return the name of a scope: `google_ads/brand-search`."""
        if scope.channel is None:
            return self.whole
        if scope.campaign_id is None:
            return scope.channel
        return f"{scope.channel}/{scope.campaign_id}"[:_LONGEST_NAME]

    # ------------------------------------------------------------------------- sentences

    def sentence(self, alert: Alert, currency: str) -> str:
        """Return what happened."""
        finding = alert.finding
        kind = finding.rule.kind
        said = self._said(alert, currency)
        if alert.state == RESOLVED:
            if finding.condition == SILENT or kind not in self.resolved:
                return self.silent(finding.rule.name, said)
            return self.resolved[kind](said)
        text = self.fired[kind](said)
        return f"{self.still}{text}" if alert.number > 1 else text

    def reasons(self, explanation: Explanation, currency: str) -> list[str]:
        """Return why, as far as it is known."""
        cpc, click_to_lead = explanation.cpc, explanation.click_to_lead
        sentences = []
        if not isinstance(cpc, UnsetType) and not isinstance(click_to_lead, UnsetType):
            factored = Factored(
                cpc_share=self.share(cpc.share),
                cpc=f"{self.number(cpc.baseline, 2)} \N{RIGHTWARDS ARROW} {self.money(cpc.now, currency)}",
                click_to_lead_share=self.share(click_to_lead.share),
                click_to_lead=f"{self.share(click_to_lead.baseline, 1)} \N{RIGHTWARDS ARROW} {self.share(click_to_lead.now, 1)}",
                is_cpc_first=cpc.share > click_to_lead.share,
                is_split=0 <= cpc.share <= 1,
            )
            sentences.append(self.factors(factored))
        clicks, usual = explanation.clicks, explanation.usual_clicks
        if not isinstance(clicks, UnsetType) and not isinstance(usual, UnsetType):
            sentences.append(self.without_leads(self.number(clicks), self.number(usual)))
        if not isinstance(explanation.campaigns, UnsetType):
            names = (
                f"{each.channel}/{each.campaign_id}"[:_LONGEST_NAME]
                + f" (+{self.money(Fraction(each.excess), currency)})"
                for each in explanation.campaigns
            )
            sentences.append(self.campaigns(", ".join(names)))
        return sentences

    def _said(self, alert: Alert, currency: str) -> Said:
        finding, evidence = alert.finding, alert.finding.evidence
        baseline, ratio = evidence.baseline, evidence.ratio
        digits = 1 if ratio is None or ratio < _TEN else 0
        say = partial(self.money, currency=currency) if evidence.kpi in AMOUNTS else self.count
        return Said(
            scope=self.scope(finding.scope),
            window=self.windows.get(finding.window.kind, finding.window.kind),
            baseline_kind=self.baselines.get(evidence.baseline_kind or "", ""),
            cost=_text(_cost(evidence), lambda cost: self.money(cost, currency)),
            leads=_text(evidence.leads, self.number),
            expected=_text(evidence.expected, say),
            cpl=_text(_cpl(evidence), lambda cpl: self.money(cpl, currency)),
            baseline=_text(baseline, lambda each: self.money(each, currency)),
            baseline_share=_text(baseline, lambda each: self.share(each, 1)),
            baseline_count=_text(baseline, say),
            share=_text(_share(evidence), lambda each: self.share(each, 1)),
            ratio=_text(ratio, lambda each: self.number(each, digits)),
            ratio_share=_text(ratio, self.share),
            p_value="" if evidence.p_value is None else self.chance(evidence.p_value),
            kpi=evidence.kpi or "",
            actual=_text(evidence.actual, say),
            elapsed=_text(evidence.elapsed, self.share),
            channels=", ".join(evidence.channels),
            has_leads=bool(evidence.leads),
            is_back=_is_back(finding),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Factored:
    """The factors of a change, as text.

    `is_split`: both go the same way, so their shares are parts of a whole.
    """

    cpc_share: str
    cpc: str
    click_to_lead_share: str
    click_to_lead: str
    is_cpc_first: bool
    is_split: bool


def _is_back(finding: Finding) -> bool:
    ratio, rule = finding.evidence.ratio, finding.rule
    if ratio is None:
        return False
    return ratio <= rule.resolve_ratio if rule.kind == CPL_SPIKE else ratio >= rule.resolve_ratio


def _text(value: Number | None, say: Callable[[Number], str]) -> str:
    return "" if value is None else say(value)


def _cost(evidence: Evidence) -> Fraction | None:
    return None if evidence.cost is None else Fraction(evidence.cost, MICROS)


def _cpl(evidence: Evidence) -> Fraction | None:
    if not evidence.leads or evidence.cost is None:
        return None
    return Fraction(evidence.cost, evidence.leads * MICROS)


def _share(evidence: Evidence) -> Fraction | None:
    if not evidence.trials or evidence.successes is None:
        return None
    return Fraction(evidence.successes, evidence.trials)


def _decimals(value: float) -> str:
    """Return a number from 0.0001 to 1 with two digits that count, never with an exponent."""
    return f"{float(f'{value:.1e}'):.6f}".rstrip("0").rstrip(".")
