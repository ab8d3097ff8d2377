"""One number of a deployment explained: what it is made of, its history, and what was left out."""

from typing import Any

import pytest

from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent, event, until

pytestmark = pytest.mark.integration

DAY = "2026-03-29"
ASKED = ("google_ads", f"1d:{DAY}", "cpl")
KEY = f"period|1d|{DAY}T00:00:00+01:00|google_ads|_all"
ORDINARY = {"channel": "google_ads", "campaign_id": "brand-search"}


def lead(lead_id: str, **fields: object) -> Sent:
    return event(
        "leads", "lead.created", f"{DAY}T10:00:00Z", lead_id=lead_id, **{**ORDINARY, **fields}
    )


def bill(amount: str, reported_at: str) -> Sent:
    fields = {"period_start": DAY, "period_end": "2026-03-30", "cost_source": "bills", **ORDINARY}
    money = {"amount": amount, "currency": "EUR", "reported_at": reported_at}
    return event("costs", "cost.snapshot", reported_at, **fields, **money)


def events() -> list[Sent]:
    mql = {"to_stage": "mql"}
    return [
        *(lead(f"l-{number}") for number in range(4)),
        # All that is left out of this day of google_ads, and why.
        lead("l-0"),
        event("leads", "lead.invalidated", f"{DAY}T11:00:00Z", lead_id="l-3", reason="spam"),
        lead("l-test", test=True),
        lead("l-bad", initial_stage="nonsense"),
        event("leads", "lead.disqualified", f"{DAY}T12:00:00Z", lead_id="nobody"),
        bill("55.00", "2026-03-30T00:00:00Z"),
        bill("60.00", "2026-03-31T00:00:00Z"),
        # What others have.
        lead("l-seo", channel="seo"),
        event("stage-changes", "lead.stage_changed", f"{DAY}T12:00:00Z", lead_id="l-1", **mql),
        event("leads", "lead.created", "2026-03-30T10:00:00Z", lead_id="l-later", **ORDINARY),
    ]


def explained(deployment: Deployment, *asked: str) -> dict[str, list[str]]:
    """Return the lines of each part that `leadpulse explain` writes, the title under its own name."""
    done = deployment.run("explain", *asked)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    parts: dict[str, list[str]] = {"title": [lines[0].strip()]}
    heading = ""
    for line in lines[1:]:
        heading = line[:9].strip() or heading
        parts.setdefault(heading, []).append(line[9:].strip())
    return parts


def refusal(deployment: Deployment, *asked: str) -> str:
    done = deployment.run("explain", *asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.strip()


async def revision(deployment: Deployment, number: int) -> None:
    """Return when the day's record carries this revision."""

    async def is_there() -> bool:
        record: dict[str, Any] = (await deployment.kpi_records()).get(KEY, {})
        return bool(record.get("revision") == number and record["state"] != "provisional")

    await until(is_there, f"revision {number} of {KEY}", 90)


@pytest.mark.timeout(240)
async def test_number_is_explained_with_its_history_and_what_was_left_out(deploy: Deploy) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE="Europe/Paris")
    deployment.worker()
    await deployment.send(events())
    await deployment.settle()
    await revision(deployment, 1)

    parts = explained(deployment, *ASKED)
    assert parts["title"] == [f"cpl (Coût par lead) of google_ads, 1d:{DAY}, period basis"]
    assert parts["value"][0] == "20.00 EUR"
    assert parts["formula"] == ["cost / leads", "= 60.00 / 3"]
    assert parts["facts"][1].startswith("leads  3 = leads_gross 4 \N{MINUS SIGN} leads_voided 1 ")
    assert parts["window"][0].endswith("(23 hours in Europe/Paris)")
    assert parts["window"][-1] == "final, revision 1: what comes from now on makes a revision"
    assert parts["cost"] == [
        "1 of 1 channel that expects cost has it in this window: google_ads",
        f"google_ads: known up to {DAY[:8]}30T00:00:00+02:00",
    ]
    assert len(parts["history"]) == 2
    assert parts["left out"] == [
        "1  cost rows  replaced by a newer row",
        "1  leads      duplicates: the same lead_id again",
        "1  leads      invalidated: spam",
        "1  leads      rejected: unknown_stage",
        "1  leads      test events",
        "in the window, but nobody can tell of which scope:",
        "1  leads  changes parked: their lead has not come yet",
    ]
    assert explained(deployment, *ASKED, "--quick")["left out"] == ["not counted (--quick)"]

    # The bill is restated: the ledger says so, and what it was before.
    await deployment.send([bill("90.00", "2026-04-02T00:00:00Z")])
    await revision(deployment, 2)
    parts = explained(deployment, *ASKED)
    assert parts["value"][0] == "30.00 EUR"
    assert "revised, revision 2, because of cost_restated" in parts["window"][-1]
    assert [line.split()[:5] for line in parts["history"][1:]] == [
        ["1", "20.00", "\N{EN DASH}", "final", "\N{EN DASH}"],
        ["2", "30.00", "20.00", "revised", "cost_restated"],
    ]
    assert parts["left out"][0] == "2  cost rows  replaced by a newer row"


async def test_every_kind_of_scope_window_and_basis_is_found(deploy: Deploy) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE="Europe/Paris")
    deployment.worker()
    await deployment.send([*events(), lead("l-linkedin", channel="linkedin_ads")])
    target = {"kpi": "leads", "period": "month", "period_start": "2026-03-01", "value": "10"}
    await deployment.send(
        [
            event(
                "targets",
                "target.set",
                f"{DAY}T00:00:00Z",
                **target,
                reported_at=f"{DAY}T00:00:00Z",
            )
        ]
    )
    await deployment.settle()

    whole = explained(deployment, "all", f"1w:{DAY[:8]}23", "cpl")
    assert whole["value"][-1] == "partial: no cost from linkedin_ads"
    assert whole["cost"][0] == (
        "1 of 2 channels that expect cost have it in this window; none from linkedin_ads"
    )
    campaign = explained(deployment, "google_ads/brand-search", "lifetime", "cpl")
    assert campaign["formula"][1] == "= 60.00 / 4"
    assert campaign["window"][-1] == "provisional: the whole is never final"
    hour = explained(deployment, "google_ads", f"1h:{DAY}T12:00", "cpl_gross")
    assert hour["formula"][1].endswith(" / 4")
    cohort = explained(
        deployment, "google_ads", "1mo:2026-03", "stage_conversion.lead.mql", "--basis", "cohort"
    )
    assert cohort["formula"] == ["reached.mql.lead / stage_entered.lead", "= 1 / 4"]
    attained = explained(deployment, "all", "1mo:2026-03", "target_attainment.leads")
    assert attained["value"] == ["0.6 (60.00 %)"]
    assert attained["formula"][1] == (
        "target: 10 leads in the month from 2026-03-01 to 2026-03-31, linear"
    )
    nobody = explained(deployment, "all", "lifetime", "unattributed_share")
    assert nobody["formula"][1] == "= 0 / 6"


async def test_number_that_is_not_there_is_one_line_that_says_what_to_do(deploy: Deploy) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE="Europe/Paris")
    topic = deployment.topics.kpis
    expected = f"{topic}: expected numbers of google_ads in 1d:{DAY} (period), got none"
    assert refusal(deployment, *ASKED) == f"{expected}; is a worker running?"

    deployment.worker()
    await deployment.send(events())
    await deployment.settle()
    assert refusal(deployment, "gogle_ads", "lifetime", "cpl").endswith("did you mean google_ads?")
    assert refusal(deployment, "google_ads/brand", "lifetime", "cpl").endswith(
        "did you mean google_ads/brand-search?"
    )
    assert refusal(deployment, "google_ads", "1d:2025-01-01", "cpl").endswith(
        "got none; no fact lies in that window, or it is kept no longer"
    )


async def test_topic_that_is_missing_is_one_line(deploy: Deploy) -> None:
    deployment = await deploy(with_topics=False)
    line = refusal(deployment, *ASKED)
    assert line.endswith("expected a topic, got none; run `leadpulse topics --create`")
