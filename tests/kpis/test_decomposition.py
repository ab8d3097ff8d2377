"""Why a CPL changed: every split sums exactly to what it splits."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from kpis.decomposition import (
    Campaign,
    Effect,
    Funnel,
    Sums,
    excess,
    factors,
    mix_and_rate,
    rounded,
    top,
)
from kpis.money import MICROS

costs = st.integers(0, 10**12)
some = st.integers(1, 10**6)
sums = st.builds(Sums, costs, st.integers(0, 10**5))
sides = st.dictionaries(st.sampled_from(["google_ads", "meta_ads", "seo", "email"]), sums)


def test_the_contract_s_example_is_31_and_69_percent() -> None:
    usual = Funnel(cost=2_000 * MICROS, clicks=1000, leads=100)
    now = Funnel(cost=3_600 * MICROS, clicks=1500, leads=100)
    shares = factors(now, usual)
    assert shares is not None
    assert [round(share / MICROS, 2) for share in shares] == [0.31, 0.69]


@given(st.builds(Funnel, some, some, some), st.builds(Funnel, some, some, some))
def test_the_shares_of_both_factors_are_one_together(now: Funnel, usual: Funnel) -> None:
    shares = factors(now, usual)
    if shares is None:
        assert now.cost * usual.leads == usual.cost * now.leads
    else:
        assert sum(shares) == MICROS


def test_without_leads_clicks_or_cost_there_are_no_factors() -> None:
    whole = Funnel(5, 5, 5)
    for part in (Funnel(0, 5, 5), Funnel(5, 0, 5), Funnel(5, 5, 0)):
        assert factors(part, whole) is None
        assert factors(whole, part) is None


@given(sides, sides)
def test_mix_and_rate_sum_exactly_to_the_change_of_cpl(
    now: dict[str, Sums], usual: dict[str, Sums]
) -> None:
    effects = mix_and_rate(now, usual)
    leads_now = sum(each.leads for each in now.values())
    leads_usual = sum(each.leads for each in usual.values())
    if not leads_now or not leads_usual:
        assert effects == {}
        return
    change = Fraction(sum(each.cost for each in now.values()), leads_now) - Fraction(
        sum(each.cost for each in usual.values()), leads_usual
    )
    parts = [part for effect in effects.values() for part in effect]
    assert sum(parts) == change
    assert sum(rounded(parts)) == round(change)


def test_moving_leads_to_a_dear_channel_is_mix_and_a_dearer_channel_is_rate() -> None:
    usual = {"cheap": Sums(100, 10), "dear": Sums(300, 10)}
    moved = mix_and_rate({"cheap": Sums(50, 5), "dear": Sums(450, 15)}, usual)
    assert sum(effect.rate for effect in moved.values()) == 0
    assert sum(effect.mix for effect in moved.values()) == 5
    dearer = mix_and_rate({"cheap": Sums(100, 10), "dear": Sums(500, 10)}, usual)
    assert dearer["dear"] == Effect(Fraction(0), Fraction(10))
    assert dearer["cheap"] == Effect(Fraction(0), Fraction(0))


def test_a_channel_without_leads_is_all_rate() -> None:
    effects = mix_and_rate({"a": Sums(100, 10), "b": Sums(50, 0)}, {"a": Sums(100, 10)})
    assert effects["b"] == Effect(Fraction(0), Fraction(5))


campaigns = st.lists(st.tuples(sums, sums), min_size=1, max_size=8)


@given(campaigns)
def test_the_campaigns_excess_sums_exactly_to_the_scope_s(pairs: list[tuple[Sums, Sums]]) -> None:
    told = [Campaign("c", str(place), *pair) for place, pair in enumerate(pairs)]
    now = Sums(sum(each.now.cost for each in told), sum(each.now.leads for each in told))
    usual = Sums(sum(each.usual.cost for each in told), sum(each.usual.leads for each in told))
    if usual.cost and usual.leads:
        cpl = Fraction(usual.cost, usual.leads)
        total = sum(excess(each, now, usual, cpl) for each in told)
        assert total == now.cost - cpl * now.leads


def test_of_the_campaigns_those_above_the_usual_are_shown_the_greatest_first() -> None:
    now, usual = Sums(500, 10), Sums(400, 20)
    told = [
        Campaign("c", "broken", Sums(300, 0), Sums(200, 10)),
        Campaign("c", "fine", Sums(100, 5), Sums(100, 5)),
        Campaign("c", "better", Sums(100, 5), Sums(100, 5)),
    ]
    found = top(((each, excess(each, now, usual, Fraction(20))) for each in told), 3)
    assert [each.campaign_id for each, _ in found] == ["broken"]
