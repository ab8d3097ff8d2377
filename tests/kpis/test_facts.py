import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.facts import (
    AMOUNTS,
    BASES,
    COHORT,
    FACT_LABELS,
    Facts,
    add,
    additive_facts,
    difference,
)

FUNNEL = ("visitor", "lead", "mql", "sql", "customer")

facts = st.dictionaries(
    st.sampled_from(additive_facts(FUNNEL)), st.integers().filter(bool), max_size=6
)


def test_a_sum_of_zero_is_left_out() -> None:
    total: Facts = {"clicks": 3, "cost": 5}

    add(total, {"clicks": -3, "sales": 1})

    assert total == {"cost": 5, "sales": 1}


@given(new=facts, old=facts)
def test_old_plus_the_difference_is_new(new: Facts, old: Facts) -> None:
    total = dict(old)

    add(total, difference(new, old))

    assert total == new


@given(new=facts, old=facts)
def test_a_difference_has_no_zeros_and_leaves_its_parts_alone(new: Facts, old: Facts) -> None:
    before = dict(new), dict(old)

    assert all(difference(new, old).values())
    assert (new, old) == before


@given(parts=st.lists(facts), other=st.randoms(use_true_random=False))
def test_facts_may_be_added_in_any_order(parts: list[Facts], other: random.Random) -> None:
    total: Facts = {}
    shuffled: Facts = {}
    for part in parts:
        add(total, part)
    other.shuffle(parts)
    for part in parts:
        add(shuffled, part)

    assert total == shuffled


def test_a_funnel_has_its_own_facts_of_each_stage() -> None:
    names = additive_facts(("lead", "demo", "customer"))

    assert "stage_entered.demo" in names
    assert "stage_current.lead" in names
    assert "stage_entered.mql" not in names


def test_a_cohorts_stages_are_those_from_lead_on_that_another_one_follows() -> None:
    names = additive_facts(FUNNEL, COHORT)

    assert [name for name in names if "." in name] == [
        *("stage_entered.lead", "stage_entered.mql", "stage_entered.sql"),
        *("reached.mql.lead", "reached.sql.mql", "reached.customer.sql"),
        *("closed_from.lead", "closed_from.mql", "closed_from.sql"),
    ]


@pytest.mark.parametrize("basis", BASES)
def test_no_fact_is_named_twice(basis: str) -> None:
    names = additive_facts(FUNNEL, basis)

    assert len(names) == len(set(names))
    for name in names:
        first, *rest = name.split(".")
        assert len(rest) == len(FACT_LABELS.get(first, ()))


def test_derived_facts_are_stored_on_the_cohort_basis_only() -> None:
    period, cohort = ({*additive_facts(FUNNEL, basis)} for basis in BASES)

    assert not {"leads", "revenue_net"} & period
    assert {"leads", "revenue_net"} <= cohort
    assert (period | cohort) & AMOUNTS == AMOUNTS
