from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kpis.catalog import (
    COST_MISSING,
    NO_DATA,
    NO_SURROUNDINGS,
    Catalog,
    Combined,
    Kpi,
    Surroundings,
    Undefined,
    Value,
    derived,
    labels_of,
    unit_of,
)
from kpis.facts import BASES, COHORT, PERIOD, Facts, additive_facts
from kpis.formulas import NUMBERS_AROUND
from kpis.histogram import FACT, bucket_of, counts_of, fact_name, quantile
from kpis.money import MICROS, scaled_quotient
from tests.examples import A_PROPERTY
from tests.kpis.numbers import (
    CATALOG,
    FUNNEL,
    GOLDEN,
    PLACES,
    facts_on,
    golden_facts,
    golden_surroundings,
    windows,
)

KPIS = {kpi.name: kpi for kpi in CATALOG.kpis}
EXPECTED = Surroundings(expected=1)
COVERED = Surroundings(expected=1, covered=1)
OVERALL = Surroundings(is_overall=True)


def evaluate(
    basis: str = PERIOD, around: Surroundings = NO_SURROUNDINGS, **facts: int
) -> dict[str, Value]:
    return CATALOG.evaluate(basis, facts, around)


def names_where(holds: Any) -> set[str]:
    return {kpi.name for kpi in CATALOG.kpis if holds(kpi)}


# ----------------------------------------------------------------------------- the lines


@pytest.mark.parametrize(("basis", "channel"), PLACES)
def test_the_worked_example_gives_the_expected_kpis(basis: str, channel: str) -> None:
    told = GOLDEN[basis][channel]
    around = golden_surroundings(channel, told["facts"])

    values = CATALOG.evaluate(basis, golden_facts(told["facts"]), around)

    for name, expected in told["kpis"].items():
        if expected["value"] is None:
            assert values[name] == Undefined(expected["undefined_reason"]), name
        else:
            assert values[name] == int(Decimal(str(expected["value"])) * MICROS), name


def test_the_catalogue_is_in_the_order_of_the_contract() -> None:
    assert list(KPIS) == [
        *("ctr", "cpc", "cpm", "cpl", "cpl_gross", "click_to_lead", "visitor_to_lead"),
        "stage_conversion.lead.mql",
        "stage_conversion.mql.sql",
        "stage_conversion.sql.customer",
        *("conversion", "conversion_within", "mql_to_close"),
        *("purchase_cycle_mean", "purchase_cycle_p50", "purchase_cycle_p90"),
        *("cac", "cac_media", "revenue_per_lead", "net_profit_per_lead"),
        *("average_revenue_per_sale", "roi", "roas", "target_attainment", "pacing"),
        *("unattributed_share", "invalid_click_share", "cost_coverage", "cohort_maturity"),
    ]


def test_each_kpi_is_on_the_bases_on_which_its_facts_are() -> None:
    assert names_where(lambda kpi: kpi.bases == (COHORT,)) == {
        "conversion_within", "cohort_maturity",
    }  # fmt: skip
    assert names_where(lambda kpi: kpi.bases == (PERIOD,)) == {
        "ctr", "cpc", "cpm", "click_to_lead", "visitor_to_lead", "target_attainment", "pacing",
        "unattributed_share", "invalid_click_share",
    }  # fmt: skip


def test_the_formulas_that_differ_by_basis_are_those_of_the_contract() -> None:
    differing = {
        kpi.name: tuple(
            formula.text(kpi.unit) for basis in BASES if (formula := kpi.formula(basis))
        )
        for kpi in CATALOG.kpis
        if len(kpi.bases) == 2 and kpi.period != kpi.cohort
    }

    assert differing == {
        "stage_conversion.lead.mql": (
            "stage_entered.mql / stage_entered.lead",
            "reached.mql.lead / stage_entered.lead",
        ),
        "stage_conversion.mql.sql": (
            "stage_entered.sql / stage_entered.mql",
            "reached.sql.mql / stage_entered.mql",
        ),
        "stage_conversion.sql.customer": (
            "stage_entered.customer / stage_entered.sql",
            "reached.customer.sql / stage_entered.sql",
        ),
        "mql_to_close": ("converted / stage_entered.mql", "closed_from.mql / stage_entered.mql"),
        "average_revenue_per_sale": ("revenue_gross / sales", "revenue_net / sales"),
    }


def test_formulas_are_written_as_people_write_them() -> None:
    def text(name: str) -> str:
        formula = KPIS[name].formula(PERIOD)
        assert formula is not None
        return formula.text(KPIS[name].unit)

    assert text("cpm") == "1000 \N{MULTIPLICATION SIGN} cost / impressions"
    assert text("roi") == "(revenue_net \N{MINUS SIGN} cost) / cost"
    assert text("invalid_click_share") == "invalid_clicks / (clicks + invalid_clicks)"
    assert text("purchase_cycle_mean") == "cycle_ms / cycle_count / 1000"
    assert text("purchase_cycle_p90") == "p90 of cycle_histogram / 1000"


def test_formulas_name_only_quantities_that_there_are() -> None:
    told_by_targets = {"actual", "target", "target_by_now"}
    for basis in BASES:
        there = {*additive_facts(FUNNEL, basis), "leads", "revenue_net", "visitors", FACT}
        there |= {*NUMBERS_AROUND}
        for kpi in CATALOG.kpis:
            formula = kpi.formula(basis)
            if formula is not None:
                assert formula.facts <= (told_by_targets if kpi.per_target else there), kpi.name


def test_the_first_fields_of_the_surroundings_are_its_numbers() -> None:
    assert Surroundings._fields[: len(NUMBERS_AROUND)] == NUMBERS_AROUND


def test_every_line_tells_all_that_the_documents_show() -> None:
    for kpi in CATALOG.kpis:
        assert kpi.bases, kpi.name
        assert kpi.french, kpi.name
        assert kpi.unit in ("share", "ratio", "seconds", "amount"), kpi.name
        assert kpi.reason.startswith("no_"), kpi.name
    french = [kpi.french for kpi in CATALOG.kpis]
    assert len(french) == len({*french})


def test_what_follows_from_a_line_is_what_the_contract_says() -> None:
    assert names_where(lambda kpi: kpi.needs_cost) == {
        *("cpc", "cpm", "cpl", "cpl_gross", "cac", "cac_media"),
        *("net_profit_per_lead", "roi", "roas"),
    }
    assert names_where(lambda kpi: kpi.is_money and not kpi.needs_cost) == {
        *("revenue_per_lead", "average_revenue_per_sale"),
    }
    assert names_where(lambda kpi: kpi.is_approximate) == {
        *("visitor_to_lead", "purchase_cycle_p50", "purchase_cycle_p90"),
    }
    assert names_where(lambda kpi: kpi.has_interval and kpi.unit != "share") == {"cpl"}
    assert names_where(lambda kpi: kpi.unit == "share" and not kpi.has_interval) == {
        *("cost_coverage", "cohort_maturity"),
    }
    assert names_where(lambda kpi: not kpi.is_of_sums) == {
        *("visitor_to_lead", "conversion_within", "cohort_maturity", "cost_coverage"),
        *("unattributed_share", "target_attainment", "pacing"),
    }


def test_stage_conversions_follow_the_funnel_from_lead_on() -> None:
    names = [kpi.name for kpi in Catalog(("visitor", "lead", "demo", "customer")).kpis]

    assert [name for name in names if name.startswith("stage_")] == [
        "stage_conversion.lead.demo",
        "stage_conversion.demo.customer",
    ]


def test_a_funnel_without_mql_has_no_rate_from_it() -> None:
    names = {kpi.name for kpi in Catalog(("lead", "demo", "customer")).kpis}

    assert "mql_to_close" not in names
    assert "mql_to_close" in KPIS


def test_a_funnel_without_lead_is_refused() -> None:
    with pytest.raises(ValueError, match="funnel: expected a stage 'lead', got"):
        Catalog(("visitor", "customer"))


def test_the_horizon_is_in_the_french_name() -> None:
    assert (
        Catalog(FUNNEL, horizon_days=90).kpi("conversion_within").french == "Conversion à 90 jours"
    )


def test_units_are_known_by_name() -> None:
    assert all(unit_of(kpi.name) == kpi.unit for kpi in CATALOG.kpis)
    assert unit_of("pacing.stage_entered.mql") == "ratio"
    with pytest.raises(KeyError):
        unit_of("mood")


def test_a_line_is_found_by_the_full_name() -> None:
    assert CATALOG.kpi("pacing.leads") is KPIS["pacing"]
    assert CATALOG.kpi("stage_conversion.lead.mql").labels == ("from", "to")
    with pytest.raises(KeyError):
        CATALOG.kpi("mood")


def test_the_parts_of_a_name_have_labels() -> None:
    assert labels_of("ctr") == ()
    assert labels_of("stage_conversion.lead.mql") == (("from", "lead"), ("to", "mql"))
    assert labels_of("pacing.stage_entered.mql") == (("kpi", "stage_entered.mql"),)


def test_targets_may_be_about_some_facts_and_the_kpis_of_the_period_basis() -> None:
    units = CATALOG.target_units

    assert units["leads"] == units["stage_entered.mql"] == "count"
    assert units["cost"] == units["revenue_net"] == units["cpl"] == "amount"
    assert units["unattributed_share"] == "share"
    assert not {"conversion_within", "target_attainment", "pacing", "clicks"} & units.keys()


# ----------------------------------------------------------------------------- values


def test_cpm_is_the_cost_of_a_thousand_impressions() -> None:
    values = evaluate(cost=10 * MICROS, cost_records=1, impressions=4000)

    assert values["cpm"] == 2_500_000


def test_the_purchase_cycle_is_in_seconds() -> None:
    assert evaluate(cycle_ms=3_000, cycle_count=2)["purchase_cycle_mean"] == 1_500_000


def test_the_median_and_the_ninth_decile_come_from_the_histogram() -> None:
    day_ms = 86_400_000
    cycles = [*range(1, 11)]
    facts = {fact_name(bucket_of(days * day_ms)): 1 for days in cycles} | {"cycle_count": 10}

    values = CATALOG.evaluate(PERIOD, facts)

    for name, days in (("purchase_cycle_p50", 5), ("purchase_cycle_p90", 9)):
        value = values[name]
        assert isinstance(value, int)
        assert abs(value / MICROS - days * 86_400) <= days * 864


def test_refunds_lower_net_revenue_but_not_the_revenue_of_a_periods_sale() -> None:
    values = evaluate(revenue_gross=100, refunds=40, sales=2, leads_gross=3)

    assert values["revenue_per_lead"] == 20
    assert values["average_revenue_per_sale"] == 50


def test_a_sale_of_a_cohort_brings_what_is_left_of_it() -> None:
    values = evaluate(COHORT, revenue_net=60, sales=2, leads=3)

    assert values["revenue_per_lead"] == 20
    assert values["average_revenue_per_sale"] == 30


def test_leads_are_derived_on_the_period_basis_and_stored_on_the_other() -> None:
    assert evaluate(PERIOD, leads_gross=4, leads_voided=2, converted=1)["conversion"] == 500_000
    assert evaluate(COHORT, leads_gross=4, leads=2, converted=1)["conversion"] == 500_000


def test_stages_of_a_cohort_are_reached_not_entered() -> None:
    facts = {"stage_entered.lead": 4, "stage_entered.mql": 3, "reached.mql.lead": 1}

    assert CATALOG.evaluate(PERIOD, facts)["stage_conversion.lead.mql"] == 750_000
    assert CATALOG.evaluate(COHORT, facts)["stage_conversion.lead.mql"] == 250_000


def test_only_mature_leads_are_in_the_conversion_within_the_horizon() -> None:
    around = Surroundings(mature_leads=4, mature_converted=1)
    values = evaluate(COHORT, around, leads=10, converted_within=5)

    assert values["conversion_within"] == 250_000
    assert values["cohort_maturity"] == 400_000
    assert evaluate(COHORT, leads=10)["cohort_maturity"] == 0
    assert evaluate(COHORT, leads=10)["conversion_within"] == NO_DATA


def test_leads_of_no_channel_are_a_share_of_the_whole_only() -> None:
    around = Surroundings(unattributed_leads=1)

    assert "unattributed_share" not in evaluate(PERIOD, around, leads_gross=4)
    whole = evaluate(PERIOD, around._replace(is_overall=True), leads_gross=4)
    assert whole["unattributed_share"] == 250_000
    assert "unattributed_share" not in evaluate(COHORT, OVERALL, leads=4)


def test_cost_coverage_counts_channels() -> None:
    around = Surroundings(expected=4, covered=3)

    assert evaluate(PERIOD, around, cost_records=1)["cost_coverage"] == 750_000
    assert evaluate(PERIOD, EXPECTED, clicks=1)["cost_coverage"] == 0
    assert evaluate(PERIOD, clicks=1)["cost_coverage"] == NO_DATA


def test_invalid_clicks_are_shared_over_all_clicks() -> None:
    assert evaluate(invalid_clicks=1, clicks=3)["invalid_click_share"] == 250_000
    assert evaluate(invalid_clicks=1)["invalid_click_share"] == MICROS


def test_without_leads_cost_per_lead_is_undefined_not_zero() -> None:
    values = evaluate(PERIOD, COVERED, cost=5, cost_records=1)

    assert values["cpl"] == Undefined("no_leads")
    assert values["cac"] == Undefined("no_customers")


def test_nothing_over_nothing_has_no_data() -> None:
    assert evaluate(cost_records=1)["cpl"] == NO_DATA
    assert evaluate()["ctr"] == NO_DATA
    assert evaluate(clicks=0, impressions=0)["ctr"] == NO_DATA


def test_more_voided_than_created_leads_leave_no_rate() -> None:
    # A lead of another window's correction cannot do this; a wrong restatement could.
    values = evaluate(leads_gross=1, leads_voided=3, clicks=10)

    assert values["conversion"] == Undefined("no_leads")
    assert values["click_to_lead"] == -200_000


@pytest.mark.parametrize("basis", BASES)
def test_expected_but_unknown_cost_makes_every_kpi_with_cost_undefined(basis: str) -> None:
    values = evaluate(basis, EXPECTED, clicks=10, impressions=100, leads_gross=2, leads=2, sales=1)

    with_cost = {kpi.name for kpi in CATALOG.kpis if kpi.needs_cost and kpi.formula(basis)}
    assert {name for name, value in values.items() if value == COST_MISSING} == with_cost


def test_cost_that_nobody_expects_is_a_known_zero() -> None:
    values = evaluate(leads_gross=4, revenue_gross=8)

    assert values["cpl"] == 0
    assert values["net_profit_per_lead"] == 2
    assert values["roi"] == Undefined("no_cost")


def test_a_known_cost_of_zero_is_not_missing() -> None:
    assert evaluate(PERIOD, COVERED, cost_records=1, leads_gross=4)["cpl"] == 0


@pytest.mark.parametrize(
    ("earlier", "later", "reason"), [("lead", "mql", "no_leads"), ("mql", "sql", "no_stage")]
)
def test_a_stage_nobody_entered_has_no_conversion(earlier: str, later: str, reason: str) -> None:
    values = CATALOG.evaluate(PERIOD, {f"stage_entered.{later}": 1})

    assert values[f"stage_conversion.{earlier}.{later}"] == Undefined(reason)


def test_shares_above_one_are_implausible_and_ratios_are_not() -> None:
    assert KPIS["ctr"].is_implausible(MICROS + 1)
    assert not KPIS["ctr"].is_implausible(MICROS)
    assert not KPIS["ctr"].is_implausible(NO_DATA)
    assert not KPIS["roi"].is_implausible(6 * MICROS)


def test_derived_facts_of_zero_are_left_out() -> None:
    voided = {"leads_gross": 2, "leads_voided": 2}

    assert derived(voided, PERIOD) == voided
    assert derived({"refunds": 3}, PERIOD) == {"refunds": 3, "revenue_net": -3}
    assert derived({"leads_gross": 2}, COHORT) == {"leads_gross": 2}


# ----------------------------------------------------------------------------- remarks


def test_cost_of_some_channels_makes_what_rests_on_it_partial() -> None:
    facts = {"cost": 5, "cost_records": 1, "leads_gross": 1}
    with_cost = {name for name, kpi in KPIS.items() if kpi.needs_cost}

    some = Surroundings(expected=2, covered=1)
    assert CATALOG.partial(PERIOD, facts, some) == with_cost
    assert CATALOG.partial(PERIOD, facts, some._replace(covered=2)) == frozenset()
    assert CATALOG.partial(PERIOD, facts, some._replace(covered=0)) == frozenset()


def test_a_window_beyond_the_known_cost_is_partial() -> None:
    around = COVERED._replace(cost_until_reached=False)

    assert "cpl" in CATALOG.partial(COHORT, {"cost_records": 1}, around)
    assert "revenue_per_lead" not in CATALOG.partial(COHORT, {"cost_records": 1}, around)


def test_a_missing_rate_makes_all_money_partial() -> None:
    partial = CATALOG.partial(PERIOD, {"fx_missing": 1}, COVERED)

    assert partial == {name for name, kpi in KPIS.items() if kpi.is_money}
    assert {"cpl", "revenue_per_lead", "roas"} <= partial
    assert not {"ctr", "conversion", "cost_coverage"} & partial


def test_a_share_has_the_limits_of_its_counts_and_cpl_those_of_its_leads() -> None:
    facts = {"clicks": 10, "impressions": 20, "leads_gross": 10, "cost": 100 * MICROS}
    values = CATALOG.evaluate(PERIOD, facts)

    limits = CATALOG.intervals(PERIOD, facts, NO_SURROUNDINGS, values)

    assert limits["ctr"] == (299_298, 700_702)
    # 10 leads might be 4.795389 to 18.390356.
    assert limits["cpl"] == (5_437_633, 20_853_366)
    assert not {"cpc", "cpl_gross", "cost_coverage"} & limits.keys()


def test_what_is_undefined_or_implausible_has_no_limits() -> None:
    facts = {"clicks": 3, "impressions": 2}
    values = CATALOG.evaluate(PERIOD, facts)

    assert values["ctr"] == 1_500_000
    assert (
        not {"ctr", "conversion"} & CATALOG.intervals(PERIOD, facts, NO_SURROUNDINGS, values).keys()
    )


@A_PROPERTY
@given(window=windows)
def test_a_value_lies_within_its_limits(window: tuple[str, Facts, Surroundings]) -> None:
    values = CATALOG.evaluate(*window)

    for name, (low, high) in CATALOG.intervals(*window, values).items():
        value = values[name]
        assert isinstance(value, int)
        assert low <= value <= high, name
        if unit_of(name) == "share":
            assert low >= 0
            assert high <= MICROS


# ----------------------------------------------------------------------------- laws


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


def value_by_formula(kpi: Kpi, basis: str, facts: Facts, around: Surroundings) -> Value:
    """Return a KPI's value, worked out from its line alone and in fractions."""
    formula = kpi.formula(basis)
    assert formula is not None
    known = derived(facts, basis) | around._asdict()

    def amount(quantity: str | Combined) -> int:
        if isinstance(quantity, Combined):
            first, sign, second = quantity
            return int(known.get(first, 0)) + sign * int(known.get(second, 0))
        return int(known.get(quantity, 0))

    if kpi.needs_cost and around.expected > 0 and facts.get("cost_records", 0) <= 0:
        return COST_MISSING
    above, below = amount(formula.numerator) * formula.times, amount(formula.denominator)
    if below <= 0:
        return Undefined(kpi.reason) if above or below else NO_DATA
    if formula.quantile is not None:
        return (quantile(counts_of(facts), formula.quantile) or 0) * 1000
    scale = {"amount": 1, "seconds": 1000, "share": MICROS, "ratio": MICROS}[kpi.unit]
    return round(Fraction(above * scale, below))


@A_PROPERTY
@given(window=windows)
def test_every_kpi_follows_its_formula_or_has_a_reason(
    window: tuple[str, Facts, Surroundings],
) -> None:
    # P11 and P12: undefined exactly where the denominator is not positive or cost is missing.
    basis, facts, around = window

    values = CATALOG.evaluate(basis, facts, around)

    assert tuple(values) == CATALOG.names(basis, is_overall=around.is_overall)
    for name, value in values.items():
        assert value == value_by_formula(KPIS[name], basis, facts, around), name


@A_PROPERTY
@given(window=windows)
def test_a_value_is_the_quotient_that_explains_it(window: tuple[str, Facts, Surroundings]) -> None:
    basis, facts, around = window

    for name, value in CATALOG.evaluate(basis, facts, around).items():
        quotient = CATALOG.quotient(basis, name, facts, around)
        if isinstance(quotient, Undefined):
            assert value == quotient
        else:
            above, below, parts = quotient
            assert value == scaled_quotient(above, below * parts)


def exact(basis: str, name: str, facts: Facts) -> Fraction:
    """Return a KPI's value as a fraction of its unit."""
    quotient = CATALOG.quotient(basis, name, facts)
    assert not isinstance(quotient, Undefined)
    return Fraction(quotient.numerator, quotient.denominator * quotient.parts)


@A_PROPERTY
@given(
    place=st.sampled_from(BASES).flatmap(
        lambda basis: st.tuples(st.just(basis), facts_on(basis, least=0))
    ),
    leads=st.integers(1, 10**12),
)
def test_profit_per_lead_is_revenue_per_lead_less_cost_per_lead(
    place: tuple[str, Facts], leads: int
) -> None:
    # P10
    basis, facts = place
    known = "leads" if basis == COHORT else "leads_gross"
    facts = facts | {known: leads + (0 if basis == COHORT else facts.get("leads_voided", 0))}

    assert exact(basis, "net_profit_per_lead", facts) == exact(
        basis, "revenue_per_lead", facts
    ) - exact(basis, "cpl", facts)


@given(window=windows)
def test_zeros_among_the_facts_change_nothing(window: tuple[str, Facts, Surroundings]) -> None:
    basis, facts, around = window
    zeros = dict.fromkeys(additive_facts(FUNNEL, basis), 0)

    assert CATALOG.evaluate(basis, zeros | facts, around) == CATALOG.evaluate(basis, facts, around)
