"""What the numbers of windows rest on beside their facts, as cost and targets are told."""

from kpis.catalog import Surroundings
from kpis.facts import COHORT, OVERALL, PERIOD, Subject
from streams.figures import Numbers
from tests.streams.merge_shard import BRAND, DAY, GOOGLE, META, NOON, MergeShard

HORIZON_DAYS = 30


def numbers(shard: MergeShard, subject: Subject, kind: str = "1d") -> Numbers:
    """Return the numbers of a window of the shard's figures."""
    return shard.merge._figures.numbers(subject, shard.window(kind), shard.until_ms)


def test_coverage_is_of_the_channels_that_have_facts_in_the_window() -> None:
    shard = MergeShard()
    shard.count({"cost": 10, "cost_records": 1})
    shard.count({"clicks": 1}, NOON - DAY, scope=META)
    whole = Subject(PERIOD, OVERALL)
    assert numbers(shard, whole).around[:2] == (1, 1)
    assert numbers(shard, whole, "1w").around[:2] == (2, 1)
    assert numbers(shard, Subject(PERIOD, GOOGLE), "1w").around[:2] == (1, 1)
    assert numbers(shard, Subject(PERIOD, META), "1w").around[:2] == (1, 0)


def test_cost_is_known_as_far_as_the_least_known_channel_of_the_window() -> None:
    shard = MergeShard()
    day_end = shard.window("1d").end_minute or 0
    week_end = shard.window("1w").end_minute or 0
    for scope in (BRAND, META):
        shard.count({"cost": 10, "cost_records": 1}, scope=scope)
    shard.report("google_ads", week_end)
    shard.report("meta_ads", day_end)
    whole, google = Subject(PERIOD, OVERALL), Subject(PERIOD, GOOGLE)
    assert numbers(shard, whole).around.cost_until_reached
    assert not numbers(shard, whole, "1w").around.cost_until_reached
    assert numbers(shard, google, "1w").around.cost_until_reached


def test_a_new_owner_knows_how_far_cost_is_known() -> None:
    shard = MergeShard()
    shard.count({"cost": 10, "cost_records": 1})
    shard.report("google_ads", NOON)
    shard.report("google_ads", NOON + 3 * DAY, 2)
    shard.report("google_ads", NOON + 3 * DAY, -2)
    for _ in range(2):
        assert not numbers(shard, Subject(PERIOD, BRAND)).around.cost_until_reached
        shard.restart()
    shard.report("google_ads", NOON, -1)
    shard.restart()
    assert numbers(shard, Subject(PERIOD, BRAND)).around.cost_until_reached


def test_what_is_remembered_gives_the_former_numbers_back() -> None:
    around = Surroundings(2, 1, 3, 5, 4, is_overall=True)
    then = Numbers({"leads": 6, "converted_within": 4}, around)
    now = Numbers({"leads": 7}, Surroundings(3, 3, 0, 7, 1, is_overall=True))
    assert now.former(then.remembered()) == then


def test_nothing_is_remembered_of_a_window_without_facts() -> None:
    assert Numbers({}, Surroundings(expected=2)).remembered() == {}


def test_what_is_known_around_a_window_is_told_from_its_facts() -> None:
    facts = {"leads": 6}
    ripe = Numbers(facts, Surroundings(2, 1, 3, 5, 4)).remembered()
    own = {name: number for name, number in ripe.items() if not name.startswith("~")}
    assert own == {"leads": 6, "mature": 5, "mature_converted": 4}


def test_leads_mature_day_by_day() -> None:
    shard = MergeShard()
    shard.count({"leads": 2, "converted_within": 1}, basis=COHORT)
    shard.count({"leads": 3, "converted_within": 2}, NOON - DAY, basis=COHORT)
    subject = Subject(COHORT, BRAND)
    day_end = shard.window("1d", NOON - DAY).end_minute or 0
    shard.until_ms = (day_end + HORIZON_DAYS * DAY) * 60_000
    assert numbers(shard, subject).around[3:5] == (0, 0)
    assert numbers(shard, subject, "1w").around[3:5] == (3, 2)
    assert numbers(shard, subject, "1h").around[3:5] == (0, 0)
    assert numbers(shard, Subject(PERIOD, BRAND), "1w").around[3:5] == (0, 0)
