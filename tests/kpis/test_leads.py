"""Leads: the set of events decides what they add, not the order in which they came."""

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.clicks import Attribution
from kpis.contributions import Contribution, Place, correction
from kpis.events import LeadCreated, LeadMerged, SaleCreated
from kpis.facts import COHORT, PERIOD
from kpis.histogram import bucket_of, fact_name
from kpis.lead_rows import decode_lead, encode_lead
from kpis.leads import (
    Funnel,
    Journey,
    Lead,
    Wanted,
    attach_click,
    attach_sale,
    create_lead,
    current_stage,
    join,
    journey_of,
    lead_contribution,
    pointer,
    tell_lead,
    wanted_click,
)
from kpis.orders import Outcome, take_orphans
from kpis.retention import Grain
from kpis.sales import Sale, create_sale, state_for_lead, tell_sale
from tests.examples import A_PROPERTY
from tests.kpis import worlds
from tests.kpis.journeys import (
    DAY,
    FUNNEL,
    HORIZON_MS,
    MINUTE,
    PARK_MS,
    STRICT,
    LeadEvent,
    SaleEvent,
    amended,
    cancelled,
    click_voided,
    clicked,
    convert,
    created,
    disqualified,
    facts_at,
    invalidated,
    merged,
    moved,
    refunded,
    requalified,
    sold,
    sound,
    summed,
    total,
    updated,
    voided,
    waiting,
    without,
)
from tests.kpis.worlds import Told, World

UUID = "6f1c0a52-3d1f-4a3e-9f0e-0b8f6c2d7a10"

# ----------------------------------------------------------------------------- the properties

MINUTES = range(7)
LEADS = ("l1", "l2", "l3", "l4")
SALES = ("s1", "s2", "s3")
CLICKS = ("k1", "k2")
CHANNELS = (None, "seo", "google_ads")
CAMPAIGNS = (None, "c", "d")
STAGES = FUNNEL.stages
AMOUNTS = range(10)
CURRENCIES = ("EUR", "EUR", "USD", "JPY")
WRITTEN = (None, *MINUTES)
# Most are in time; some wait, some wait to the last moment, some are orphans.
TIMESTAMPS = (0, 0, 0, 0, DAY, 6 * DAY, 7 * DAY, 8 * DAY, 15 * DAY)
# No click comes after its id was forgotten: which one counts then depends on when it is read.
CLICK_TIMESTAMPS = (0, DAY, 6 * DAY)


def told(
    build: Callable[..., Any], *options: Sequence[Any], timestamps: Sequence[int] = TIMESTAMPS
) -> st.SearchStrategy[Told]:
    """Draw an event of any combination of its builder's arguments, and its record's timestamp.

    One number is drawn for all of them: many small draws would take longer than what is tested.
    """
    every = (timestamps, *options)

    def chosen(number: int) -> Told:
        values = []
        for choices in every:
            number, at = divmod(number, len(choices))
            values.append(choices[at])
        return build(*values[1:]), values[0]

    return st.integers(0, math.prod(map(len, every)) - 1).map(chosen)


CREATED = told(created, MINUTES, CHANNELS, CAMPAIGNS, STAGES, (None, *CLICKS), LEADS)
MERGED = told(
    lambda at, pair, written: merged(at, pair[0], pair[1], written),
    MINUTES,
    tuple(permutations(LEADS, 2)),
    WRITTEN,
)
CHANGED = st.one_of(
    told(moved, MINUTES, STAGES, LEADS),
    told(moved, MINUTES, STAGES, LEADS),
    told(updated, MINUTES, CHANNELS, CAMPAIGNS, LEADS, WRITTEN),
    told(invalidated, MINUTES, LEADS),
    told(disqualified, MINUTES, LEADS),
    told(requalified, MINUTES, LEADS),
)
KINDS = (None, None, "new", "repeat")
SOLD = told(sold, MINUTES, AMOUNTS, KINDS, (*LEADS, *LEADS, None), SALES, CURRENCIES)
REVERSED = st.one_of(
    told(amended, MINUTES, AMOUNTS, SALES, CURRENCIES, WRITTEN),
    told(refunded, MINUTES, range(1, 7), ("r1", "r2"), SALES, CURRENCIES),
    told(cancelled, MINUTES, SALES),
    told(voided, MINUTES, SALES),
)
CLICKED = told(
    clicked, MINUTES, ("email", "unattributed"), ("c",), CLICKS, timestamps=CLICK_TIMESTAMPS
)
EVENTS = st.tuples(
    st.lists(CREATED, min_size=3, max_size=6),
    st.lists(MERGED, min_size=1, max_size=5),
    st.lists(CHANGED, max_size=5),
    st.lists(SOLD, min_size=1, max_size=4),
    st.lists(REVERSED, min_size=1, max_size=4),
    st.lists(CLICKED, max_size=2),
    st.lists(told(click_voided, MINUTES, CLICKS), max_size=1),
).map(lambda parts: [event for part in parts for event in part])
SEEDS = st.integers(0, 2**32)


@given(EVENTS, SEEDS, SEEDS)
@A_PROPERTY
def test_any_order_of_events_and_messages_adds_the_same(
    events: list[Told], seed: int, other_seed: int
) -> None:
    world, other = World(events, seed), World(events, other_seed)
    assert world.facts == other.facts == worlds.at_once(events)
    assert world.orphans == other.orphans


@given(EVENTS, st.data(), SEEDS)
@A_PROPERTY
def test_any_event_twice_adds_the_same(events: list[Told], data: st.DataObject, seed: int) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=6)) if events else []
    assert World([*events, *again], seed).facts == World(events, seed).facts


@given(EVENTS, SEEDS)
@A_PROPERTY
def test_a_lead_that_was_created_and_then_voided_was_never_there(
    events: list[Told], seed: int
) -> None:
    around = [told for told in events if "l1" not in _leads_of(told[0]) or _is_alone(told[0])]
    never = World([told for told in around if "l1" not in _leads_of(told[0])], seed)
    void = World([*around, (created(0, lead_id="l1"), 0), (invalidated(9, "l1"), 0)], seed)
    left = {
        place: {name: n for name, n in facts.items() if name in ("leads_gross", "leads_voided")}
        for place, facts in void.contribution_of("l1").items()
    }
    assert {name for facts in left.values() for name in facts} == {"leads_gross", "leads_voided"}
    assert void.facts == summed([never.facts, left])


@given(EVENTS, SEEDS)
@A_PROPERTY
def test_a_sale_that_was_created_and_then_voided_was_never_there(
    events: list[Told], seed: int
) -> None:
    without_it = [told for told in events if getattr(told[0], "sale_id", None) != "s1"]
    void: list[Told] = [*events, (sold(0, lead_id="l1", sale_id="s1"), 0), (voided(9, "s1"), 0)]
    assert World(void, seed).facts == World(without_it, seed).facts


@given(EVENTS, SEEDS)
@A_PROPERTY
def test_over_lifetime_both_bases_say_the_same_of_known_and_valid_leads(
    events: list[Told], seed: int
) -> None:
    world = World(events, seed)
    # Every lead that was created counts once or joins another.
    is_created = {lead_id for lead_id, lead in world.leads.items() if lead.created is not None}
    roots = {worlds.naive_root(lead_id, world.leads) for lead_id in is_created}
    assert total(world.facts).get("leads_gross", 0) == len(roots)
    stages = FUNNEL.stages[1:-1]
    for lead_id, lead in world.leads.items():
        contribution = world.contribution_of(lead_id)
        period, cohort = total(contribution), total(contribution, COHORT)
        assert cohort.get("leads_gross") == period.get("leads_gross")
        assert cohort.get("leads", 0) == period.get("leads_gross", 0) - period.get(
            "leads_voided", 0
        )
        if not cohort.get("leads"):
            assert set(cohort) <= {"leads_gross"}
            continue
        journeys: list[Lead | Journey] = [lead, *lead.joined.values()]
        sales = [sale for journey in journeys for sale in journey.sales.values()]
        net = period.get("revenue_gross", 0) - period.get("refunds", 0)
        assert cohort.get("revenue_net", 0) == net
        assert cohort.get("sales", 0) == sum(sale.stands for sale in sales)
        assert period.get("sales", 0) == len(sales)
        assert cohort.get("converted_gross") == period.get("converted")
        assert cohort.get("cycle_ms") == period.get("cycle_ms")
        for stage in stages:
            entered = f"stage_entered.{stage}"
            assert cohort.get(entered) == period.get(entered)
        for stage, following in zip(stages, FUNNEL.stages[2:], strict=True):
            both = cohort.get(f"stage_entered.{stage}") and period.get(f"stage_entered.{following}")
            assert cohort.get(f"reached.{following}.{stage}") == both


def _leads_of(event: object) -> set[str]:
    """Return the leads whose journeys an event is about; a sale only tells its own."""
    if isinstance(event, SaleEvent):
        return set()
    return {getattr(event, name, "") for name in ("lead_id", "into_lead_id")} - {""}


def _is_alone(event: object) -> bool:
    return not isinstance(event, LeadMerged)


# ----------------------------------------------------------------------------- steps


def a_lead(*events: LeadEvent | SaleEvent) -> Lead:
    """Return a lead after its events and those of its sales, all read at once."""
    lead = Lead()
    sales: dict[str, Sale] = {}
    for event in events:
        if isinstance(event, LeadCreated):
            create_lead(lead, event, 0, PARK_MS)
        elif isinstance(event, SaleCreated):
            create_sale(sales.setdefault(event.sale_id, Sale()), event, 0, PARK_MS)
        elif isinstance(event, SaleEvent):
            tell_sale(sales.setdefault(event.sale_id, Sale()), waiting(event), PARK_MS)
        else:
            tell_lead(lead, waiting(event), PARK_MS)
    for sale_id, sale in sales.items():
        attach_sale(lead, sale_id, state_for_lead(sale, convert))
    return lead


def added_by(
    *events: LeadEvent | SaleEvent, funnel: Funnel = FUNNEL, is_root: bool = True
) -> Contribution:
    """Return what a lead adds after its events."""
    return contribution_of(a_lead(*events), funnel, is_root=is_root)


def contribution_of(lead: Lead, funnel: Funnel = FUNNEL, *, is_root: bool = True) -> Contribution:
    return sound(lead_contribution(lead, funnel, HORIZON_MS, is_root=is_root))


@given(st.lists(st.one_of(CREATED, CHANGED, SOLD, REVERSED), max_size=8))
def test_corrections_step_by_step_come_to_the_whole(told_events: list[Told]) -> None:
    events: list[Any] = [event for event, _ in told_events]
    sums: Contribution = {}
    old: Contribution = {}
    for step in range(len(events) + 1):
        new = added_by(*events[:step])
        sums = summed([sums, correction(new, old)])
        old = new
    assert sums == old


@given(EVENTS, SEEDS)
def test_a_lead_travels_through_its_table_unchanged(events: list[Told], seed: int) -> None:
    for lead in World(events, seed).leads.values():
        assert decode_lead(encode_lead(lead)) == lead


@pytest.mark.parametrize("event_id", ["e", "0" * 36, "not-quite-a-uuid-not-quite-a-uuid-xx", UUID])
def test_an_id_of_any_form_travels_through_the_table_unchanged(event_id: str) -> None:
    lead = a_lead(
        created(0, event_id=event_id), moved(1, "mql", event_id=event_id), sold(2, sale_id=event_id)
    )
    assert decode_lead(encode_lead(lead)) == lead


def test_what_waits_travels_through_the_table_unchanged() -> None:
    lead = a_lead(moved(1, "mql"), merged(1, "l", "m"), updated(2, "seo"), invalidated(3))
    assert len(lead.waiting) == 4
    assert decode_lead(encode_lead(lead)) == lead


def test_a_lead_with_two_moves_takes_at_most_130_bytes() -> None:
    ids = [f"{UUID[:-1]}{n}" for n in range(3)]
    lead = a_lead(
        created(0, "google_ads", "c-42", event_id=ids[0]),
        moved(9, "mql", event_id=ids[1]),
        moved(99, "sql", event_id=ids[2]),
    )
    assert len(encode_lead(lead)) <= 130


# ----------------------------------------------------------------------------- where a lead counts


def test_a_lead_counts_where_it_was_created() -> None:
    facts = {"leads_gross": 1, "stage_entered.lead": 1}
    assert added_by(created(3)) == {
        Place(PERIOD, "seo", "c", Grain.MINUTE, 3): facts,
        Place(COHORT, "seo", "c", Grain.MINUTE, 3): facts | {"leads": 1},
        Place(PERIOD, "seo", "c", Grain.LIFETIME, 0): {"stage_current.lead": 1},
    }


def scope_of(lead: Lead) -> tuple[str, str]:
    (scope,) = {(place.channel, place.campaign_id) for place in contribution_of(lead)}
    return scope


@pytest.mark.parametrize(
    ("channel", "campaign_id", "expected"),
    [
        (None, None, ("unattributed", "-")),
        (None, "c", ("unattributed", "c")),
        ("seo", None, ("seo", "-")),
    ],
)
def test_a_lead_without_a_channel_is_unattributed_with_the_campaign_it_has(
    channel: str | None, campaign_id: str | None, expected: tuple[str, str]
) -> None:
    assert scope_of(a_lead(created(0, channel, campaign_id))) == expected


def test_updates_overwrite_field_by_field_in_the_order_in_which_they_were_written() -> None:
    lead = a_lead(
        created(0, "seo", "c"),
        updated(9, "email", written=20),
        updated(1, "google_ads", "d", written=30),
        updated(2, None, "x", written=40),
        updated(3, "seo", "y", written=10),
    )
    assert scope_of(lead) == ("google_ads", "x")


def test_a_lead_without_a_channel_takes_channel_and_campaign_of_its_click() -> None:
    lead = a_lead(created(0, None, "c", click_id="k"))
    assert wanted_click(lead) == Wanted("k", 0)
    assert scope_of(lead) == ("unattributed", "c")
    attach_click(lead, "k", Attribution("email", "-"))
    assert scope_of(lead) == ("email", "-")
    attach_click(lead, "k", None)
    assert scope_of(lead) == ("unattributed", "c")


def test_a_lead_created_with_a_channel_asks_no_click() -> None:
    assert wanted_click(a_lead(created(0, "seo", click_id="k"))) is None
    assert wanted_click(a_lead(created(0, None, click_id="k"), updated(1, "seo"))) is not None


def test_an_update_of_the_channel_is_stronger_than_a_click() -> None:
    lead = a_lead(created(0, None, click_id="k"))
    attach_click(lead, "k", Attribution("email", "-"))
    tell_lead(lead, waiting(updated(1, None, "d")), PARK_MS)
    assert scope_of(lead) == ("email", "-")
    tell_lead(lead, waiting(updated(2, "seo")), PARK_MS)
    assert scope_of(lead) == ("seo", "d")


def test_the_first_created_counts_and_another_is_a_conflict() -> None:
    lead = Lead()
    assert create_lead(lead, created(5, "seo"), 0, PARK_MS) is Outcome.ACCEPTED
    assert create_lead(lead, created(5, "seo"), 0, PARK_MS) is Outcome.DUPLICATE
    assert create_lead(lead, created(4, "email"), 0, PARK_MS) is Outcome.CONFLICT
    assert scope_of(lead) == ("email", "c")


def test_a_void_lead_counts_as_gross_and_voided_only() -> None:
    assert added_by(created(0), moved(2, "sql"), disqualified(3), invalidated(3)) == {
        Place(PERIOD, "seo", "c", Grain.MINUTE, 0): {"leads_gross": 1, "leads_voided": 1},
        Place(COHORT, "seo", "c", Grain.MINUTE, 0): {"leads_gross": 1},
    }


def test_sales_of_a_void_lead_stay_as_those_of_a_missing_one() -> None:
    sale = sold(2, kind="new"), refunded(3, 2), cancelled(4)
    void, missing = added_by(created(0), invalidated(), *sale), added_by(*sale)
    assert missing == {
        Place(PERIOD, "unattributed", "-", Grain.MINUTE, 2): {
            "sales": 1,
            "sales_unattributed": 1,
            "revenue_gross": 5,
            "new_customers": 1,
        },
        Place(PERIOD, "unattributed", "-", Grain.MINUTE, 3): {"refunds": 2},
        Place(PERIOD, "unattributed", "-", Grain.MINUTE, 4): {"refunds": 3, "sales_cancelled": 1},
    }
    assert missing.items() <= void.items()


def test_a_disqualified_lead_counts_at_its_latest_disqualification_and_has_no_current_stage() -> (
    None
):
    contribution = added_by(created(0), disqualified(2), requalified(3), disqualified(4))
    assert facts_at(contribution, 4) == {"leads_disqualified": 1}
    assert "leads_disqualified" not in facts_at(contribution, 2)
    assert "stage_current.lead" not in total(contribution)


def test_a_requalified_lead_is_not_disqualified_whatever_is_read_first() -> None:
    for events in ((disqualified(2), requalified(3)), (requalified(3), disqualified(2))):
        facts = total(added_by(created(0), *events))
        assert "leads_disqualified" not in facts
        assert facts["stage_current.lead"] == 1


# ----------------------------------------------------------------------------- stages


def test_a_skipped_stage_is_entered_and_implied() -> None:
    contribution = added_by(created(0), moved(2, "sql"), moved(3, "mql"))
    assert facts_at(contribution, 2) == {
        "stage_entered.mql": 1,
        "stage_implied.mql": 1,
        "stage_entered.sql": 1,
    }
    assert facts_at(contribution, 3) == {"stage_regressed.mql": 1}


def test_strictly_only_a_move_to_the_stage_itself_counts() -> None:
    contribution = added_by(created(0), moved(2, "sql"), moved(3, "mql"), funnel=STRICT)
    assert facts_at(contribution, 2) == {"stage_entered.sql": 1}
    assert facts_at(contribution, 3) == {"stage_entered.mql": 1, "stage_regressed.mql": 1}


def test_a_stage_is_entered_once() -> None:
    facts = total(added_by(created(0), moved(1, "mql"), moved(2, "lead"), moved(3, "mql")))
    assert facts["stage_entered.mql"] == 1


def test_stages_below_the_initial_one_are_not_entered() -> None:
    facts = total(added_by(created(0, initial_stage="sql")))
    assert facts == {"leads_gross": 1, "stage_entered.sql": 1, "stage_current.sql": 1}


def test_a_move_before_the_creation_comes_after_it() -> None:
    facts = total(added_by(created(5), moved(1, "mql")))
    assert facts["stage_current.mql"] == 1
    assert "stage_regressed.lead" not in facts


def test_a_sale_moves_its_lead_to_customer() -> None:
    facts = facts_at(added_by(created(0), sold(2)), 2)
    assert facts["stage_entered.customer"] == facts["stage_implied.sql"] == 1
    assert "stage_implied.customer" not in facts


def test_what_became_of_a_lead_counts_where_it_entered_each_stage() -> None:
    contribution = added_by(created(0), moved(2, "mql"), sold(4))
    names = ("stage_entered", "reached", "closed_from")
    by_minute = {
        at: {n for n in facts_at(contribution, at, COHORT) if n.split(".")[0] in names}
        for at in (0, 2, 4)
    }
    assert by_minute == {
        0: {"stage_entered.lead", "reached.mql.lead", "closed_from.lead"},
        2: {"stage_entered.mql", "reached.sql.mql", "closed_from.mql"},
        4: {"stage_entered.sql", "reached.customer.sql", "closed_from.sql"},
    }


def test_a_lead_whose_sale_was_cancelled_closed_from_nowhere() -> None:
    facts = total(added_by(created(0), moved(2, "mql"), sold(4), cancelled(5)), COHORT)
    assert not any(name.startswith("closed_from") for name in facts)
    assert facts["reached.customer.sql"] == 1


def test_the_current_stage_is_that_of_the_last_move() -> None:
    assert current_stage(a_lead(created(0))) == "lead"
    assert current_stage(a_lead(created(0), sold(5), moved(2, "mql"))) == "customer"
    assert current_stage(a_lead(created(0), sold(1), moved(2, "mql"))) == "mql"
    assert current_stage(a_lead(created(0), invalidated())) is None
    assert current_stage(a_lead(moved(1, "mql"))) is None


# ----------------------------------------------------------------------------- sales of a lead


def test_the_first_sale_converts_and_is_new_and_the_second_is_repeat() -> None:
    contribution = added_by(created(0), sold(4, sale_id="s2"), sold(2))
    first, second = facts_at(contribution, 2), facts_at(contribution, 4)
    assert (first["converted"], first["new_customers"]) == (1, 1)
    assert (first["cycle_ms"], first["cycle_count"]) == (2 * MINUTE, 1)
    assert first[fact_name(bucket_of(2 * MINUTE))] == 1
    assert second == {"sales": 1, "revenue_gross": 5}


def test_the_cohort_counts_everything_where_the_lead_was_created() -> None:
    contribution = added_by(created(0), sold(4, 9, sale_id="s2"), sold(2), refunded(3, 2))
    facts = facts_at(contribution, 0, COHORT)
    assert without(facts, "stage_entered.lead", "reached.mql.lead", "closed_from.lead") == {
        "leads_gross": 1,
        "leads": 1,
        "sales": 2,
        "new_customers": 1,
        "revenue_net": 12,
        "converted": 1,
        "converted_gross": 1,
        "converted_within": 1,
        "cycle_ms": 2 * MINUTE,
        "cycle_count": 1,
        fact_name(bucket_of(2 * MINUTE)): 1,
    }


@pytest.mark.parametrize("reversal", [cancelled(4), refunded(4, 5)])
def test_what_went_back_was_no_sale_to_the_cohort_but_one_in_the_period(
    reversal: SaleEvent,
) -> None:
    contribution = added_by(created(0), sold(2), reversal)
    cohort, period = total(contribution, COHORT), total(contribution)
    assert not cohort.keys() & {"sales", "new_customers", "revenue_net", "converted"}
    assert cohort["converted_gross"] == cohort["converted_within"] == 1
    assert (period["sales"], period["revenue_gross"], period["refunds"]) == (1, 5, 5)
    assert facts_at(contribution, 4)["refunds"] == 5


@pytest.mark.parametrize(("after_minutes", "is_within"), [(0, True), (1, False)])
def test_a_lead_converts_within_the_horizon_up_to_its_last_instant(
    after_minutes: int, is_within: bool
) -> None:
    last = HORIZON_MS // MINUTE
    facts = total(added_by(created(0), sold(last + after_minutes)), COHORT)
    assert facts.get("converted_within", 0) == int(is_within)


def test_a_sale_without_a_rate_counts_without_its_amount() -> None:
    contribution = added_by(created(0), sold(2, currency="JPY"), refunded(3, 2, currency="JPY"))
    sale = facts_at(contribution, 2)
    assert (sale["sales"], sale["fx_missing"]) == (1, 1)
    assert "revenue_gross" not in sale
    assert facts_at(contribution, 3) == {"fx_missing": 1}
    assert facts_at(contribution, 0, COHORT)["fx_missing"] == 1


def test_a_declared_kind_is_taken_at_its_word() -> None:
    contribution = added_by(created(0), sold(2, kind="repeat"), sold(4, kind="new", sale_id="s2"))
    assert "new_customers" not in facts_at(contribution, 2)
    assert facts_at(contribution, 4)["new_customers"] == 1


def test_a_sale_before_the_creation_has_no_cycle() -> None:
    facts = total(added_by(created(5), sold(2)))
    assert facts["converted"] == 1
    assert "cycle_count" not in facts


def test_a_sale_in_the_moment_of_creation_has_a_cycle_of_zero() -> None:
    facts = total(added_by(created(5), sold(5)))
    assert facts["cycle_count"] == facts[fact_name(0)] == 1
    assert "cycle_ms" not in facts


def test_a_sale_of_nothing_counts_as_a_sale() -> None:
    contribution = added_by(created(0), sold(2, amount=0))
    assert total(contribution)["sales"] == total(contribution, COHORT)["sales"] == 1
    assert "revenue_gross" not in total(contribution)


# ----------------------------------------------------------------------------- merged


def a_survivor(lead: Lead, *joined: Lead) -> Lead:
    for number, other in enumerate(joined):
        join(lead, f"joined-{number}", journey_of(other))
    return lead


def test_a_merged_lead_stops_counting_itself() -> None:
    assert added_by(created(0), moved(1, "mql"), sold(2), is_root=False) == {}


def test_the_latest_merger_counts_in_the_order_in_which_they_were_written() -> None:
    lead = a_lead(created(0), merged(1, "l", "a", written=9), merged(2, "l", "b", written=8))
    assert pointer(lead) == "a"
    assert pointer(a_lead(created(0))) is None
    assert pointer(a_lead(merged(1, "l", "a"))) is None


def test_a_survivor_counts_from_the_earliest_creation_on() -> None:
    survivor = a_survivor(
        a_lead(created(5, "seo", "c"), moved(7, "sql")),
        a_lead(created(3, "email", "d"), moved(6, "mql"), sold(9), invalidated(), disqualified(8)),
    )
    contribution = contribution_of(survivor)
    assert scope_of(survivor) == ("email", "d")
    assert facts_at(contribution, 3)["leads_gross"] == 1
    assert facts_at(contribution, 5) == {}
    assert facts_at(contribution, 6) == {"stage_entered.mql": 1}
    assert facts_at(contribution, 7) == {"stage_entered.sql": 1}
    assert facts_at(contribution, 9)["cycle_ms"] == 6 * MINUTE
    assert total(contribution, COHORT)["leads"] == 1
    assert "leads_disqualified" not in total(contribution)


def test_moves_join_without_a_sale() -> None:
    survivor = a_survivor(a_lead(created(0), moved(3, "lead")), a_lead(created(1), moved(2, "mql")))
    contribution = contribution_of(survivor)
    assert facts_at(contribution, 2) == {"stage_entered.mql": 1}
    assert facts_at(contribution, 3) == {"stage_regressed.lead": 1}
    assert current_stage(survivor) == "lead"


def test_a_later_creation_that_joins_changes_nothing() -> None:
    alone = a_lead(created(3, "email", "d"))
    assert contribution_of(a_survivor(alone, a_lead(created(5)))) == added_by(
        created(3, "email", "d")
    )


def test_a_survivor_keeps_its_own_updates() -> None:
    survivor = a_survivor(a_lead(created(5), updated(6, "google_ads")), a_lead(created(3, "email")))
    assert scope_of(survivor) == ("google_ads", "c")


def test_a_survivor_counts_by_the_click_that_the_earliest_creation_names() -> None:
    earlier = a_lead(created(3, None, click_id="k2"))
    attach_click(earlier, "k2", Attribution("email", "d"))
    survivor = a_survivor(a_lead(created(5, None, click_id="k1")), earlier)
    # Each lead asks for itself: the click may be forgotten when it is merged.
    assert wanted_click(survivor) == Wanted("k1", 0)
    assert scope_of(survivor) == ("email", "d")


def test_a_survivor_that_was_never_created_counts_by_what_joined_it() -> None:
    survivor = a_survivor(a_lead(sold(4)), a_lead(created(3, "email"), sold(5, sale_id="s2")))
    assert scope_of(survivor) == ("email", "c")
    assert total(contribution_of(survivor))["sales"] == 2
    join(survivor, "joined-0", None)
    assert total(contribution_of(survivor))["sales_unattributed"] == 1


def test_a_void_survivor_leaves_all_sales_unattributed() -> None:
    survivor = a_survivor(a_lead(created(0), invalidated(), sold(4)), a_lead(created(1), sold(5)))
    assert total(contribution_of(survivor)) == {
        "leads_gross": 1,
        "leads_voided": 1,
        "sales": 2,
        "sales_unattributed": 2,
        "revenue_gross": 10,
    }


def test_a_lead_that_was_not_created_has_nothing_to_bring_along() -> None:
    assert journey_of(a_lead(sold(1), moved(1, "mql"))) is None


# ----------------------------------------------------------------------------- parked


@pytest.mark.parametrize(("created_at_ms", "is_applied"), [(PARK_MS, True), (PARK_MS + 1, False)])
@pytest.mark.parametrize("is_created_first", [True, False])
def test_an_event_waits_for_its_lead_for_the_time_it_may_park(
    created_at_ms: int, is_applied: bool, is_created_first: bool
) -> None:
    #  event                        created
    #  0 ------- park.days ---------|
    lead = Lead()
    if is_created_first:
        create_lead(lead, created(), created_at_ms, PARK_MS)
    tell_lead(lead, waiting(invalidated()), PARK_MS)
    create_lead(lead, created(), created_at_ms, PARK_MS)
    assert lead.is_void is is_applied
    assert len(take_orphans(lead, created_at_ms + 1, PARK_MS)) == (not is_applied)


def test_an_event_is_no_orphan_before_everything_it_may_wait_for_was_read() -> None:
    lead = a_lead(invalidated())
    assert take_orphans(lead, PARK_MS, PARK_MS) == []
    assert len(take_orphans(lead, PARK_MS + 1, PARK_MS)) == 1
    assert take_orphans(lead, PARK_MS + 1, PARK_MS) == []


EACH_KIND: Sequence[LeadEvent] = (
    moved(1, "mql"),
    updated(1, "seo"),
    updated(1, None, "d"),
    invalidated(),
    disqualified(1),
    requalified(1),
    merged(1, "l", "m"),
)


@pytest.mark.parametrize("event", EACH_KIND)
def test_what_an_event_did_is_told(event: LeadEvent) -> None:
    lead = Lead()
    assert tell_lead(lead, waiting(event), PARK_MS) is Outcome.PARKED
    create_lead(lead, created(), 0, PARK_MS)
    assert lead.waiting == []
    assert tell_lead(lead, waiting(event), PARK_MS) is Outcome.DUPLICATE
    assert tell_lead(a_lead(created()), waiting(event), PARK_MS) is Outcome.ACCEPTED
