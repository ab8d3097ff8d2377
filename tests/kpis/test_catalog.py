import json
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kpis.catalog import COST_MISSING, NO_DATA, Catalog, Undefined, Value, derived, unit_of
from kpis.facts import Facts, additive_facts
from kpis.money import MICROS, scaled_quotient

FUNNEL = ("visitor", "lead", "mql", "sql", "customer")
CATALOG = Catalog(FUNNEL)
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "expected_m1.json").read_text())
DAY_MS = 86_400_000

some_facts = st.dictionaries(
    st.sampled_from(additive_facts(FUNNEL)), st.integers(1, 10**15), max_size=12
)
# Facts as they are: nobody is voided who was not created.
plausible_facts = some_facts.map(
    lambda facts: (
        facts | {"leads_gross": facts.get("leads_gross", 0) + facts.get("leads_voided", 0)}
    )
)


def golden_facts(told: dict[str, int]) -> Facts:
    """Return the facts behind the short names of the worked example."""
    facts: Facts = {}
    for name, number in told.items():
        if name in FUNNEL:
            facts[f"stage_entered.{name}"] = number
        elif name == "cycle_days":
            facts["cycle_ms"] = number * DAY_MS
        elif name in ("cost", "revenue_gross"):
            facts[name] = number * MICROS
        else:
            facts[name] = number
    if "cost" in facts:
        facts["cost_records"] = 1
    return facts


def evaluate(*, cost_expected: bool = False, **facts: int) -> dict[str, Value]:
    return CATALOG.evaluate(facts, cost_expected=cost_expected)


@pytest.mark.parametrize("channel", GOLDEN["period"])
def test_the_worked_example_gives_the_expected_kpis(channel: str) -> None:
    told: dict[str, Any] = GOLDEN["period"][channel]

    values = CATALOG.evaluate(golden_facts(told["facts"]), cost_expected=channel != "seo")

    for name, expected in told["kpis"].items():
        value = values[name]
        if expected["value"] is None:
            assert value == Undefined(expected["undefined_reason"]), name
        else:
            assert value == int(Decimal(str(expected["value"])) * MICROS), name


def test_the_catalogue_is_in_the_order_of_the_contract() -> None:
    assert [kpi.name for kpi in CATALOG.kpis] == [
        "ctr",
        "cpc",
        "cpm",
        "cpl",
        "cpl_gross",
        "click_to_lead",
        "stage_conversion.lead.mql",
        "stage_conversion.mql.sql",
        "stage_conversion.sql.customer",
        "conversion",
        "purchase_cycle_mean",
        "cac",
        "revenue_per_lead",
        "net_profit_per_lead",
        "average_revenue_per_sale",
        "roi",
        "roas",
        "invalid_click_share",
    ]


def test_stage_conversions_follow_the_funnel_from_lead_on() -> None:
    names = [kpi.name for kpi in Catalog(("visitor", "lead", "demo", "customer")).kpis]

    assert [name for name in names if name.startswith("stage_")] == [
        "stage_conversion.lead.demo",
        "stage_conversion.demo.customer",
    ]


def test_a_funnel_without_lead_is_refused() -> None:
    with pytest.raises(ValueError, match="funnel: expected a stage 'lead', got"):
        Catalog(("visitor", "customer"))


def test_cpm_is_the_cost_of_a_thousand_impressions() -> None:
    values = evaluate(cost=10 * MICROS, cost_records=1, impressions=4000)

    assert values["cpm"] == 2_500_000


def test_the_purchase_cycle_is_in_seconds() -> None:
    assert evaluate(cycle_ms=3_000, cycle_count=2)["purchase_cycle_mean"] == 1_500_000


def test_refunds_lower_net_revenue_but_not_revenue_per_sale() -> None:
    values = evaluate(revenue_gross=100, refunds=40, sales=2, leads_gross=3)

    assert values["revenue_per_lead"] == 20
    assert values["average_revenue_per_sale"] == 50


def test_invalid_clicks_are_shared_over_all_clicks() -> None:
    assert evaluate(invalid_clicks=1, clicks=3)["invalid_click_share"] == 250_000
    assert evaluate(invalid_clicks=1)["invalid_click_share"] == MICROS


def test_without_leads_cost_per_lead_is_undefined_not_zero() -> None:
    values = evaluate(cost=5, cost_records=1, cost_expected=True)

    assert values["cpl"] == Undefined("no_leads")
    assert values["cac"] == Undefined("no_customers")


def test_nothing_over_nothing_has_no_data() -> None:
    assert evaluate(cost_records=1)["cpl"] == NO_DATA
    assert evaluate()["ctr"] == NO_DATA


def test_more_voided_than_created_leads_leave_no_rate() -> None:
    # A lead of another window's correction cannot do this; a wrong restatement could.
    values = evaluate(leads_gross=1, leads_voided=3, clicks=10)

    assert values["conversion"] == Undefined("no_leads")
    assert values["click_to_lead"] == -200_000


def test_expected_but_unknown_cost_makes_every_kpi_with_cost_undefined() -> None:
    values = evaluate(clicks=10, impressions=100, leads_gross=2, sales=1, cost_expected=True)

    with_cost = {kpi.name for kpi in CATALOG.kpis if kpi.needs_cost}
    assert with_cost == {
        "cpc", "cpm", "cpl", "cpl_gross", "cac", "net_profit_per_lead", "roi", "roas",
    }  # fmt: skip
    assert {name for name, value in values.items() if value == COST_MISSING} == with_cost


def test_cost_that_nobody_expects_is_a_known_zero() -> None:
    values = evaluate(leads_gross=4, revenue_gross=8)

    assert values["cpl"] == 0
    assert values["net_profit_per_lead"] == 2
    assert values["roi"] == Undefined("no_cost")


def test_a_known_cost_of_zero_is_not_missing() -> None:
    assert evaluate(cost_records=1, leads_gross=4, cost_expected=True)["cpl"] == 0


@pytest.mark.parametrize(
    ("earlier", "later", "reason"), [("lead", "mql", "no_leads"), ("mql", "sql", "no_stage")]
)
def test_a_stage_nobody_entered_has_no_conversion(earlier: str, later: str, reason: str) -> None:
    values = CATALOG.evaluate({f"stage_entered.{later}": 1}, cost_expected=False)

    assert values[f"stage_conversion.{earlier}.{later}"] == Undefined(reason)


def test_shares_above_one_are_implausible_and_ratios_are_not() -> None:
    kpis = {kpi.name: kpi for kpi in CATALOG.kpis}

    assert kpis["ctr"].is_implausible(MICROS + 1)
    assert not kpis["ctr"].is_implausible(MICROS)
    assert not kpis["ctr"].is_implausible(NO_DATA)
    assert not kpis["roi"].is_implausible(6 * MICROS)


def test_units_are_known_by_name() -> None:
    assert all(unit_of(kpi.name) == kpi.unit for kpi in CATALOG.kpis)
    with pytest.raises(KeyError):
        unit_of("mood")


def test_derived_facts_of_zero_are_left_out() -> None:
    assert derived({"leads_gross": 2, "leads_voided": 2}) == {"leads_gross": 2, "leads_voided": 2}
    assert derived({"refunds": 3}) == {"refunds": 3, "revenue_net": -3}


@given(numerator=st.integers(-(10**18), 10**18), denominator=st.integers(1, 10**18))
def test_a_value_is_the_exact_quotient_rounded_half_even(numerator: int, denominator: int) -> None:
    with localcontext(prec=80):
        exact = Decimal(numerator * MICROS) / denominator
        assume(exact % 1 != Decimal("0.5"))  # Decimal's own quotient may be rounded up to it
        assert scaled_quotient(numerator, denominator) == exact.quantize(
            Decimal(1), ROUND_HALF_EVEN
        )


@given(whole=st.integers(-(10**9), 10**9))
def test_a_value_exactly_between_two_is_rounded_to_the_even_one(whole: int) -> None:
    assert scaled_quotient(2 * whole + 1, 2 * MICROS) % 2 == 0


@given(facts=plausible_facts, cost_expected=st.booleans())
def test_every_kpi_follows_its_formula_or_has_a_reason(facts: Facts, cost_expected: bool) -> None:
    values = CATALOG.evaluate(facts, cost_expected=cost_expected)

    assert list(values) == [kpi.name for kpi in CATALOG.kpis]
    quantities = derived(facts)
    quantities["profit"] = quantities.get("revenue_net", 0) - quantities.get("cost", 0)
    quantities["clicks_seen"] = facts.get("clicks", 0) + facts.get("invalid_clicks", 0)
    for kpi in CATALOG.kpis:
        above = quantities.get(kpi.numerator, 0) * kpi.times
        below = quantities.get(kpi.denominator, 0)
        value = values[kpi.name]
        if kpi.needs_cost and cost_expected and not facts.get("cost_records"):
            assert value == COST_MISSING
        elif below > 0:
            scale = {"amount": 1, "seconds": 1000, "share": MICROS, "ratio": MICROS}[kpi.unit]
            assert value == round(Fraction(above * scale, below))
        else:
            assert value == (Undefined(kpi.reason) if above or below else NO_DATA)


@given(facts=plausible_facts, leads=st.integers(1, 10**12))
def test_profit_per_lead_is_revenue_per_lead_less_cost_per_lead(facts: Facts, leads: int) -> None:
    facts = facts | {"leads_gross": leads + facts.get("leads_voided", 0)}
    known = derived(facts)

    values = CATALOG.evaluate(facts, cost_expected=False)

    exact = Fraction(known.get("revenue_net", 0), leads) - Fraction(known.get("cost", 0), leads)
    assert values["net_profit_per_lead"] == round(exact)
