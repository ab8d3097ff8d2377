"""Alert rules: what each kind looks at, its thresholds, and how rules are written in TOML.

Source: contract, section 9; the defaults that it leaves open are explained at `DEFAULT_RULES`.
"""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from kpis.evaluation import TARGET_FACTS
from kpis.facts import Scope

CPL_SPIKE: Final = "cpl_spike"
SPEND_STOPPED: Final = "spend_stopped"
LEADS_STOPPED: Final = "leads_stopped"
COST_MISSING: Final = "cost_missing"
CONVERSION_DROP: Final = "conversion_drop"
PACING_BEHIND: Final = "pacing_behind"
KINDS: Final = (
    CPL_SPIKE,
    SPEND_STOPPED,
    LEADS_STOPPED,
    COST_MISSING,
    CONVERSION_DROP,
    PACING_BEHIND,
)

WINDOWS: Final = ("last_1h", "last_6h", "last_24h")
"""The windows that a rule may look at, the shortest first."""
PERIODS: Final = ("1d", "1w", "1mo")
"""The windows of targets, for `pacing_behind`; a quarter's target shows in its months."""

LEVELS: Final = ("overall", "channel", "campaign")

CLICK_TO_LEAD: Final = "click_to_lead"


class RuleError(ValueError):
    """A rule is not what it may be; the text says where, what was expected and what came."""


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: what it looks at and when it fires.

    Attributes:
        name: The table's name in TOML; stands in keys and records as `rule`.
        kind: One of `KINDS`; decides which of the thresholds below are looked at.
        enabled: False switches a default off.
        windows: What is looked at, the shortest first.
        levels: Which scopes: the whole, channels, campaigns.
        channels: Only these channels and their campaigns; empty: all. The whole stays.
        campaigns: Only these campaigns; empty: all. The whole and channels stay.
        p_value: Fires below this chance that what was seen is noise.
        resolve_p_value: Well above this chance.
        ratio: How far off the usual it must be: CPL above `ratio` times the baseline, or cost,
            conversion and pacing below it.
        resolve_ratio: Well again on the other side of this one.
        coverage: The least cost coverage of a window and of a baseline, share.
        baseline_leads: The least evidence in a baseline, leads.
        evidence_leads: From so many expected leads on a window may acquit a longer one.
        evaluations: How many evaluations running, a minute apart, fire or resolve.
        cooldown_minutes: How long after an alert resolved the same does not fire again.
        update_minutes: How long at least between two records while it fires.
        silent_minutes: After so long without anything to judge by a firing alert resolves.
        is_strict: Also guard against looking every minute and against an uncertain baseline; see
            kpis/verdicts.py.
        step: `conversion_drop` watches click_to_lead or the step between two stages, `lead.mql`.
        elapsed: `pacing_behind` waits for this share of the target's period.
        kpis: `pacing_behind` watches targets of these facts; empty: all but cost.
    """

    name: str
    kind: str
    enabled: bool = True
    windows: tuple[str, ...] = WINDOWS
    levels: tuple[str, ...] = LEVELS
    channels: tuple[str, ...] = ()
    campaigns: tuple[str, ...] = ()
    p_value: float = 0.01
    resolve_p_value: float = 0.2
    ratio: float = 1.5
    resolve_ratio: float = 1.5
    coverage: float = 0.9
    baseline_leads: int = 20
    evidence_leads: float = 20.0
    evaluations: int = 2
    cooldown_minutes: int = 360
    update_minutes: int = 60
    silent_minutes: int = 1440
    is_strict: bool = True
    step: str = CLICK_TO_LEAD
    elapsed: float = 0.2
    kpis: tuple[str, ...] = ()

    def concerns(self, scope: Scope) -> bool:
        """Tell whether the rule looks at a scope."""
        if not self.enabled or level_of(scope) not in self.levels:
            return False
        if scope.channel is not None and self.channels and scope.channel not in self.channels:
            return False
        is_named = not self.campaigns or scope.campaign_id in self.campaigns
        return scope.campaign_id is None or is_named


def level_of(scope: Scope) -> str:
    """Return which kind of scope it is, one of `LEVELS`."""
    if scope.campaign_id is not None:
        return "campaign"
    return "overall" if scope.channel is None else "channel"


DEFAULTS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.kind: rule
        for rule in (
            # The contract's own.
            Rule(name=CPL_SPIKE, kind=CPL_SPIKE),
            # Cost is no count, so no test: a tenth of what the poorest of at least three of the
            # last four weeks spent in these hours. Campaigns are paused every day on purpose;
            # channels are not.
            Rule(
                name=SPEND_STOPPED,
                kind=SPEND_STOPPED,
                windows=("last_6h",),
                levels=("overall", "channel"),
                ratio=0.1,
                resolve_ratio=0.5,
                baseline_leads=0,
            ),
            # No lead at all where seven or more were to come. Looked at every minute for years, one
            # chance in a thousand comes often; one in ten thousand is nine leads.
            Rule(
                name=LEADS_STOPPED,
                kind=LEADS_STOPPED,
                windows=("last_1h", "last_6h", "last_24h"),
                levels=("overall", "channel"),
                p_value=0.0001,
                evidence_leads=10.0,
            ),
            # Reports come hours late; those of a day before are late only if something broke. An
            # hour's hold passes over the gap between two reports.
            Rule(
                name=COST_MISSING,
                kind=COST_MISSING,
                windows=("last_24h",),
                levels=("overall", "channel"),
                evaluations=60,
                baseline_leads=20,
            ),
            # Two thirds of the usual share is what a broken form or a wrong page does; the chance
            # is small because shares drift with the traffic, and because every minute is looked at.
            Rule(
                name=CONVERSION_DROP,
                kind=CONVERSION_DROP,
                windows=("last_6h", "last_24h"),
                p_value=0.0001,
                ratio=0.67,
                resolve_ratio=0.8,
                baseline_leads=50,
                evidence_leads=10.0,
            ),
            # A day's target is decided by its evening; weeks and months can still be saved. An
            # hour's hold, as pacing moves slowly.
            Rule(
                name=PACING_BEHIND,
                kind=PACING_BEHIND,
                windows=("1w", "1mo"),
                ratio=0.8,
                resolve_ratio=0.9,
                evaluations=60,
                cooldown_minutes=1440,
            ),
        )
    }
)
"""The rule of each kind as it is without a word in TOML."""

DEFAULT_RULES: Final[tuple[Rule, ...]] = tuple(DEFAULTS.values())


# ----------------------------------------------------------------------------- reading

_COMMON: Final = frozenset(
    {
        "kind",
        "enabled",
        "windows",
        "levels",
        "channels",
        "campaigns",
        "evaluations",
        "cooldown_minutes",
        "update_minutes",
        "silent_minutes",
    }
)
_CHANCES: Final = frozenset({"p_value", "resolve_p_value", "baseline_leads", "evidence_leads"})
_KEYS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        CPL_SPIKE: _COMMON | _CHANCES | {"ratio", "resolve_ratio", "coverage", "is_strict"},
        SPEND_STOPPED: _COMMON | {"ratio", "resolve_ratio"},
        LEADS_STOPPED: _COMMON | _CHANCES,
        COST_MISSING: _COMMON | {"coverage", "baseline_leads"},
        CONVERSION_DROP: _COMMON | _CHANCES | {"ratio", "resolve_ratio", "step"},
        PACING_BEHIND: _COMMON | {"ratio", "resolve_ratio", "elapsed", "kpis"},
    }
)
"""The keys that a rule of each kind may have in TOML."""

_MINUTES: Final = (0, 366 * 1440)
_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "p_value": (1e-12, 0.5),
        "resolve_p_value": (1e-12, 0.999),
        "ratio": (0.0, 1000.0),
        "resolve_ratio": (0.0, 1000.0),
        "coverage": (0.0, 1.0),
        "elapsed": (0.0, 1.0),
        "baseline_leads": (0, 1_000_000),
        "evidence_leads": (0.0, 1_000_000.0),
        "evaluations": (1, 1440),
        "cooldown_minutes": _MINUTES,
        "update_minutes": (1, 366 * 1440),
        "silent_minutes": (1, 366 * 1440),
    }
)
_ABOVE_ONE: Final = frozenset({CPL_SPIKE})
"""Kinds that fire above `ratio`; the others fire below it."""

_STAGED: Final = "stage_entered"
_PACED: Final = tuple(sorted(TARGET_FACTS - {_STAGED}))
"""What has a pace, beside the stages. Source: contract, section 5, `pacing`."""


def rules_of(tables: Mapping[str, object], where: str) -> tuple[Rule, ...]:
    """Return the rules that TOML tables by name describe, with the defaults that they leave alone.

    A table named like a kind changes that default; any other needs its `kind`.

    Args:
        tables: Rule name to table, as TOML gives them.
        where: What to call the place in messages, a file's name say.

    Raises:
        RuleError: if a name, key or value is none that is known; *where: expected what, got what*.
    """
    rules = dict(DEFAULTS)
    for name, table in tables.items():
        rules[name] = _rule_of(name, table, f"{where}: {name}")
    return tuple(rules.values())


def keys_of(kind: str) -> frozenset[str]:
    """Return the keys that a rule of a kind may have in TOML."""
    return _KEYS[kind]


def _rule_of(name: str, table: object, where: str) -> Rule:
    if not name or not name.isascii() or not name.replace("_", "").replace("-", "").isalnum():
        _refuse(where, "a name of letters, digits, - and _", name)
    if not isinstance(table, dict):
        _refuse(where, "a table", table)
    kind = table.get("kind", name)
    if not isinstance(kind, str) or kind not in DEFAULTS:
        expected = f"kind to be one of {', '.join(KINDS)}"
        _refuse(where, expected, kind, _nearest(str(kind), KINDS))
    if name in DEFAULTS and kind != name:
        _refuse(f"{where}.kind", f"{name}, or another name for the rule", kind)
    given = {key: _value(kind, key, value, where) for key, value in table.items()}
    given["name"] = name
    known = {field: getattr(DEFAULTS[kind], field) for field in Rule.__struct_fields__}
    rule = Rule(**(known | given))
    _check_ratios(rule, given, where)
    if rule.kind == COST_MISSING and not rule.coverage:
        _refuse(f"{where}.coverage", "a number above 0, or nothing is missing", rule.coverage)
    if rule.elapsed >= 1:
        _refuse(f"{where}.elapsed", "a number below 1, where the period is over", rule.elapsed)
    return _with_default_resolve(rule, given)


def _value(kind: str, key: str, value: object, where: str) -> object:
    """Return the value of a key as a rule holds it.

    Raises:
        RuleError: if the key or its value is none.
    """
    place = f"{where}.{key}"
    keys = sorted(_KEYS[kind])
    if key not in keys:
        near = _nearest(key, keys)
        _refuse(where, f"a key of {kind}: {', '.join(keys)}", key, near)
    match key:
        case "kind":
            return value
        case "windows":
            return _texts(place, value, PERIODS if kind == PACING_BEHIND else WINDOWS)
        case "levels":
            return _texts(place, value, LEVELS)
        case "channels" | "campaigns":
            return _texts(place, value, None)
        case "kpis":
            return _paced(place, _texts(place, value, None))
        case "step":
            return _step(place, value)
        case "enabled" | "is_strict":
            return value if isinstance(value, bool) else _refuse(place, "true or false", value)
    return _number(place, key, value)


def _step(place: str, value: object) -> str:
    expected = f"{CLICK_TO_LEAD} or two stages, lead.mql"
    if not isinstance(value, str):
        _refuse(place, expected, value)
    earlier, point, later = value.partition(".")
    if value != CLICK_TO_LEAD and not (earlier and point and later):
        _refuse(place, expected, value)
    return value


def _paced(place: str, kpis: tuple[str, ...]) -> tuple[str, ...]:
    for kpi in kpis:
        fact, _, stage = kpi.partition(".")
        if kpi not in _PACED and not (fact == _STAGED and stage):
            expected = f"of {', '.join(_PACED)} and {_STAGED}.<stage>, which have a pace"
            _refuse(place, expected, kpi, _nearest(kpi, _PACED))
    return kpis


def _texts(place: str, value: object, known: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return a list of texts, in the order of those that are known."""
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        _refuse(place, "a list of texts", value)
    if known is None:
        return tuple(value)
    if not value:
        _refuse(place, f"at least one of {', '.join(known)}", value)
    for each in value:
        if each not in known:
            _refuse(place, f"one of {', '.join(known)}", each, _nearest(each, known))
    return tuple(each for each in known if each in value)


def _number(place: str, key: str, value: object) -> float:
    low, high = _RANGES[key]
    is_whole = isinstance(low, int)
    expected = f"a {'whole ' if is_whole else ''}number from {low:g} to {high:g}"
    allowed = int if is_whole else int | float
    # True is an int to Python.
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        _refuse(place, expected, value)
    return value if is_whole else float(value)


def _check_ratios(rule: Rule, given: Mapping[str, object], where: str) -> None:
    if rule.kind in _ABOVE_ONE:
        if rule.ratio < 1:
            _refuse(f"{where}.ratio", "a number from 1 on", rule.ratio)
        if "resolve_ratio" in given and rule.resolve_ratio > rule.ratio:
            _refuse(f"{where}.resolve_ratio", f"at most ratio ({rule.ratio:g})", rule.resolve_ratio)
    else:
        _check_lower_ratios(rule, given, where)
    if rule.resolve_p_value <= rule.p_value:
        _refuse(
            f"{where}.resolve_p_value", f"above p_value ({rule.p_value:g})", rule.resolve_p_value
        )


def _check_lower_ratios(rule: Rule, given: Mapping[str, object], where: str) -> None:
    # Half of all that is usual is below the usual; of a target more than all may be asked.
    is_of_usual = rule.kind != PACING_BEHIND
    if "ratio" in given:
        if rule.ratio <= 0:
            _refuse(f"{where}.ratio", "a number above 0", rule.ratio)
        if is_of_usual and rule.ratio >= 1:
            _refuse(f"{where}.ratio", "a number below 1", rule.ratio)
    if "resolve_ratio" in given:
        if rule.resolve_ratio < rule.ratio:
            expected = f"at least ratio ({rule.ratio:g})"
            _refuse(f"{where}.resolve_ratio", expected, rule.resolve_ratio)
        if is_of_usual and rule.resolve_ratio > 1:
            _refuse(f"{where}.resolve_ratio", "at most 1", rule.resolve_ratio)


def _with_default_resolve(rule: Rule, given: Mapping[str, object]) -> Rule:
    """Move a resolve ratio that was not given where the ratio passed it."""
    if "resolve_ratio" in given or "ratio" not in given:
        return rule
    if rule.kind in _ABOVE_ONE:
        return msgspec.structs.replace(rule, resolve_ratio=rule.ratio)
    return msgspec.structs.replace(rule, resolve_ratio=max(rule.ratio, rule.resolve_ratio))


def _nearest(text: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(text, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _refuse(place: str, expected: str, got: object, hint: str = "") -> NoReturn:
    msg = f"{place}: expected {expected}, got {got!r:.40}{hint}"
    raise RuleError(msg)
