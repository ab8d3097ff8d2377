"""What every rule finds about a scope at a minute, and why.

Source: contract, section 9.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from kpis.alert_rules import (
    CONVERSION_DROP,
    COST_MISSING,
    CPL_SPIKE,
    LEADS_STOPPED,
    PACING_BEHIND,
    SPEND_STOPPED,
    Rule,
)
from kpis.alerts import FIRES, QUIET, Finding, Standing
from kpis.baselines import Baselines
from kpis.calendar import MINUTE_MS
from kpis.decomposition import CampaignTold, Explanation
from kpis.explanations import explanation, ranked
from kpis.facts import OVERALL, Facts, Scope
from kpis.outage_readings import cost_missing, leads_stopped, spend_stopped
from kpis.pacing_readings import pacing_behind
from kpis.price_readings import conversion_drop, cpl_spike
from kpis.sight import Sight
from kpis.spans import Spans
from kpis.surroundings import Outlook
from kpis.verdicts import Reading, verdict

READERS: Final[Mapping[str, Callable[[Rule, Sight], list[Reading]]]] = MappingProxyType(
    {
        CPL_SPIKE: cpl_spike,
        SPEND_STOPPED: spend_stopped,
        LEADS_STOPPED: leads_stopped,
        COST_MISSING: cost_missing,
        CONVERSION_DROP: conversion_drop,
        PACING_BEHIND: pacing_behind,
    }
)
"""How the rules of each kind read, the shortest window first."""


class Detector:
    """Evaluates rules on what is counted; remembers the usual of each scope for an hour.

    Args:
        rules: What to look for; those that are not enabled are passed over.
        outlook: The sums, cost reports and targets; asked as they are at each evaluation.
        spans: Where windows lie.
    """

    def __init__(self, rules: Iterable[Rule], outlook: Outlook, spans: Spans) -> None:
        self._rules = tuple(rule for rule in rules if rule.enabled)
        self._outlook = outlook
        self._spans = spans
        self._baselines = Baselines(outlook)

    def evaluate(
        self, scope: Scope, minute: int, standings: Mapping[str, Standing] | None = None
    ) -> list[Finding]:
        """Return what the rules that concern a scope find at a minute, at most one finding per rule.

        A rule without a standing only has one if it fires; nothing else would change where it stands.

        Args:
            scope: What is looked at, on the period basis.
            minute: The machine's, in whole minutes since 1970 UTC.
            standings: Where the scope stands by rule name; those that are not there are quiet. What
                lies before the end of an incident does not fire again, except what is of a target.
        """
        stands = standings or {}
        sight = Sight(scope, minute, self._outlook, self._spans, self._baselines)
        findings = []
        for rule in self._rules:
            if rule.concerns(scope):
                standing = stands.get(rule.name, QUIET)
                finding = _found(rule, sight, standing)
                if finding is not None:
                    findings.append(finding)
        return findings

    def campaigns_told(self, scopes: Iterable[Scope], minute: int) -> list[CampaignTold]:
        """Return those of a shard's campaigns that spent most above their usual, at most ten a window."""
        sights = [
            Sight(scope, minute, self._outlook, self._spans, self._baselines)
            for scope in scopes
            if scope.campaign_id is not None
        ]
        coverage = next((rule.coverage for rule in self._rules if rule.kind == CPL_SPIKE), None)
        return [] if coverage is None else ranked(sights, coverage)

    def explain(self, finding: Finding, told: Iterable[CampaignTold] = ()) -> Explanation | None:
        """Return why a finding is what it is; None if nothing can be said.

        Args:
            finding: One of `evaluate`.
            told: What all shards told of their campaigns last; asked for channels and the whole.
        """
        usual: Mapping[str, Facts] = {}
        if finding.scope == OVERALL:
            usual = self._baselines.channels(
                finding.evidence.baseline_kind,
                finding.window.kind,
                finding.minute,
                finding.rule.coverage,
            )
        return explanation(finding, told, self._outlook, usual)


def _found(rule: Rule, sight: Sight, standing: Standing) -> Finding | None:
    resolved_minute = -(-standing.resolved_ms // MINUTE_MS)
    if rule.kind == PACING_BEHIND:
        # A target's period always begins before what has resolved in it: there the cooldown is enough.
        resolved_minute = 0
    readings = READERS[rule.kind](rule, sight)
    condition, reading, evaluations = verdict(rule, readings, resolved_minute)
    if condition != FIRES and standing == QUIET:
        return None
    if reading is None:
        window = sight.window("last_24h")
        return Finding(
            rule=rule, scope=sight.scope, minute=sight.minute, window=window, condition=condition
        )
    return Finding(
        rule=rule,
        scope=sight.scope,
        minute=sight.minute,
        window=reading.window,
        condition=condition,
        evaluations=evaluations,
        evidence=reading.evidence(),
        facts=dict(reading.facts),
        usual=dict(reading.usual),
    )
