import asyncio
import socket

import pytest

from streams.problems import (
    Problem,
    connection_fault,
    kafka_unreachable,
    one_line,
    redis_unreachable,
)
from tests.parts.server import free_port


def test_problem_is_one_line_with_place_expectation_and_advice() -> None:
    problem = Problem("here", "an\nanswer", "silence", "look up")
    assert str(problem) == "here: expected an answer, got silence; look up"
    assert str(Problem("here", "a", "b")) == "here: expected a, got b"


def test_several_problems_are_the_first_and_a_count() -> None:
    problems = [Problem("here", "a", "b"), Problem("there", "a", "b")]
    assert one_line(problems) == "here: expected a, got b (and 1 more)"
    assert one_line(problems[:1]) == "here: expected a, got b"


async def test_kafka_that_refuses_connections_is_called_so() -> None:
    problem = await kafka_unreachable(f"localhost:{free_port()}")
    assert problem.got == "connection refused"
    assert problem.todo == "start it or set LEADPULSE_KAFKA"


async def test_kafka_with_an_unknown_name_is_called_so() -> None:
    problem = await kafka_unreachable("no-such-host.invalid:9092")
    assert problem.got == "an unknown host name"


async def test_every_reason_of_several_servers_is_named_once() -> None:
    port = free_port()
    servers = f"localhost:{port},no-such-host.invalid:1,127.0.0.1:{port}"
    problem = await kafka_unreachable(servers)
    assert problem.got == "connection refused and an unknown host name"


async def test_a_server_that_is_no_kafka_is_called_so() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        problem = await kafka_unreachable(f"127.0.0.1:{port}")
    assert "does not speak Kafka" in problem.got
    assert "security_protocol" in problem.todo


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "x"), "connection refused"),
        (TimeoutError(), "no answer in time"),
        (socket.gaierror(-2, "x"), "an unknown host name"),
        (OSError("something " * 20), "something something"),
    ],
)
def test_connection_faults_are_told_in_a_few_words(error: OSError, words: str) -> None:
    assert connection_fault(error).startswith(words)
    assert len(connection_fault(error)) <= 80


def test_the_cause_behind_an_error_is_told() -> None:
    error = RuntimeError("cannot connect")
    error.__cause__ = ConnectionRefusedError(111, "refused")
    assert connection_fault(error) == "connection refused"


def test_a_redis_that_wants_a_password_is_told_so() -> None:
    class AuthenticationError(Exception):
        pass

    problem = redis_unreachable("redis://h:1/0", AuthenticationError("NOAUTH"))
    assert "user or password" in problem.got
    assert "LEADPULSE_REDIS" in problem.todo


def test_redis_that_went_away_refuses_connections() -> None:
    error = RuntimeError("Error 111 connecting to h:1. Connect call failed")
    error.__context__ = RuntimeError("Connection has data")
    assert redis_unreachable("redis://h:1/0", error).got == "connection refused"
