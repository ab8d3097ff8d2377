"""From what each window of a rule shows to one verdict: fires, well, between or silent.

A rule looks at several windows each minute, and tells one thing of a scope. Taken alone, each window
would be right by its own test and the whole wrong in three ways:

* A long window goes on firing for hours after an incident, and fires again after the cooldown. So a
  longer window fires only while each shorter one that has evidence is still off the mark (the rule of
  several windows in Google's SRE workbook: the long one says that it matters, the short one that it
  goes on), and nothing fires from a window that reaches back before the end of the last incident.
* A short window recovers by chance while all is still broken. So an incident resolves by the shortest
  window that has enough evidence to tell, else by the longest.
* A test at one percent that is made every minute fails far more often than once in a hundred days, and
  a baseline that was itself lucky makes it worse. So `is_strict` asks more of shorter windows, which
  are looked at afresh more often a day, and takes the baseline for the count that it is. An hour that
  meets the rule but not the strict test fires all the same once it has met it for an hour running:
  by then it has been seen afresh.

Source: contract, section 9, and the SRE workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from kpis.alert_rules import Rule
from kpis.alerts import BETWEEN, FIRES, SILENT, WELL, Condition, Evidence
from kpis.spans import Window

STRICT_SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {"last_1h": 0.003, "last_6h": 0.01, "last_24h": 0.3}
)
"""What part of a rule's `p_value` the strict test of a window may take.

Measured on Poisson noise, so that a scope has a false alarm in one or two of a hundred days; shorter
windows get less, as a day holds more of them.
"""

FRESH_EVALUATIONS: Final[Mapping[str, int]] = MappingProxyType({"last_1h": 60})
"""After how many evaluations running a window that is not convincing has been seen afresh, and fires.

Longer ones need no such way: what is wrong for so long convinces one of them before.
"""

_NO_FACTS: Final[Mapping[str, int]] = MappingProxyType({})


class Reading(NamedTuple):
    """What one window shows; what costs time is a function, called only if it is asked for.

    Attributes:
        window: The window.
        chance: The chance of so little if all was as usual; None where a rule has no test.
        strict_chance: The same when the usual is a count as well.
        is_off: Whether it is as far off the usual as the rule asks.
        is_back: Whether it is near enough to the usual to resolve.
        is_telling: Whether it has the evidence to acquit longer windows, and to resolve.
        evidence: To be told.
        facts: Of the window, for the explanation.
        usual: Of the baseline, for the explanation.
    """

    window: Window
    chance: Callable[[], float] | None
    strict_chance: Callable[[], float] | None
    is_off: bool
    is_back: bool
    is_telling: bool
    evidence: Callable[[], Evidence]
    facts: Mapping[str, int] = _NO_FACTS
    usual: Mapping[str, int] = _NO_FACTS


class Verdict(NamedTuple):
    """A condition and the reading that it rests on; None if there is nothing to judge by.

    `evaluations` is how many running must say so before it fires.
    """

    condition: Condition
    reading: Reading | None
    evaluations: int = 0


def verdict(rule: Rule, readings: Sequence[Reading], resolved_minute: int) -> Verdict:
    """Return what the windows of a rule say together.

    Args:
        rule: The thresholds.
        readings: Of the windows that have anything to say, the shortest first.
        resolved_minute: When the last incident ended; 0 if there was none.
    """
    if not readings:
        return Verdict(SILENT, None)
    firing = _firing(rule, readings, resolved_minute)
    if firing is not None:
        return firing
    judge = next((each for each in readings if each.is_telling), readings[-1])
    is_well = judge.is_back and (judge.chance is None or judge.chance() > rule.resolve_p_value)
    return Verdict(WELL if is_well else BETWEEN, judge)


def _firing(rule: Rule, readings: Sequence[Reading], resolved_minute: int) -> Verdict | None:
    """Return the reading that fires with the smallest chance; of two the one that is convincing."""
    convincing: Reading | None = None
    weak: Reading | None = None
    for reading in readings:
        start = reading.window.start_minute or 0
        if start >= resolved_minute and meets(rule, reading):
            if is_convincing(rule, reading):
                convincing = reading if _is_less(reading, convincing) else convincing
            elif reading.window.kind in FRESH_EVALUATIONS:
                weak = reading
        if reading.is_telling and not reading.is_off:
            # It has the evidence and is not off: what longer windows show is over.
            break
    if convincing is not None:
        return Verdict(FIRES, convincing, rule.evaluations)
    if weak is not None:
        fresh = FRESH_EVALUATIONS[weak.window.kind]
        return Verdict(FIRES, weak, max(rule.evaluations, fresh))
    return None


def meets(rule: Rule, reading: Reading) -> bool:
    """Tell whether one window taken alone meets its rule, as the contract words it."""
    if not reading.is_off:
        return False
    return reading.chance is None or reading.chance() < rule.p_value


def is_convincing(rule: Rule, reading: Reading) -> bool:
    """Tell whether a window that meets its rule also stands the strict test."""
    if not rule.is_strict or reading.strict_chance is None:
        return True
    share = STRICT_SHARES.get(reading.window.kind, 1.0)
    return reading.strict_chance() < rule.p_value * share


def _is_less(reading: Reading, than: Reading | None) -> bool:
    if than is None or reading.chance is None or than.chance is None:
        return than is None
    return reading.chance() < than.chance()
