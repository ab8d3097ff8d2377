"""A Kafka broker and a Redis in memory, each in a process of its own, for the demo and quick tests.

The broker is the mock cluster inside librdkafka, the Redis is fakeredis. Neither is a place for
data, nor for a claim of exactness. The broker answers no admin requests, compacts nothing, fences
nobody, does not hide aborted records, and forgets positions that were committed inside a
transaction. The checksums of its control batches are wrong, so clients must not check them
(aiokafka: `check_crcs=False`). Of each partition it keeps the last 5 MB, as they were compressed.
"""

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
STOP_SECONDS = 5.0

# librdkafka's rd_kafka_type_t and a group's first wait for more members (3 s unless told).
PRODUCER = 0
REBALANCE_DELAY_MS = 100


class EmbeddedError(Exception):
    """An embedded part cannot be had; the text is one line and says what to do."""


class _Child:
    """A part in a process of its own, which ends when the pipe to its standard input closes."""

    kind = ""
    packages: tuple[tuple[str, str], ...] = ()

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where it listens, "127.0.0.1:port"; the port is new with each start."""
        if not self._address:
            msg = f"embedded {self.kind}: was not started"
            raise EmbeddedError(msg)
        return self._address

    @property
    def pid(self) -> int:
        """The id of the process that runs it."""
        if self._process is None:
            msg = f"embedded {self.kind}: was not started"
            raise EmbeddedError(msg)
        return self._process.pid

    def start(self) -> None:
        """Start the process and return when the part listens.

        Raises:
            EmbeddedError: without the extra `demo`, or when the process cannot do its work.
        """
        _require(self.packages)
        self._process = process = subprocess.Popen(  # noqa: S603 - our own module, our own words
            [sys.executable, "-m", "streams.embedded", self.kind, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # One heap for all its threads: they are many and small.
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},
            # Ctrl-C in the terminal is for us; it ends with us, after its clients.
            start_new_session=True,
        )
        said = process.stdout.readline() if process.stdout else ""
        greeting = json.loads(said) if said else {"error": "its process ended without a word"}
        if "error" in greeting:
            self.close()
            msg = f"embedded {self.kind}: expected an address, got: {greeting['error']}"
            raise EmbeddedError(msg)
        self._address = greeting["address"]

    def close(self) -> None:
        """End the process and forget everything it held."""
        if self._process is None:
            return
        process, self._process, self._address = self._process, None, ""
        with process:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class EmbeddedKafka(_Child):
    """A Kafka broker in memory with `topics` (name to number of partitions).

    A topic that is not named here comes into being on first use, with 4 partitions.
    """

    kind = "kafka"
    packages = (("confluent_kafka", "confluent-kafka"),)

    def __init__(self, topics: Mapping[str, int]) -> None:
        for name, partitions in topics.items():
            if partitions < 1:
                msg = f"embedded kafka: {name}: expected 1 partition or more, got {partitions}"
                raise EmbeddedError(msg)
        super().__init__(json.dumps(dict(topics)))

    @property
    def bootstrap(self) -> str:
        """The bootstrap servers for clients, "127.0.0.1:port"."""
        return self.address


class EmbeddedRedis(_Child):
    """A Redis in memory that runs Lua scripts; it has no INFO."""

    kind = "redis"
    packages = (("fakeredis", "fakeredis"), ("lupa", "lupa"))

    @property
    def url(self) -> str:
        """The URL for clients, "redis://127.0.0.1:port/0"."""
        return f"redis://{self.address}/0"


def main(arguments: list[str]) -> None:
    """Be the child process: say the address, or an error, as a line of JSON; wait for the end."""
    try:
        if arguments[0] == "kafka":
            address = _serve_kafka(json.loads(arguments[1]))
        else:
            address = _serve_redis()
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to hear of it
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)  # noqa: T201 - that is how
        sys.exit(1)
    print(json.dumps({"address": address}), flush=True)  # noqa: T201 - that is how
    sys.stdin.buffer.read()
    # Neither library ends its threads in a hurry, and there is nothing to save.
    os._exit(0)


def _require(packages: tuple[tuple[str, str], ...]) -> None:
    missing = [name for module, name in packages if importlib.util.find_spec(module) is None]
    if missing:
        msg = f"the demo needs {' and '.join(missing)}: pip install 'leadpulse[demo]'"
        raise EmbeddedError(msg)


def _serve_kafka(topics: dict[str, int]) -> str:
    """Start the mock cluster with its topics and return its address."""
    library = _librdkafka()
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set_log_cb(conf, None)
    why = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(PRODUCER, conf, why, len(why))
    if not client:
        raise EmbeddedError(why.value.decode())
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    if not cluster:
        msg = "librdkafka made no mock cluster"
        raise EmbeddedError(msg)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, REBALANCE_DELAY_MS)
    for name, partitions in topics.items():
        failed = library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1)
        if failed:
            msg = f"topic {name} with {partitions} partitions: librdkafka error {failed}"
            raise EmbeddedError(msg)
    return str(library.rd_kafka_mock_cluster_bootstraps(cluster).decode())


def _librdkafka() -> ctypes.CDLL:
    """Load the library out of the confluent-kafka wheel, without its Python part."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        msg = "confluent-kafka is not installed"
        raise EmbeddedError(msg)
    package = Path(found.origin).parent
    linux = package.with_name("confluent_kafka.libs").glob("librdkafka*.so*")
    mac = (package / ".dylibs").glob("librdkafka*.dylib")
    for path in (*linux, *mac):
        return _with_signatures(ctypes.CDLL(str(path)))
    msg = f"no librdkafka beside {package}: expected the confluent-kafka wheel from PyPI"
    raise EmbeddedError(msg)


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes what librdkafka takes and gives, where it is not int.

    Source: rdkafka.h and rdkafka_mock.h.
    """
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set_log_cb": (None, [pointer, pointer]),
        "rd_kafka_new": (pointer, [ctypes.c_int, pointer, text, size]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, ctypes.c_int]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    for name, (gives, takes) in signatures.items():
        function = library[name]
        function.restype, function.argtypes = gives, takes
        setattr(library, name, function)
    return library


def _serve_redis() -> str:
    """Start fakeredis on a free port and return its address."""
    # Here, because they come with an extra and take 40 MB.
    from fakeredis import TcpFakeServer  # noqa: PLC0415
    from fakeredis._clients._tcp_server import TCPFakeRequestHandler  # noqa: PLC0415

    class Handler(TCPFakeRequestHandler):
        """Sends replies of any length.

        fakeredis makes the connection non-blocking for its reads; a reply larger than the socket's
        buffer was cut short and ended in an error text that clients took for a part of the value.
        """

        def setup(self) -> None:
            """Give the replies a handle of their own, which waits for room."""
            super().setup()
            self.sending = self.connection.dup()
            self.sending.settimeout(STOP_SECONDS)
            self.writer.writer = self.wfile = self.sending.makefile("wb")

        def finish(self) -> None:
            super().finish()
            self.sending.close()

    server = TcpFakeServer((HOST, 0))
    server.RequestHandlerClass = Handler
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"{HOST}:{server.server_address[1]}"


if __name__ == "__main__":
    main(sys.argv[1:])
