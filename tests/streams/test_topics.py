import asyncio
from dataclasses import replace

import pytest

from streams.problems import Problem
from streams.settings import Settings, load
from streams.topics import (
    TABLES,
    Topics,
    TopicState,
    admin_client,
    check,
    create,
    describe,
    fault_of,
    faults,
    new_configs,
    topics_of,
)
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.server import free_port


def good_states() -> list[TopicState]:
    return [TopicState(spec, 4, spec.configs) for spec in Topics("leadgen.", "leadpulse").specs()]


def state_of(states: list[TopicState], name: str) -> TopicState:
    return next(state for state in states if state.spec.name == name)


def changed(name: str, **configs: str) -> list[TopicState]:
    """Return good states but for some configs of one topic; `_` stands for a dot."""
    states = good_states()
    state = state_of(states, name)
    found = {key.replace("_", "."): value for key, value in configs.items()}
    states[states.index(state)] = replace(state, configs={**state.configs, **found})
    return states


def test_names_are_those_of_the_contract_and_of_faust() -> None:
    topics = Topics("leadgen.", "leadpulse")
    assert topics.inputs["stage-changes"] == "leadgen.stage-changes.v1"
    assert (topics.kpis, topics.rejects) == ("leadgen.kpis.v1", "leadgen.rejects.v1")
    assert (topics.windows, topics.alerts) == ("leadgen.kpi-windows.v1", "leadgen.alerts.v1")
    assert (topics.entities, topics.deltas) == ("leadpulse-entities", "leadpulse-deltas")
    assert topics.changelog("journeys") == "leadpulse-journeys-changelog"


def test_every_topic_has_one_spec_with_a_name_of_its_own() -> None:
    topics = Topics("leadgen.", "leadpulse")
    names = [spec.name for spec in topics.specs()]
    outputs = [topics.kpis, topics.windows, topics.alerts, topics.rejects]
    own = [*outputs, *topics.changelogs.values()]
    assert sorted(names) == sorted({*topics.sources, *own})
    assert len(topics.changelogs) == len(TABLES)


def test_the_ledger_keeps_every_record_for_400_days() -> None:
    topics = Topics("leadgen.", "leadpulse")
    (ledger,) = [spec for spec in topics.specs() if spec.name == topics.windows]
    days = int(ledger.configs["retention.ms"]) / 86_400_000
    assert (ledger.configs["cleanup.policy"], days) == ("delete", 400)


def test_topics_as_they_have_to_be_have_no_faults() -> None:
    assert faults(good_states()) == []


def test_missing_topic_is_told_with_the_command() -> None:
    states = good_states()
    states[0] = TopicState(states[0].spec)
    assert [str(fault) for fault in faults(states)] == [
        (
            "topic leadgen.impressions.v1: expected a topic, got none; "
            "run `leadpulse topics --create`"
        )
    ]


def test_topic_with_another_partition_count_is_told() -> None:
    states = good_states()
    states[3] = replace(states[3], partitions=3)
    [fault] = faults(states)
    assert fault.where == f"topic {states[3].spec.name}"
    assert (fault.expected, fault.got) == ("4 partitions like the others", "3 partitions")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("leadgen.clicks.v1", "cleanup_policy", "compact"),
        ("leadgen.clicks.v1", "message_timestamp_type", "CreateTime"),
        ("leadpulse-cells-changelog", "cleanup_policy", "delete"),
        ("leadpulse-cells-changelog", "cleanup_policy", "compact,delete"),
        ("leadgen.kpis.v1", "cleanup_policy", "delete"),
        ("leadgen.alerts.v1", "cleanup_policy", "delete"),
        ("leadpulse-entities", "retention_ms", "604800000"),
        ("leadpulse-deltas", "retention_bytes", "1000"),
    ],
)
def test_config_that_would_make_numbers_wrong_is_told(name: str, key: str, value: str) -> None:
    states = changed(name, **{key: value})
    [fault] = faults(states)
    assert fault.where == f"topic {name}"
    assert fault.got == value
    assert "kafka-configs.sh" in fault.todo
    assert fault_of(state_of(states, name), [fault]) is fault
    assert fault_of(state_of(states, "leadgen.sales.v1"), [fault]) is None


def test_retention_of_inputs_is_the_operator_s_choice() -> None:
    assert faults(changed("leadgen.clicks.v1", retention_ms="1000")) == []


def test_unknown_configs_are_no_fault() -> None:
    assert faults([replace(state, configs={}) for state in good_states()]) == []


def settings_of(kafka: KafkaBroker, prefix: str) -> Settings:
    name = prefix.rstrip(".")
    return load(
        {
            "LEADPULSE_KAFKA": kafka.bootstrap,
            "LEADPULSE_TOPICS_PREFIX": prefix,
            "LEADPULSE_APP_ID": name,
            "LEADPULSE_TOPICS_PARTITIONS": "2",
        }
    )


@pytest.mark.parametrize(("copies", "needed"), [(1, None), (2, None), (3, "2"), (5, "2")])
def test_of_three_copies_two_have_to_be_written(copies: int, needed: str | None) -> None:
    for spec in Topics("leadgen.", "leadpulse").specs():
        configs = new_configs(spec, copies)
        assert configs.pop("min.insync.replicas", None) == needed
        assert configs == spec.configs


@pytest.mark.integration
async def test_created_topics_are_good_and_stay_as_they_are(
    kafka: KafkaBroker, prefix: str
) -> None:
    settings = settings_of(kafka, prefix)
    assert len(await check(settings)) == len(topics_of(settings).specs())

    made = await create(settings)

    assert made == [spec.name for spec in topics_of(settings).specs()]
    assert await check(settings) == []
    assert {state.partitions for state in await describe(settings)} == {2}
    assert await create(settings) == []


@pytest.mark.integration
async def test_new_topics_get_the_partitions_of_those_that_exist(
    kafka: KafkaBroker, prefix: str
) -> None:
    settings = settings_of(kafka, prefix)
    await create(settings, partitions=3)
    gone = topics_of(settings).deltas
    async with admin_client(settings.kafka) as admin:
        await admin.delete_topics([gone])
    await _wait_until_missing(settings, gone)

    assert await create(settings) == [gone]
    assert {state.partitions for state in await describe(settings)} == {3}


async def _wait_until_missing(settings: Settings, name: str) -> None:
    async with asyncio.timeout(10):
        while state_of(await describe(settings), name).partitions:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


@pytest.mark.integration
async def test_another_partition_count_is_refused(kafka: KafkaBroker, prefix: str) -> None:
    settings = settings_of(kafka, prefix)
    await create(settings)
    with pytest.raises(Problem, match="expected 5 partitions in topics that exist, got 2"):
        await create(settings, partitions=5)


@pytest.mark.integration
async def test_topic_that_the_broker_refuses_is_one_problem(
    kafka: KafkaBroker, prefix: str
) -> None:
    with pytest.raises(Problem, match="expected a broker that allows it"):
        await create(settings_of(kafka, prefix), replication=3)


async def test_broker_that_is_not_there_is_one_problem(caplog: pytest.LogCaptureFixture) -> None:
    servers = f"localhost:{free_port()}"
    with pytest.raises(Problem) as caught:
        await check(load({"LEADPULSE_KAFKA": servers}))
    assert str(caught.value) == (
        f"Kafka at {servers}: expected a broker that answers, got connection refused; "
        "start it or set LEADPULSE_KAFKA"
    )
    assert caplog.records == []
