"""Facts and surroundings of windows: those of the worked example, and any that may be."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from kpis.catalog import Catalog, Surroundings
from kpis.facts import COHORT, PERIOD, Facts, additive_facts
from kpis.histogram import BOUNDS, fact_name
from kpis.money import MICROS

FUNNEL = ("visitor", "lead", "mql", "sql", "customer")
CATALOG = Catalog(FUNNEL)
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "expected.json").read_text(encoding="utf-8")
)
DAY_MS = 86_400_000
PLACES = [(basis, channel) for basis in (PERIOD, COHORT) for channel in GOLDEN[basis]]
PAYING = ("google_ads", "linkedin_ads")


def golden_facts(told: dict[str, int]) -> Facts:
    """Return the facts behind the short names of the worked example."""
    facts: Facts = {}
    for name, number in told.items():
        if name in FUNNEL:
            facts[f"stage_entered.{name}"] = number
        elif name == "cycle_days":
            facts["cycle_ms"] = number * DAY_MS
        elif name in ("cost", "revenue_gross", "refunds", "revenue_net"):
            facts[name] = number * MICROS
        elif name == "closed_from_mql":
            facts["closed_from.mql"] = number
        elif name != "mature":
            facts[name] = number
    if "cost" in facts:
        facts["cost_records"] = 1
    return facts


def golden_surroundings(channel: str, told: dict[str, int]) -> Surroundings:
    """Return what the worked example says of a channel beside its facts."""
    paying = PAYING if channel == "_all" else {channel} & {*PAYING}
    return Surroundings(
        expected=len(paying),
        covered=len(paying),
        mature_leads=told.get("mature", 0),
        mature_converted=told.get("converted_within", 0),
        is_overall=channel == "_all",
    )


histograms = st.dictionaries(st.integers(0, len(BOUNDS) - 1), st.integers(1, 10**6), max_size=4)


def facts_on(basis: str, least: int = -(10**15), most: int = 10**15) -> st.SearchStrategy[Facts]:
    """Return facts of a window, in which each purchase cycle is in the histogram."""
    names = [name for name in additive_facts(FUNNEL, basis) if name != "cycle_count"]
    return st.builds(
        _with_cycles,
        st.dictionaries(
            st.sampled_from([*names, "visitors"]),
            st.integers(-3, 3).filter(bool) | st.integers(least, most).filter(bool),
            max_size=14,
        ),
        histograms,
    )


def _with_cycles(facts: Facts, counts: dict[int, int]) -> Facts:
    facts = facts | {fact_name(bucket): count for bucket, count in counts.items()}
    return facts | ({"cycle_count": sum(counts.values())} if counts else {})


surroundings = st.builds(
    Surroundings,
    expected=st.integers(0, 3),
    covered=st.integers(0, 3),
    unattributed_leads=st.integers(0, 100),
    mature_leads=st.integers(0, 100),
    mature_converted=st.integers(0, 100),
    cost_until_reached=st.booleans(),
    is_overall=st.booleans(),
    targets=st.just(()),
)
windows = st.sampled_from((PERIOD, COHORT)).flatmap(
    lambda basis: st.tuples(st.just(basis), facts_on(basis), surroundings)
)
"""Basis, facts and surroundings of a window."""
