"""The alerts of a merge stage: when it looks, what it tells once, and what a restart leaves of it."""

import json
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from kpis.alert_rules import CPL_SPIKE, LEADS_STOPPED, PACING_BEHIND, Rule
from kpis.alerts import Standing
from kpis.calendar import HOUR_MINUTES, MINUTE_MS
from kpis.contributions import Contribution, Place
from kpis.decomposition import CampaignTold
from kpis.facts import OVERALL, PERIOD, Facts, Scope
from kpis.money import MICROS
from kpis.retention import Grain
from kpis.targets import Target
from streams import alerting
from streams.alerting import LATELY_MS, MOST_NOTICES, _row_key
from streams.messages import CampaignsTold, decode_merge_item
from streams.settings import Settings, load
from tests.streams.merge_shard import BRAND, GOOGLE, META, NOON, SETTINGS, MergeShard

SPIKE: Final = Rule(name=CPL_SPIKE, kind=CPL_SPIKE, windows=("last_1h",))
OTHER_RULE: Final = Rule(name="other", kind=LEADS_STOPPED, channels=("seo",), levels=("channel",))
PACE: Final = Rule(
    name=PACING_BEHIND,
    kind=PACING_BEHIND,
    windows=("1mo",),
    levels=("campaign",),
    ratio=0.8,
    resolve_ratio=0.9,
    elapsed=0.0,
    cooldown_minutes=5,
)
KEY: Final = "cpl_spike|google_ads|brand"
WEEK_MINUTES: Final = 7 * 24 * HOUR_MINUTES
WEBHOOK: Final = load(
    {
        "LEADPULSE_CONFIG": "",
        "LEADPULSE_ALERTS_WEBHOOK_URL": "https://example.com/hook",
        "LEADPULSE_ALERTS_WEBHOOK_SECRET": "a secret of many characters",
    }
)


def spent(amount: int, leads: int = 0) -> Facts:
    """Return the facts of spend and leads."""
    facts = {"cost": amount * MICROS, "cost_records": 1, "clicks": amount}
    return facts | {"leads_gross": leads} if leads else facts


def history(*scopes: Scope) -> Contribution:
    """Return four weeks of a CPL of 20, in the hours about noon: 100 spent and 5 leads in each."""
    return {
        Place(PERIOD, str(channel), str(campaign_id), Grain.MINUTE, NOON - back): spent(100, 5)
        for channel, campaign_id in scopes
        for week in range(1, 5)
        for back in range(
            week * WEEK_MINUTES - 8 * HOUR_MINUTES,
            week * WEEK_MINUTES + 8 * HOUR_MINUTES,
            HOUR_MINUTES,
        )
    }


class Watched(MergeShard):
    """A shard with four weeks behind it, whose minutes pass one by one."""

    def __init__(
        self,
        *rules: Rule,
        settings: Settings = SETTINGS,
        shard: int = 0,
        partitions: int = 1,
        scopes: tuple[Scope, ...] = (BRAND,),
    ) -> None:
        super().__init__(settings, rules=rules or (SPIKE,), shard=shard, partitions=partitions)
        # This minute passes before the first that is looked at.
        self.tell_all(history(*scopes))

    def minute(self, minutes: int = 1) -> None:
        """Let minutes pass, all of whose events are counted."""
        for _ in range(minutes):
            now_ms = self.clock.now_ms()
            self.clock.advance(timedelta(milliseconds=MINUTE_MS - now_ms % MINUTE_MS))
            self.complete(self.clock.now_ms())

    def spike(self, scope: Scope = BRAND, amount: int = 400) -> None:
        """Spend without leads."""
        self.count(spent(amount), self.clock.now_ms() // MINUTE_MS, scope)

    def recover(self, scope: Scope = BRAND) -> None:
        """Let as many leads come as are usual."""
        self.count({"leads_gross": 25}, self.clock.now_ms() // MINUTE_MS, scope)

    def told(self, key: str = KEY) -> list[dict[str, Any]]:
        """Return the values of the records of a key."""
        return [
            json.loads(value) for k, value in self.alerts if k.decode() == key and value is not None
        ]

    def states(self, key: str = KEY) -> list[str]:
        """Return the states of the records of a key."""
        return [told["state"] for told in self.told(key)]

    def shown_states(self) -> list[str | None]:
        """Return the state of each alert that was shown last."""
        return [
            None if view.value is None else json.loads(view.value)["state"]
            for view in self.shown.values()
        ]


# ----------------------------------------------------------------------------- when it fires


def test_spend_without_leads_fires_with_the_second_minute_for_each_scope() -> None:
    shard = Watched()
    shard.spike()
    shard.minute()
    assert shard.alerts == []

    shard.minute()

    keys = [KEY, "cpl_spike|_all|_all", "cpl_spike|google_ads|_all"]
    assert sorted(key.decode() for key, _ in shard.alerts) == sorted(keys)
    (told,) = shard.told()
    assert (told["state"], told["rule"], told["window"]["kind"]) == ("fired", CPL_SPIKE, "last_1h")
    assert told["scope"] == {"channel": "google_ads", "campaign_id": "brand"}
    assert told["evidence"]["cost"] == "400.000000"
    assert told["evidence"]["leads"] == 0
    assert told["evidence"]["baseline"] == 20.0
    assert told["evidence"]["baseline_kind"] == "same_hours"


def test_what_fires_is_told_once_however_long_it_lasts() -> None:
    shard = Watched()
    shard.spike()

    shard.minute(20)

    assert shard.states() == ["fired"]


def test_a_usual_cpl_fires_nothing() -> None:
    shard = Watched()
    shard.spike()
    shard.recover()

    shard.minute(5)

    assert shard.alerts == []


def test_the_alert_resolves_when_leads_come_again_and_does_not_fire_at_once() -> None:
    shard = Watched()
    shard.spike()
    shard.minute(2)
    shard.recover()

    shard.minute(3)
    assert shard.states() == ["fired", "resolved"]
    shard.spike(amount=2000)
    shard.minute(5)

    assert shard.states() == ["fired", "resolved"]
    assert len({told["id"] for told in shard.told()}) == 2
    assert len({told["since"] for told in shard.told()}) == 1


def test_nothing_is_judged_while_much_is_still_to_be_counted() -> None:
    shard = Watched()
    shard.spike()
    shard.minute()
    behind_ms = shard.clock.now_ms() - 10_000

    for _ in range(5):
        shard.clock.advance(timedelta(minutes=1, milliseconds=2 * MINUTE_MS + 1))
        shard.complete(behind_ms)
        behind_ms += MINUTE_MS

    assert shard.alerts == []
    shard.minute(2)
    assert shard.states() == ["fired"]


def test_nothing_is_judged_before_it_is_known_what_is_complete() -> None:
    shard = Watched()
    shard.until_ms = None
    shard.restart()
    shard.merge._marks.clear()
    shard.spike()

    shard.advance(minutes=3)
    assert shard.merge.complete_until_ms is None
    assert shard.alerts == []

    shard.minute(2)
    assert shard.states() == ["fired"]


def test_rules_that_look_at_something_else_find_nothing() -> None:
    shard = Watched(
        Rule(name=CPL_SPIKE, kind=CPL_SPIKE, channels=("meta_ads",), levels=("channel",))
    )
    shard.spike()

    shard.minute(3)

    assert shard.alerts == []


def test_without_rules_nothing_is_looked_at() -> None:
    shard = Watched(Rule(name=CPL_SPIKE, kind=CPL_SPIKE, enabled=False))
    shard.spike()

    shard.minute(3)

    assert shard.alerts == []


def test_a_target_fires_again_after_the_cooldown_though_its_month_has_not_ended() -> None:
    shard = Watched(PACE)
    shard.count({"leads_gross": 5})
    month = shard.window("1mo")

    def aim(leads: int) -> None:
        ends = (month.start_minute or 0, month.end_minute or 0)
        shard.aim(BRAND, Target("leads", "month", *ends, leads * MICROS))

    key = "pacing_behind|google_ads|brand"
    aim(10_000)
    shard.minute(3)
    assert shard.states(key) == ["fired"]
    aim(1)
    shard.minute(3)
    assert shard.states(key) == ["fired", "resolved"]
    aim(10_000)
    shard.minute(3)
    assert shard.states(key) == ["fired", "resolved"]

    shard.minute(5)

    assert shard.states(key) == ["fired", "resolved", "fired"]


def test_a_round_that_takes_many_minutes_counts_its_evaluations_as_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = tuple(Scope("google_ads", f"c{number}") for number in range(12))
    shard = Watched(scopes=(BRAND, *others))
    shard.spike()
    # So that each flush looks at one scope.
    monkeypatch.setattr(alerting, "EVALUATION_SECONDS", -1.0)

    for _ in range(25):
        now_ms = shard.clock.now_ms()
        shard.clock.advance(timedelta(milliseconds=MINUTE_MS - now_ms % MINUTE_MS))
        shard.until_ms = shard.clock.now_ms()
        shard.apply()
        for _ in range(2):
            shard.clock.advance(timedelta(seconds=1))
            shard.commit()

    assert shard.states() == ["fired"]


# ----------------------------------------------------------------------------- once only


def test_a_restart_between_two_minutes_neither_loses_nor_doubles_an_alert() -> None:
    shard = Watched()
    shard.spike()
    shard.minute()
    shard.restart()
    # The minute that was looked at before is not looked at again.
    shard.complete(shard.clock.now_ms())
    assert shard.alerts == []

    shard.minute()
    assert shard.states() == ["fired"]
    shard.restart()
    shard.minute(3)

    assert shard.states() == ["fired"]
    shard.recover()
    shard.restart()
    shard.minute(3)
    assert shard.states() == ["fired", "resolved"]


def test_an_alert_that_was_not_committed_is_told_by_the_next_owner_with_the_same_id() -> None:
    shard = Watched()
    shard.spike()
    shard.minute()
    committed = {topic: dict(rows) for topic, rows in shard.changelogs.items()}
    shard.minute()
    (lost,) = shard.told()

    shard.changelogs.clear()
    shard.changelogs.update(committed)
    shard.alerts.clear()
    shard.restart()
    shard.minute(1)

    (told,) = shard.told()
    assert told["state"] == "fired"
    assert (told["id"], told["since"]) == (lost["id"], lost["since"])


def test_a_new_owner_shows_again_what_fires_and_counts_it_not_again() -> None:
    shard = Watched()
    shard.spike()
    shard.minute(2)
    assert sorted(map(str, shard.shown_states())) == ["fired"] * 3

    shard.restart()
    shard.complete(shard.clock.now_ms())

    assert sorted(map(str, shard.shown_states())) == ["fired"] * 3
    assert shard.tally.take()._alerts == {}


def test_what_fired_and_resolved_is_counted_by_rule() -> None:
    shard = Watched()
    shard.spike()
    shard.minute(2)
    shard.recover()
    shard.minute(3)

    counted = shard.tally.take()._alerts
    assert counted == {(CPL_SPIKE, "fired"): 3, (CPL_SPIKE, "resolved"): 3}


# ----------------------------------------------------------------------------- what ages


def rows(shard: MergeShard) -> list[bytes]:
    """Return the keys of the rows of alerts that are committed."""
    return [key for key in shard.changelogs["leadpulse-windows-changelog"] if b"alert" in key]


def test_a_resolved_alert_is_shown_for_a_day_and_leaves_no_row() -> None:
    shard = Watched()
    shard.spike()
    shard.minute(2)
    shard.recover()
    shard.minute(3)
    shard.restart()
    shard.minute()
    assert shard.shown_states() == ["resolved"] * 3

    shard.clock.advance(timedelta(milliseconds=LATELY_MS))
    shard.minute()

    assert shard.shown_states() == [None] * 3
    # A window of 24 hours that begins with an hour may still reach back before its end.
    assert len(rows(shard)) == 3
    shard.clock.advance(timedelta(hours=1))
    shard.minute()
    shard.restart()
    shard.minute()
    assert shard.shown == {}
    assert rows(shard) == []


def test_a_rule_that_is_gone_leaves_no_row_of_what_did_not_fire() -> None:
    shard = Watched(msgspec.structs.replace(SPIKE, evaluations=60))
    shard.spike()
    shard.minute(3)
    assert len(rows(shard)) == 3

    shard.rules = (OTHER_RULE,)
    shard.restart()
    shard.minute(2)

    assert shard.alerts == []
    assert rows(shard) == []


def test_a_rule_that_is_gone_is_forgotten_though_it_was_about_to_fire_again() -> None:
    shard = Watched(OTHER_RULE)
    now_ms = shard.clock.now_ms()
    standing = Standing(streak=1, streak_ms=now_ms, resolved_ms=now_ms)
    row = msgspec.msgpack.encode((standing, None))
    shard.tables["windows"].put(_row_key(BRAND, "gone"), row)
    shard.commit()
    shard.restart()
    shard.minute()
    assert len(rows(shard)) == 1

    shard.clock.advance(timedelta(hours=25))
    shard.minute()

    assert rows(shard) == []


@pytest.mark.parametrize(
    "left",
    [(OTHER_RULE,), (msgspec.structs.replace(SPIKE, enabled=False),)],
    ids=["another", "switched off"],
)
def test_an_alert_whose_rule_is_gone_resolves_after_the_restart(left: tuple[Rule, ...]) -> None:
    shard = Watched()
    shard.spike()
    shard.minute(2)

    shard.rules = left
    shard.restart()
    shard.minute(2)

    assert shard.states() == ["fired", "resolved"]
    resolved = shard.told()[-1]
    assert resolved["scope"] == {"channel": "google_ads", "campaign_id": "brand"}
    assert resolved["message_en"]
    assert shard.shown_states() == ["resolved"] * 3


# ----------------------------------------------------------------------------- webhook


def test_notices_wait_until_they_were_delivered() -> None:
    shard = Watched(settings=WEBHOOK)
    shard.spike()
    shard.minute(2)
    offered = shard.notices
    assert {notice.key for notice in offered} == {key.decode() for key, _ in shard.alerts}
    assert [notice.body for notice in offered] == [value for _, value in shard.alerts]
    first, *others = offered

    shard.merge.delivered(first.id)
    shard.publish()
    shard.restart()
    shard.publish()

    assert shard.notices == others
    for notice in others:
        shard.merge.delivered(notice.id)
    shard.publish()
    shard.restart()
    shard.publish()
    assert shard.notices == []


def test_what_was_delivered_twice_or_is_unknown_is_no_trouble() -> None:
    shard = Watched(settings=WEBHOOK)
    shard.spike()
    shard.minute(2)

    for notice_id in (shard.notices[0].id, shard.notices[0].id, "unknown"):
        shard.merge.delivered(notice_id)
        shard.publish()

    shard.restart()
    shard.publish()
    assert len(shard.notices) == 2


def test_without_a_webhook_no_notices_are_kept_also_not_those_of_before() -> None:
    shard = Watched(settings=WEBHOOK)
    shard.spike()
    shard.minute(2)
    assert len(shard.notices) == 3

    shard.settings = SETTINGS
    shard.restart()
    shard.minute()
    assert shard.notices == []
    shard.settings = WEBHOOK
    shard.restart()
    shard.minute()

    assert shard.notices == []


def test_what_was_delivered_before_the_last_commit_is_noted_in_it() -> None:
    shard = Watched(settings=WEBHOOK)
    shard.spike()
    shard.minute(2)
    first = shard.notices[0]
    shard.apply()
    shard.commit()

    shard.merge.delivered(first.id)
    assert not shard.merge.is_due(), "it has just published"
    shard.commit()

    shard.restart()
    shard.publish()
    assert first.id not in [notice.id for notice in shard.notices]
    assert len(shard.notices) == 2


def test_only_so_many_notices_wait(caplog: pytest.LogCaptureFixture) -> None:
    shard = Watched(settings=WEBHOOK)
    watching = shard.merge._alerting
    shard.spike()
    shard.minute(2)
    (first, second, third) = shard.notices

    for number in range(MOST_NOTICES - 1):
        watching._note(third._replace(id=f"n{number}"))
    shard.minute()

    waiting = [notice.id for notice in shard.notices]
    assert len(waiting) == MOST_NOTICES
    assert first.id not in waiting
    assert second.id not in waiting
    assert third.id in waiting
    assert f"id={first.id}" in caplog.text
    shard.restart()
    shard.publish()
    assert [notice.id for notice in shard.notices] == waiting


# ----------------------------------------------------------------------------- campaigns of others


def campaigns(shard: MergeShard) -> list[CampaignTold]:
    """Return what a shard told others of its campaigns."""
    items = [decode_merge_item(raw) for envelope in shard.sent for raw in envelope.items]
    return [each for item in items if isinstance(item, CampaignsTold) for each in item.campaigns]


def test_a_shard_tells_where_channels_are_which_campaigns_spent_above_their_usual() -> None:
    shard = Watched(shard=1, partitions=2)
    shard.minute()
    assert shard.sent == []

    shard.spike()
    shard.minute()

    told = {one.window: one for one in campaigns(shard)}
    assert len(told) == len(campaigns(shard))
    assert {(one.channel, one.campaign_id) for one in told.values()} == {BRAND}
    assert (told["last_1h"].cost, told["last_1h"].leads) == (400 * MICROS, 0)
    assert {envelope.marks for envelope in shard.sent} == {()}


def test_the_alert_of_the_whole_names_campaigns_of_other_shards() -> None:
    other = Watched(shard=1, partitions=2, scopes=(META,))
    other.spike(META, amount=500)
    other.minute()
    (told,) = [raw for envelope in other.sent for raw in envelope.items]
    shard = Watched(shard=0, partitions=2, scopes=(BRAND, META))
    shard.spike(META, amount=500)
    shard.tell(decode_merge_item(told))

    shard.minute(2)

    (fired,) = shard.told("cpl_spike|meta_ads|_all")
    named = fired["explanation"]["campaigns"]
    assert ("meta_ads", "m") in {(one["channel"], one["campaign_id"]) for one in named}


def test_what_others_told_of_their_campaigns_is_forgotten() -> None:
    shard = Watched()
    item = CampaignsTold(3, ())
    shard.tell(item)
    shard.minute(4)
    assert 3 in shard.merge._alerting._told

    shard.minute(3)

    assert 3 not in shard.merge._alerting._told


def test_campaigns_told_are_no_sign_of_how_far_others_have_got() -> None:
    shard = Watched(shard=0, partitions=2)
    before = dict(shard.merge._marks)

    shard.tell(CampaignsTold(1, ()))

    assert shard.merge._marks.keys() == before.keys()
    assert len(before) == 4


# ----------------------------------------------------------------------------- scopes of others


def test_the_whole_and_channels_are_looked_at_only_where_they_are() -> None:
    shard = Watched(scopes=(BRAND, META))
    shard.spike()
    shard.spike(META)

    shard.minute(2)

    scopes = {tuple(told["scope"].values()) for told in map(json.loads, _values(shard))}
    assert scopes == {BRAND, META, GOOGLE, Scope("meta_ads", None), OVERALL}


def _values(shard: MergeShard) -> list[bytes]:
    return [value for _, value in shard.alerts if value is not None]
