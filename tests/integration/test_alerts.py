"""`leadpulse alerts` and `leadpulse alerts test` on a real broker: what fires, and what would have fired."""

import json
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from kpis.alert_records import alert_record, alert_value
from kpis.alert_rules import DEFAULTS
from kpis.alerts import FIRED, RESOLVED, Alert, Evidence, Finding
from kpis.calendar import MINUTE_MS
from kpis.facts import Scope
from kpis.spans import Window
from streams.clock import SystemClock
from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent
from tests.streams.break_story import HOUR, PARIS, PLAIN, BreakStory

pytestmark = pytest.mark.integration

STORY: Final = BreakStory(
    datetime(2026, 3, 18, 8, tzinfo=PARIS), until=datetime(2026, 3, 19, 12, tzinfo=PARIS)
)
PARIS_TIME: Final = {"LEADPULSE_TIME_ZONE": "Europe/Paris"}


def lines(deployment: Deployment, *asked: str, **settings: str) -> list[str]:
    """Return what `leadpulse alerts …` writes, and nothing else."""
    done = deployment.run("alerts", *asked, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def refusal(deployment: Deployment, *asked: str, **settings: str) -> str:
    done = deployment.run("alerts", *asked, **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.strip()


def local(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, PARIS).strftime("%Y-%m-%d %H:%M")


async def test_rule_on_past_hours_says_when_it_would_have_fired(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = await deploy(**PARIS_TIME)
    asked = ("test", "cpl_spike", "--from", "2026-03-18T06:00", "--to", "2026-03-19T00:00")
    assert refusal(deployment, *asked) == (
        "input topics: expected events, got none; is anything sent to them?"
    )
    await deployment.send(Sent(topic, value) for topic, value, _ in STORY.records())
    (tmp_path / "alerts.toml").write_text(PLAIN, encoding="utf-8")

    told = lines(deployment, *asked, LEADPULSE_ALERTS_RULES="alerts.toml")
    fired, resolved = STORY.foretold(STORY.broken_minute - 2 * HOUR, STORY.end_minute)
    assert told[0] == ("cpl_spike, 2026-03-18 06:00 to 2026-03-19 00:00 (Europe/Paris), 3 scopes")
    assert told[1] == "would have fired 3 times"
    heads = [line.partition("resolved ") for line in told if line.startswith("2026-")]
    places = ("all channels", "google_ads", "google_ads/brand-search")
    assert [head for head, _, _ in heads] == [
        f"{local(fired + 1)}  {place}  last_6h  " for place in places
    ]
    assert all(rest.startswith(local(resolved + 1)) for _, _, rest in heads)
    assert told[-1].startswith("With hindsight: ")

    assert refusal(deployment, *asked, "--scope", "google_ads/brand-serch") == (
        "--scope: expected one that there are numbers or targets of, got google_ads/brand-serch; "
        "did you mean google_ads/brand-search?"
    )
    later = ("test", "cpl_spike", "--from", "2026-03-20", "--to", "2026-03-21")
    assert refusal(deployment, *later).startswith(
        "input topics: expected something that happened from 2026-03-20T00:00:00+01:00 to "
        "2026-03-22T00:00:00+01:00, got nothing; the inputs tell of 2026-02-11T08:00:00+01:00 to "
    )


def an_alert(state: str, campaign_id: str, at_ms: int) -> Alert:
    minute = at_ms // MINUTE_MS
    finding = Finding(
        rule=DEFAULTS["leads_stopped"],
        scope=Scope("google_ads", campaign_id),
        minute=minute,
        window=Window("last_6h", minute - 6 * HOUR, minute),
        condition="fires",
        evidence=Evidence(cost=120_000_000, leads=0),
    )
    return Alert(
        id="0123456789abcdef",
        state=FIRED if state == FIRED else RESOLVED,
        finding=finding,
        at_ms=at_ms,
        since_ms=at_ms - 90 * MINUTE_MS,
        number=1,
    )


async def tell(deployment: Deployment, *alerts: Alert) -> None:
    """Write alerts to the topic as the worker does."""
    options = deployment.settings.kafka.client_options()
    async with AIOKafkaProducer(**options) as producer:
        for alert in alerts:
            record = alert_record(alert_value(alert, None, PARIS, "EUR"))
            await producer.send_and_wait(deployment.topics.alerts, record.value, record.key)


async def test_alerts_of_now_are_listed_firing_first(deploy: Deploy) -> None:
    deployment = await deploy(**PARIS_TIME)
    nothing, watching = lines(deployment)
    assert nothing == "no alert is firing, none was resolved in the last 24 hours"
    assert watching.startswith("6 rules watch: cpl_spike, ")

    now_ms = SystemClock().now_ms()
    fired = an_alert(FIRED, "firing", now_ms - MINUTE_MS)
    over = an_alert(RESOLVED, "over", now_ms - 2 * MINUTE_MS)
    long_ago = an_alert(RESOLVED, "long-ago", now_ms - 25 * HOUR * MINUTE_MS)
    was_firing = msgspec.structs.replace(over, state=FIRED)
    await tell(deployment, was_firing, over, long_ago, fired)

    told = lines(deployment)
    assert told[0] == "1 alert is firing, 1 was resolved in the last 24 hours"
    assert told[2].startswith("FIRING  leads_stopped  google_ads/firing  last_6h  since ")
    assert told[5].startswith("resolved  leads_stopped  google_ads/over  last_6h  ")
    assert len(told) == 7

    records = json.loads("".join(lines(deployment, "--json")))
    assert [one["scope"]["campaign_id"] for one in records] == ["firing", "over"]
    assert told[3] == f"  {records[0]['message_en']}"
    assert lines(deployment, LANG="fr_FR.UTF-8")[3] == f"  {records[0]['message_fr']}"


async def test_missing_topic_is_told_in_one_line(deploy: Deploy) -> None:
    deployment = await deploy(with_topics=False)
    assert refusal(deployment) == (
        f"topic {deployment.topics.alerts}: expected a topic, got none; "
        "run `leadpulse topics --create`"
    )
