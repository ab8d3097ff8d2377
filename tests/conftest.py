"""What every test may ask for, and the rule that nothing is skipped in CI."""

import os
import uuid
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.parts.install import MissingPartError
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer

# A slow machine is no failure, and the same commit gives the same result.
settings.register_profile("leadpulse", deadline=None, derandomize=bool(os.environ.get("CI")))
# By hand: HYPOTHESIS_PROFILE=thorough pytest --timeout=0 tests/kpis
settings.register_profile("thorough", deadline=None, max_examples=50_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "leadpulse"))


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """Return the one broker of the run; a test that kills it makes its own."""
    try:
        broker = KafkaBroker()
    except MissingPartError as error:
        pytest.skip(str(error))
    with broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Return the one Redis of the run; keys of a test begin with its prefix."""
    try:
        server = RedisServer()
    except MissingPartError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def prefix() -> str:
    """Return the beginning of all names (topics, keys, groups) of one test."""
    return f"t{uuid.uuid4().hex[:10]}."


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing is skipped in CI, but: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failure in CI."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped module into a failure in CI."""
    report = yield
    _fail_if_skipped(report)
    return report
