"""Leads, sales and clicks: the set of their events decides, not the order in which they came."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.contributions import Contribution, Place, correction
from kpis.events import (
    ClickRecorded,
    Envelope,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
)
from kpis.facts import Facts, add
from kpis.journeys import (
    Click,
    Funnel,
    Lead,
    Outcome,
    Sale,
    SaleState,
    Waiting,
    attach_sale,
    click,
    click_contribution,
    create_lead,
    create_sale,
    lead_contribution,
    order_of,
    sale_contribution,
    state_for_lead,
    take_orphans,
    tell_lead,
    tell_sale,
)
from kpis.retention import Grain

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
PARK_MS = KEEP_MS = 7 * DAY
FUNNEL = Funnel()
STRICT = Funnel(imply_skipped=False)


def envelope(at: int, event_id: str = "e", content: object = None) -> Envelope:
    """Return the envelope of an event `at` minutes after 1970; other contents, other digests."""
    return Envelope(event_id, "s", at * MINUTE, None, f"{at}{event_id}{content}".encode())


def created(
    at: int = 0,
    channel: str | None = "seo",
    campaign_id: str | None = "c",
    initial_stage: str = "lead",
    event_id: str = "e",
) -> LeadCreated:
    told = envelope(at, event_id, (channel, campaign_id, initial_stage))
    return LeadCreated(told, "l", channel, campaign_id, None, None, initial_stage)


def moved(at: int, to_stage: str, event_id: str = "m") -> LeadStageChanged:
    return LeadStageChanged(envelope(at, event_id, to_stage), "l", to_stage, None, None)


def invalidated(at: int = 1) -> LeadInvalidated:
    return LeadInvalidated(envelope(at, "i"), "l", "spam")


def sold(
    at: int, amount: int = 5, kind: str | None = None, lead_id: str | None = "l"
) -> SaleCreated:
    told = envelope(at, "s", (amount, kind, lead_id))
    return SaleCreated(told, f"s{at}", lead_id, amount, kind, None)


def voided(at: int = 1) -> SaleVoided:
    return SaleVoided(envelope(at, "v"), "s", None)


Told = tuple[LeadCreated | LeadInvalidated | LeadStageChanged, int]


def lead_of(events: Sequence[Told], sales: Sequence[SaleCreated] = ()) -> Lead:
    """Return a lead after its events, each with its record's timestamp."""
    lead = Lead()
    for event, timestamp_ms in events:
        if isinstance(event, LeadCreated):
            create_lead(lead, event, timestamp_ms, PARK_MS)
        else:
            tell_lead(lead, Waiting(event, timestamp_ms, "t", 0, 0, b""), PARK_MS)
    for sale in sales:
        state = SaleState(order_of(sale.envelope), sale.amount_micros, sale.kind)
        attach_sale(lead, sale.sale_id, state)
    return lead


def a_lead(*events: LeadCreated | LeadInvalidated | LeadStageChanged | SaleCreated) -> Lead:
    told = [(event, 0) for event in events if not isinstance(event, SaleCreated)]
    return lead_of(told, [event for event in events if isinstance(event, SaleCreated)])


def facts_at(contribution: Contribution, at: int) -> Facts:
    """Return the facts of minute `at`, whatever the campaign."""
    facts: Facts = {}
    for place, part in contribution.items():
        if place.grain is Grain.MINUTE and place.bucket == at:
            add(facts, part)
    return facts


def total(contribution: Contribution) -> Facts:
    facts: Facts = {}
    for part in contribution.values():
        add(facts, part)
    return facts


def sound(contribution: Contribution) -> Contribution:
    return {place: facts for place, facts in contribution.items() if facts}


# ----------------------------------------------------------------------------- order

STAGES = st.sampled_from(FUNNEL.stages)
TIMESTAMPS = st.sampled_from((0, 1, 6 * DAY, 7 * DAY, 8 * DAY, 15 * DAY))
LEAD_EVENTS = st.one_of(
    st.builds(
        created,
        st.integers(0, 3),
        st.sampled_from((None, "seo", "google_ads")),
        st.sampled_from((None, "c")),
        STAGES,
        st.sampled_from("ab"),
    ),
    st.builds(moved, st.integers(0, 4), STAGES),
    st.builds(moved, st.integers(0, 4), STAGES),
    st.builds(invalidated),
)
SALES = st.lists(
    st.builds(sold, st.integers(0, 5), st.integers(0, 9), st.sampled_from((None, "new", "repeat"))),
    max_size=3,
    unique_by=lambda sale: sale.sale_id,
)


@given(st.lists(st.tuples(LEAD_EVENTS, TIMESTAMPS), max_size=4), SALES)
@settings(max_examples=150)
def test_any_order_of_a_leads_events_adds_the_same(
    events: list[Told], sales: list[SaleCreated]
) -> None:
    expected = lead_contribution(lead_of(events, sales), FUNNEL)
    for order in permutations(events):
        assert lead_contribution(lead_of(order, sales[::-1]), FUNNEL) == expected


@given(st.lists(st.tuples(LEAD_EVENTS, TIMESTAMPS), max_size=5), SALES)
@settings(max_examples=100)
def test_a_leads_events_twice_add_the_same(events: list[Told], sales: list[SaleCreated]) -> None:
    once, twice = lead_of(events, sales), lead_of([*events, *events], [*sales, *sales])
    assert lead_contribution(twice, FUNNEL) == lead_contribution(once, FUNNEL)


@given(st.lists(st.tuples(LEAD_EVENTS, TIMESTAMPS), max_size=5), SALES)
@settings(max_examples=100)
def test_corrections_step_by_step_come_to_the_whole(
    events: list[Told], sales: list[SaleCreated]
) -> None:
    sums: Contribution = {}
    old: Contribution = {}
    for step in range(len(events) + len(sales) + 1):
        new = lead_contribution(lead_of(events[:step], sales[: max(0, step - len(events))]), FUNNEL)
        for place, facts in correction(new, old).items():
            add(sums.setdefault(place, {}), facts)
        old = new
    assert sound(sums) == sound(old)


@given(st.lists(st.tuples(LEAD_EVENTS, TIMESTAMPS), max_size=5))
def test_a_lead_travels_through_its_table_unchanged(events: list[Told]) -> None:
    lead = lead_of(events, [sold(1)])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(lead), type=Lead) == lead


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.builds(
                    sold, st.integers(0, 2), st.integers(0, 2), lead_id=st.sampled_from((None, "l"))
                ),
                st.builds(voided),
            ),
            TIMESTAMPS,
        ),
        max_size=4,
    )
)
def test_any_order_of_a_sales_events_tells_its_lead_the_same(
    events: list[tuple[SaleCreated | SaleVoided, int]],
) -> None:
    sales = [sale_of(order) for order in permutations(events)]
    assert all(state_for_lead(sale) == state_for_lead(sales[0]) for sale in sales)
    assert all(sale_contribution(sale) == sale_contribution(sales[0]) for sale in sales)


def sale_of(events: Sequence[tuple[SaleCreated | SaleVoided, int]]) -> Sale:
    sale = Sale()
    for event, timestamp_ms in events:
        if isinstance(event, SaleCreated):
            create_sale(sale, event, timestamp_ms, PARK_MS)
        else:
            tell_sale(sale, Waiting(event, timestamp_ms, "t", 0, 0, b""), PARK_MS)
    return sale


# ----------------------------------------------------------------------------- leads and stages


def test_a_lead_counts_where_it_was_created() -> None:
    contribution = lead_contribution(a_lead(created(3)), FUNNEL)
    place = Place("seo", "c", Grain.MINUTE, 3)
    assert contribution[place] == {"leads_gross": 1, "stage_entered.lead": 1}
    assert contribution[Place("seo", "c", Grain.LIFETIME, 0)] == {"stage_current.lead": 1}


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
    contribution = lead_contribution(a_lead(created(0, channel, campaign_id)), FUNNEL)
    assert {(place.channel, place.campaign_id) for place in contribution} == {expected}


def test_the_first_created_counts_and_another_is_a_conflict() -> None:
    lead = Lead()
    assert create_lead(lead, created(5, "seo"), 0, PARK_MS) is Outcome.ACCEPTED
    assert create_lead(lead, created(5, "seo"), 0, PARK_MS) is Outcome.DUPLICATE
    assert create_lead(lead, created(4, "email"), 0, PARK_MS) is Outcome.CONFLICT
    assert lead.created == created(4, "email")


def test_a_void_lead_counts_as_gross_and_voided_only() -> None:
    lead = a_lead(created(0), moved(2, "sql"), invalidated(3))
    assert lead_contribution(lead, FUNNEL) == {
        Place("seo", "c", Grain.MINUTE, 0): {"leads_gross": 1, "leads_voided": 1}
    }


def test_sales_of_a_void_lead_stay_as_those_of_a_missing_one() -> None:
    void, missing = a_lead(created(0), invalidated(), sold(2)), a_lead(sold(2))
    place = Place("unattributed", "-", Grain.MINUTE, 2)
    expected = {"sales": 1, "sales_unattributed": 1, "revenue_gross": 5}
    assert lead_contribution(missing, FUNNEL)[place] == expected
    assert lead_contribution(void, FUNNEL)[place] == expected


def test_a_skipped_stage_is_entered_and_implied() -> None:
    contribution = lead_contribution(a_lead(created(0), moved(2, "sql"), moved(3, "mql")), FUNNEL)
    assert facts_at(contribution, 2) == {
        "stage_entered.mql": 1,
        "stage_implied.mql": 1,
        "stage_entered.sql": 1,
    }
    assert facts_at(contribution, 3) == {"stage_regressed.mql": 1}


def test_strictly_only_a_move_to_the_stage_itself_counts() -> None:
    contribution = lead_contribution(a_lead(created(0), moved(2, "sql"), moved(3, "mql")), STRICT)
    assert facts_at(contribution, 2) == {"stage_entered.sql": 1}
    assert facts_at(contribution, 3) == {"stage_entered.mql": 1, "stage_regressed.mql": 1}


def test_a_stage_is_entered_once() -> None:
    lead = a_lead(created(0), moved(1, "mql"), moved(2, "lead"), moved(3, "mql"))
    assert total(lead_contribution(lead, FUNNEL))["stage_entered.mql"] == 1


def test_stages_below_the_initial_one_are_not_entered() -> None:
    facts = total(lead_contribution(a_lead(created(0, initial_stage="sql")), FUNNEL))
    assert facts == {"leads_gross": 1, "stage_entered.sql": 1, "stage_current.sql": 1}


def test_a_move_before_the_creation_comes_after_it() -> None:
    facts = total(lead_contribution(a_lead(created(5), moved(1, "mql")), FUNNEL))
    assert facts["stage_current.mql"] == 1
    assert "stage_regressed.lead" not in facts


def test_a_sale_moves_its_lead_to_customer() -> None:
    facts = facts_at(lead_contribution(a_lead(created(0), sold(2)), FUNNEL), 2)
    assert facts["stage_entered.customer"] == facts["stage_implied.sql"] == 1
    assert "stage_implied.customer" not in facts


# ----------------------------------------------------------------------------- sales


def test_the_first_sale_converts_and_is_new_and_the_second_is_repeat() -> None:
    contribution = lead_contribution(a_lead(created(0), sold(4), sold(2)), FUNNEL)
    first, second = facts_at(contribution, 2), facts_at(contribution, 4)
    assert (first["converted"], first["new_customers"]) == (1, 1)
    assert (first["cycle_ms"], first["cycle_count"]) == (2 * MINUTE, 1)
    assert second == {"sales": 1, "revenue_gross": 5}


def test_a_declared_kind_is_taken_at_its_word() -> None:
    contribution = lead_contribution(
        a_lead(created(0), sold(2, kind="repeat"), sold(4, kind="new")), FUNNEL
    )
    assert "new_customers" not in facts_at(contribution, 2)
    assert facts_at(contribution, 4)["new_customers"] == 1


def test_a_sale_before_the_creation_has_no_cycle() -> None:
    facts = total(lead_contribution(a_lead(created(5), sold(2)), FUNNEL))
    assert facts["converted"] == 1
    assert "cycle_count" not in facts


def test_a_sale_in_the_moment_of_creation_has_a_cycle_of_zero() -> None:
    facts = total(lead_contribution(a_lead(created(5), sold(5)), FUNNEL))
    assert facts["cycle_count"] == 1
    assert "cycle_ms" not in facts


def test_a_sale_of_nothing_counts_as_a_sale() -> None:
    facts = total(lead_contribution(a_lead(created(0), sold(2, amount=0)), FUNNEL))
    assert facts["sales"] == 1
    assert "revenue_gross" not in facts


def test_a_sale_without_a_lead_counts_itself_and_one_with_a_lead_does_not() -> None:
    alone, known = sale_of([(sold(1, lead_id=None), 0)]), sale_of([(sold(1), 0)])
    assert total(sale_contribution(alone)) == {
        "sales": 1,
        "sales_unattributed": 1,
        "revenue_gross": 5,
    }
    assert sale_contribution(known) == {}


def test_created_then_voided_was_never_there() -> None:
    sale = sale_of([(sold(1), 0), (voided(), 0)])
    assert state_for_lead(sale) is None
    with_it, without_it = a_lead(created(0), sold(1)), a_lead(created(0))
    attach_sale(with_it, "s1", None)
    assert lead_contribution(with_it, FUNNEL) == lead_contribution(without_it, FUNNEL)


# ----------------------------------------------------------------------------- parked


@pytest.mark.parametrize(("created_at_ms", "is_applied"), [(PARK_MS, True), (PARK_MS + 1, False)])
@pytest.mark.parametrize("is_created_first", [True, False])
def test_an_event_waits_for_its_lead_for_the_time_it_may_park(
    created_at_ms: int, is_applied: bool, is_created_first: bool
) -> None:
    #  event                        created
    #  0 ------- park.days ---------|
    events: list[Told] = [(created(), created_at_ms), (invalidated(), 0)]
    lead = lead_of(events if is_created_first else events[::-1])
    assert lead.is_void is is_applied
    assert len(take_orphans(lead, created_at_ms + 1, PARK_MS)) == (not is_applied)


def test_an_event_is_no_orphan_before_everything_it_may_wait_for_was_read() -> None:
    lead = lead_of([(invalidated(), 0)])
    assert take_orphans(lead, PARK_MS, PARK_MS) == []
    assert len(take_orphans(lead, PARK_MS + 1, PARK_MS)) == 1
    assert take_orphans(lead, PARK_MS + 1, PARK_MS) == []


def test_what_an_event_did_is_told() -> None:
    lead, told = Lead(), Waiting(moved(1, "mql"), 0, "t", 0, 0, b"")
    assert tell_lead(lead, told, PARK_MS) is Outcome.PARKED
    create_lead(lead, created(), 0, PARK_MS)
    assert lead.waiting == []
    assert tell_lead(lead, told, PARK_MS) is Outcome.DUPLICATE
    void = Waiting(invalidated(), 0, "t", 0, 0, b"")
    assert tell_lead(lead, void, PARK_MS) is Outcome.ACCEPTED


def test_what_an_event_did_to_a_sale_is_told() -> None:
    sale, told = Sale(), Waiting(voided(), 0, "t", 0, 0, b"")
    assert tell_sale(sale, told, PARK_MS) is Outcome.PARKED
    assert create_sale(sale, sold(0), 0, PARK_MS) is Outcome.ACCEPTED
    assert sale.is_void
    assert tell_sale(sale, told, PARK_MS) is Outcome.DUPLICATE


# ----------------------------------------------------------------------------- clicks


def clicked(at: int, channel: str = "seo", **other: Any) -> ClickRecorded:
    return ClickRecorded(
        envelope(at, content=channel), "k", channel, "c", other.get("is_bot", False)
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, KEEP_MS - 1)), min_size=1, max_size=4))
def test_clicks_while_the_id_is_remembered_are_the_first_of_them(
    clicks: list[tuple[int, int]],
) -> None:
    for order in permutations(clicks):
        known = None
        for at, timestamp_ms in order:
            known, _ = click(known, clicked(at), timestamp_ms, KEEP_MS)
        assert known == Click(clicked(min(at for at, _ in clicks)), min(when for _, when in clicks))


@pytest.mark.parametrize(
    ("after_ms", "expected"), [(KEEP_MS - 1, Outcome.DUPLICATE), (KEEP_MS, Outcome.ACCEPTED)]
)
def test_a_click_counts_again_when_its_id_is_forgotten(after_ms: int, expected: Outcome) -> None:
    known, _ = click(None, clicked(1), 0, KEEP_MS)
    later, outcome = click(known, clicked(1), after_ms, KEEP_MS)
    assert outcome is expected
    assert later.timestamp_ms == (after_ms if expected is Outcome.ACCEPTED else 0)


def test_another_click_with_the_same_id_is_a_conflict() -> None:
    known, _ = click(None, clicked(1), 0, KEEP_MS)
    assert click(known, clicked(1, "email"), 0, KEEP_MS)[1] is Outcome.CONFLICT


def test_a_bots_click_counts_as_invalid_only() -> None:
    bot, _ = click(None, clicked(1, is_bot=True), 0, KEEP_MS)
    assert total(click_contribution(bot)) == {"invalid_clicks": 1}
    assert click_contribution(None) == {}
