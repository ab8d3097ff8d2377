"""Short storms; `make storm` raises longer ones."""

from pathlib import Path

import pytest

from tests.faults.storm import Outcome, Plan, Storm
from tests.parts.install import MissingPartError

pytestmark = [pytest.mark.fault, pytest.mark.timeout(480)]


async def rage(plan: Plan, directory: Path) -> Outcome:
    lines: list[str] = []
    try:
        outcome = await Storm(plan, directory, lines.append).run()
    except MissingPartError as error:
        pytest.skip(str(error))
    print(*lines, *outcome.logs, sep="\n")
    return outcome


async def test_numbers_are_exact_after_workers_were_killed_and_paused(tmp_path: Path) -> None:
    outcome = await rage(Plan(seed=1, events=8_000, faults=3), tmp_path)
    assert outcome.differences == []
    assert "exact: 8,000 events" in outcome.verdict
    assert outcome.tracebacks == 0
    assert outcome.exits == {}


async def test_numbers_are_exact_after_the_broker_was_killed_as_well(tmp_path: Path) -> None:
    outcome = await rage(Plan(seed=2, events=8_000, faults=1, broker_faults=1), tmp_path)
    assert outcome.differences == []
    assert outcome.tracebacks == 0


@pytest.mark.timeout(600)
async def test_second_deployment_comes_to_the_same_numbers_from_the_same_topics(
    tmp_path: Path,
) -> None:
    outcome = await rage(Plan(seed=3, events=8_000, faults=1, replay=True), tmp_path)
    assert outcome.differences == []
    assert outcome.tracebacks == 0
