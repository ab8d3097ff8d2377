"""What every rule finds about a scope at a minute.

Source: contract, section 9.
"""

from collections.abc import Iterable, Mapping

from kpis.alert_rules import Rule
from kpis.alerts import Finding, Standing
from kpis.decomposition import CampaignTold, Explanation
from kpis.facts import Scope
from kpis.spans import Spans
from kpis.surroundings import Outlook


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

    def evaluate(
        self, scope: Scope, minute: int, standings: Mapping[str, Standing] | None = None
    ) -> list[Finding]:
        """Return what the rules that concern a scope find at a minute, at most one finding per rule.

        Args:
            scope: What is looked at, on the period basis.
            minute: The machine's, in whole minutes since 1970 UTC.
            standings: Where the scope stands by rule name; those that are not there are quiet. What
                lies before the end of an incident does not fire again.
        """
        raise NotImplementedError

    def campaigns_told(self, scopes: Iterable[Scope], minute: int) -> list[CampaignTold]:
        """Return those of a shard's campaigns that spent most above their usual, at most ten a window."""
        raise NotImplementedError

    def explain(self, finding: Finding, told: Iterable[CampaignTold] = ()) -> Explanation | None:
        """Return why a finding is what it is; None if nothing can be said.

        Args:
            finding: One of `evaluate`.
            told: What all shards told of their campaigns last; asked for channels and the whole.
        """
        raise NotImplementedError
