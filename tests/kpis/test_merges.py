"""Mergers: chains are followed, circles are cut at their smallest lead."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kpis.merges import Pointers
from tests.examples import A_PROPERTY

LEADS = st.sampled_from("abcdefg")
STEPS = st.lists(st.tuples(LEADS, st.one_of(st.none(), LEADS, LEADS, LEADS)), max_size=20)
MANY = 20_000


def naive_root(lead_id: str, into: dict[str, str]) -> str:
    way = [lead_id]
    while way[-1] in into:
        following = into[way[-1]]
        if following in way:
            return min(way[way.index(following) :])
        way.append(following)
    return way[-1]


def roots(into: dict[str, str]) -> dict[str, str]:
    return {lead_id: naive_root(lead_id, into) for lead_id in "abcdefg"}


def pointers_of(*steps: tuple[str, str | None]) -> Pointers:
    pointers = Pointers()
    for lead_id, into_lead_id in steps:
        pointers.set(lead_id, into_lead_id)
    return pointers


@given(STEPS)
@A_PROPERTY
def test_every_step_tells_exactly_the_leads_that_have_another_root(
    steps: list[tuple[str, str | None]],
) -> None:
    pointers, into = Pointers(), dict[str, str]()
    for lead_id, into_lead_id in steps:
        before = roots(into)
        if into_lead_id is None:
            into.pop(lead_id, None)
        else:
            into[lead_id] = into_lead_id
        after = roots(into)
        changed = pointers.set(lead_id, into_lead_id)
        assert changed == {name for name in after if after[name] != before[name]}
        assert {name: pointers.root(name) for name in after} == after
        assert dict(pointers.items()) == into
        assert len(pointers) == len(into)
        # Nothing is remembered of leads that are their own roots: there are millions of them.
        assert pointers._roots.keys() == {name for name in after if after[name] != name}


@given(st.dictionaries(LEADS, LEADS), st.randoms(use_true_random=False))
@A_PROPERTY
def test_any_order_of_mergers_gives_the_same_roots(into: dict[str, str], random: Random) -> None:
    steps = list(into.items())
    random.shuffle(steps)
    pointers = pointers_of(*steps)
    assert {name: pointers.root(name) for name in "abcdefg"} == roots(into)


def test_a_lead_that_was_not_merged_is_its_own_root() -> None:
    assert Pointers().root("a") == "a"


def test_chains_are_followed() -> None:
    pointers = pointers_of(("a", "b"), ("c", "d"))
    assert pointers.set("b", "c") == {"a", "b"}
    assert {pointers.root(name) for name in "abcd"} == {"d"}


def test_a_circle_is_cut_at_its_smallest_lead() -> None:
    pointers = pointers_of(("x", "c"), ("c", "b"), ("b", "a"))
    assert pointers.set("a", "c") == set()
    assert {pointers.root(name) for name in "abcx"} == {"a"}
    assert pointers.set("b", "z") == {"a", "b", "c", "x"}
    assert {pointers.root(name) for name in "abcx"} == {"z"}


def test_the_same_merger_again_changes_nothing() -> None:
    pointers = pointers_of(("a", "b"))
    assert pointers.set("a", "b") == set()
    assert pointers.set("b", None) == set()


def test_long_chains_are_as_fast_as_short_ones() -> None:
    pointers = Pointers()
    # From its end: every further lead would walk the whole chain, were its end not remembered.
    for number in reversed(range(MANY)):
        pointers.set(f"{number:06}", f"{number + 1:06}")
    assert pointers.root("000000") == f"{MANY:06}"
    assert len(pointers.set(f"{MANY:06}", "end")) == MANY + 1
    assert pointers.root("000000") == "end"
    assert len(pointers.set("end", "000000")) == MANY + 2
    assert pointers.root("end") == "000000"
