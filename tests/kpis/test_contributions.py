"""Contributions and their corrections."""

from hypothesis import given
from hypothesis import strategies as st

from kpis.contributions import Contribution, Place, correction, count, lifetime_place
from kpis.facts import BASES, add
from kpis.retention import Grain

PLACES = [
    Place(basis, channel, "c", Grain.MINUTE, minute)
    for basis in BASES
    for channel in "ab"
    for minute in (1, 2)
]
contributions = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(("clicks", "sales")), st.integers(-3, 3))
)


def contribution_of(counts: list[tuple[Place, str, int]]) -> Contribution:
    result: Contribution = {}
    for place, name, amount in counts:
        count(result, place, name, amount)
    return result


def without_empty(contribution: Contribution) -> Contribution:
    return {place: facts for place, facts in contribution.items() if facts}


@given(contributions, contributions)
def test_correction_turns_the_old_into_the_new(
    old: list[tuple[Place, str, int]], new: list[tuple[Place, str, int]]
) -> None:
    before, after = contribution_of(old), contribution_of(new)
    for place, facts in correction(after, before).items():
        add(before.setdefault(place, {}), facts)
    assert without_empty(before) == without_empty(after)


@given(contributions)
def test_what_did_not_change_needs_no_correction(counts: list[tuple[Place, str, int]]) -> None:
    assert correction(contribution_of(counts), contribution_of(counts)) == {}


@given(contributions, contributions)
def test_a_correction_holds_no_zeros(
    old: list[tuple[Place, str, int]], new: list[tuple[Place, str, int]]
) -> None:
    changes = correction(contribution_of(new), contribution_of(old))
    assert all(facts and all(facts.values()) for facts in changes.values())


def test_counting_nothing_leaves_no_fact() -> None:
    result: Contribution = {}
    count(result, lifetime_place("seo", "-"), "sales", 0)
    assert without_empty(result) == {}
