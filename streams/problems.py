"""Problems that a person can mend, each in one line: where, what was expected, what came, what to do."""

import asyncio
import errno
import socket
from collections.abc import Sequence

ANSWER_SECONDS = 5.0


class Problem(Exception):  # noqa: N818 - returned in lists as often as raised
    """Something outside the program is not as it must be.

    `where` is the place a person would look at, `todo` begins with a verb or is empty.
    """

    def __init__(self, where: str, expected: str, got: str, todo: str = "") -> None:
        super().__init__(where, expected, got, todo)
        self.where = where
        self.expected = expected
        self.got = got
        self.todo = todo

    def __str__(self) -> str:
        """Return the one line that is shown."""
        line = f"{self.where}: expected {self.expected}, got {self.got}"
        return " ".join(f"{line}; {self.todo}".split() if self.todo else line.split())


async def kafka_unreachable(servers: str) -> Problem:
    """Return why none of `servers` (host:port, comma separated) can be used as Kafka.

    To be called after a client failed: it connects once more, only to learn the reason.
    """
    reasons = [await _connection_fault(server) for server in servers.split(",")]
    if None in reasons:
        todo = "check kafka.security_protocol, the credentials and the broker's log"
        got = "a server that closes the connection or does not speak Kafka"
        return Problem(f"Kafka at {servers}", "a broker that answers", got, todo)
    got = " and ".join(dict.fromkeys(reason for reason in reasons if reason))
    todo = "start it or set LEADPULSE_KAFKA"
    return Problem(f"Kafka at {servers}", "a broker that answers", got, todo)


def redis_unreachable(shown_url: str, error: BaseException) -> Problem:
    """Return why the Redis at `shown_url` (without its password) cannot be used."""
    todo = "start it or set LEADPULSE_REDIS"
    if "auth" in type(error).__name__.lower() or "NOAUTH" in str(error):
        got = "a refusal of the user or password"
        todo = "put them into LEADPULSE_REDIS (redis://user:password@host:port/0)"
    else:
        # redis-py tells a number, and as the cause what it had tried before.
        was_refused = str(error).startswith(f"Error {errno.ECONNREFUSED} ")
        got = "connection refused" if was_refused else connection_fault(error)
    return Problem(f"Redis at {shown_url}", "a server that answers", got, todo)


def connection_fault(error: BaseException) -> str:
    """Return in a few words why a connection failed, looking through the causes of `error`."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, socket.gaierror):
            return "an unknown host name"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
    for cause in chain:
        if isinstance(cause, TimeoutError) or "timeout" in type(cause).__name__.lower():
            return "no answer in time"
    text = str(chain[-1]) or type(chain[-1]).__name__
    return text if len(text) <= 80 else f"{text[:79]}…"


def one_line(problems: Sequence[Problem]) -> str:
    """Return the first of `problems`, and how many more there are."""
    more = len(problems) - 1
    return f"{problems[0]} (and {more} more)" if more > 0 else str(problems[0])


async def _connection_fault(server: str) -> str | None:
    host, _, port = server.strip().rpartition(":")
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError as error:
        # Several addresses of one name fail together, in one OSError without an errno.
        if "refused" in str(error).lower() or "Errno 111" in str(error):
            return "connection refused"
        return connection_fault(error)
    writer.close()
    return None


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain
