"""Bad input through a real broker: each record is on leadgen.rejects.v1 once, and no good one is lost."""

import base64
import hashlib
import json
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from kpis.events import TOPICS
from streams.simulate import Plan, mix_of, schedule
from tests.integration.conftest import Deploy
from tests.integration.running import Place, Sent, event, fetch, sample, series, until
from tests.kpis.records import NOON, TOPIC_OF, a_record
from tests.kpis.test_faults import FAULTS

pytestmark = pytest.mark.integration

PERSONAL: Final = "anna@example.org"
ROUND: Final = a_record("lead.created")[:-1]
MALFORMED: Final = {
    "empty": b"",
    "blank": b" ",
    "not UTF-8": b"\xff",
    "not JSON": b"not json",
    "truncated": ROUND,
    "no object": b"[]",
    "duplicate keys": ROUND + b',"lead_id":"l-2"}',
    "NaN": ROUND + b',"x":NaN}',
    "Infinity": ROUND + b',"x":-Infinity}',
    "deep": ROUND + b',"x":' + b"[" * 32 + b"]" * 32 + b"}",
    "very deep": b"[" * 200_000,
}
MAY_BE_NULL: Final = ("costs", "targets", "fx-rates")
TOO_LARGE: Final = a_record("lead.created") + b" " * (256 << 10)


class Bad:
    """A record and what its reject has to say."""

    def __init__(self, sent: Sent, reason: str, field: str | None) -> None:
        self.sent = sent
        self.expected = (reason, field)


def at(step: timedelta) -> str:
    return (datetime.now(UTC) + step).isoformat()


def bad_records() -> list[Bad]:
    faulty = [
        Bad(Sent(TOPIC_OF[name], a_record(name, email=PERSONAL, **changes)), reason, field)
        for name, changes, reason, field in FAULTS
        # Of the time at which the record arrives.
        if reason != "future_time"
    ]
    ahead = a_record("lead.created", occurred_at=at(timedelta(hours=24, minutes=5)))
    return [
        *faulty,
        Bad(Sent("leads", ahead), "future_time", "occurred_at"),
        *(Bad(Sent("leads", value), "malformed", None) for value in MALFORMED.values()),
        Bad(Sent("leads", TOO_LARGE), "too_large", None),
        *(Bad(Sent(t, None, b"k"), "tombstone", None) for t in TOPICS if t not in MAY_BE_NULL),
    ]


def good_records() -> list[Sent]:
    """Return what looks odd and is accepted, per line of contract section 8."""
    return [
        *(Sent(topic, None, b"k") for topic in MAY_BE_NULL),
        Sent("leads", a_record("lead.created", lead_id="a", channel="seo", no_such_field=1)),
        Sent("leads", a_record("lead.created", lead_id="b", channel="seo", schema_version="1.9")),
        event("leads", "lead.created", "2026-03-05T12:00:60Z", lead_id="c", channel="seo"),
        event("leads", "lead.created", at(timedelta(hours=23)), lead_id="d", channel="seo"),
        event("leads", "lead.created", NOON, lead_id="test", channel="seo", test=True),
        event("leads", "lead.created", NOON, lead_id="e", channel="billboards"),
        event("clicks", "click.recorded", NOON, channel="seo", is_bot=True),
        event("clicks", "click.recorded", NOON, channel="seo"),
        event("impressions", "impression.served", NOON, channel="seo", is_bot=True),
        event("sales", "sale.created", NOON, sale_id="s", lead_id="b", amount=0, currency="EUR"),
    ]


def odd_moves() -> list[Sent]:
    """Return moves of a lead that is known, from another stage than it is in, and to the one it is in."""
    move = ("stage-changes", "lead.stage_changed")
    return [
        event(*move, "2026-03-05T13:00:00Z", event_id="m1", lead_id="a", to_stage="mql", from_stage="sql"),
        event(*move, "2026-03-05T14:00:00Z", event_id="m2", lead_id="a", to_stage="mql"),
    ]  # fmt: skip


GOOD_FACTS: Final = {
    "leads_gross": 4,
    "leads": 4,
    "stage_entered.lead": 4,
    "stage_entered.mql": 2,
    "stage_implied.mql": 1,
    "stage_entered.sql": 1,
    "stage_implied.sql": 1,
    "stage_entered.customer": 1,
    "stage_current.lead": 2,
    "stage_current.mql": 1,
    "stage_current.customer": 1,
    "clicks": 1,
    "invalid_clicks": 1,
    "invalid_impressions": 1,
    "sales": 1,
    "new_customers": 1,
    "converted": 1,
    "cycle_count": 1,
    "cycle_histogram": {"0": 1},
}


def check_reject(place: Place, bad: Bad, reject: dict[str, Any]) -> None:
    value = bad.sent.value
    assert (reject["reason"], reject["field"]) == bad.expected, value
    assert (reject["topic"], reject["partition"], reject["offset"]) == place
    assert reject["message"].startswith(f"{reject['field'] or 'value'}: expected "), reject
    assert ", got " in reject["message"]
    assert PERSONAL not in json.dumps(reject)
    if value is None:
        assert reject["original"] is None
    elif reject["reason"] in ("malformed", "too_large"):
        assert "original" not in reject
        assert reject["length"] == len(value)
        assert reject["sha256"] == hashlib.sha256(value).hexdigest()
    else:
        original = base64.b64decode(reject["original"])
        assert PERSONAL.encode() not in original
        kept = json.loads(value)
        kept.pop("email", None)
        assert json.loads(original) == kept


async def test_each_bad_record_is_rejected_once_with_its_reason_and_the_good_ones_count(
    deploy: Deploy,
) -> None:
    deployment = await deploy()
    worker = deployment.worker()
    bad = bad_records()
    half = len(bad) // 2
    places = await deployment.send(one.sent for one in bad[:half])
    await deployment.send(good_records())
    await deployment.settle()
    move, same = odd_moves()
    await deployment.send([move])
    places += await deployment.send(one.sent for one in bad[half:])
    await deployment.settle()
    await deployment.send([same])
    await deployment.settle()

    rejects = await deployment.rejects()
    assert sorted(key for key, _ in rejects) == sorted(place.key for place in places)
    by_key = dict(rejects)
    for place, one in zip(places, bad, strict=True):
        check_reject(place, one, by_key[place.key])

    assert await deployment.facts("seo") == GOOD_FACTS
    assert (await deployment.facts("billboards"))["leads"] == 1
    assert (await deployment.facts())["leads"] == 5

    exposed = series(fetch(worker.metrics_url))
    reasons = Counter(one.expected[0] for one in bad)
    assert {r: sample(exposed, "leadkpi_rejects_total", reason=r) for r in reasons} == reasons
    for outcome, count in (("test", 1), ("ignored", len(MAY_BE_NULL)), ("rejected", len(bad))):
        assert sample(exposed, "leadkpi_events_total", outcome=outcome) == count, outcome
    # A minor version that is not known counts like a field.
    remarks = {
        "unknown_field": 2,
        "other_from_stage": 1,
        "same_stage": 1,
        "tombstone": len(MAY_BE_NULL),
    }
    for remark, count in remarks.items():
        assert sample(exposed, "leadkpi_remarks_total", remark=remark) == count, remark
    assert worker.stop() == 0
    assert worker.tracebacks() == 0


@pytest.mark.fault
# Bills for a time to come run on, so comparing may take some minutes.
@pytest.mark.timeout(300)
async def test_a_stream_with_a_tenth_broken_loses_nothing_across_a_kill(deploy: Deploy) -> None:
    deployment = await deploy(
        LEADPULSE_SESSION_TIMEOUT_SECONDS="2", LEADPULSE_SESSION_HEARTBEAT_SECONDS="1"
    )
    mix = replace(mix_of(deployment.settings), broken_share=0.1)
    plan = Plan(seed=5, rate=2_000, events=6_000, mix=mix)
    records = [s.record for s in schedule(plan, time.time_ns() // 1_000_000)]
    sent = [Sent(one.topic, one.value, one.key or None) for one in records]
    worker = deployment.worker()
    third = len(sent) // 3
    places = await deployment.send(sent[:third])

    async def has_rejected() -> bool:
        return bool(await deployment.rejects())

    await until(has_rejected, "the first reject")
    # A third is committed, one is being worked on, and one is still to come.
    places += await deployment.send(sent[third : 2 * third])
    worker.kill()
    places += await deployment.send(sent[2 * third :])
    worker.start()
    await deployment.settle(60)

    broken = {
        place.key: one.broken for place, one in zip(places, records, strict=True) if one.broken
    }
    assert 450 < len(broken) < 750
    rejects = await deployment.rejects()
    assert sorted(key for key, _ in rejects) == sorted(broken)
    assert {key: reject["reason"] for key, reject in rejects} == broken
    done = await deployment.verify()
    assert done.stdout.startswith(f"exact: {len(records):,} events"), done.stdout
