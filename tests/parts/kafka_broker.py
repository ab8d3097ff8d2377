"""A real Apache Kafka in KRaft mode: one node, broker and controller, from its jars."""

import os
import socket
import struct
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.parts.install import kafka_libraries
from tests.parts.server import Server, ServerError, free_port

METADATA = 3
LOGGING = Path(__file__).with_name("kafka") / "log4j2.properties"


class KafkaBroker(Server):
    """One broker on `bootstrap`; its data survive kill() and start(), not close().

    Topics are never made by themselves. `properties` go over the settings made here, by the
    names of Kafka's server.properties; `cpus` are the processors it may use.

    Raises:
        MissingPartError: if Kafka's jars are not there (`make parts`).
    """

    name = "kafka"

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        cpus: Collection[int] | None = None,
        heap_mb: int = 768,
    ) -> None:
        self._classpath = f"{kafka_libraries()}/*"
        super().__init__(cpus)
        self.controller_port = free_port()
        while self.controller_port == self.port:
            self.controller_port = free_port()
        self.heap_mb = heap_mb
        self._settings = self._own_settings() | dict(properties or {})

    @property
    def bootstrap(self) -> str:
        """The bootstrap servers for clients."""
        return f"{self.host}:{self.port}"

    @property
    def properties_file(self) -> Path:
        """Where the broker's settings are."""
        return self.directory / "server.properties"

    def start(self) -> None:
        """Format the storage before the first life, then start."""
        if not self.properties_file.exists():
            self._format()
        super().start()

    def command(self) -> list[str]:
        """Return Kafka's start without its shell scripts."""
        return [
            *("java", f"-Xmx{self.heap_mb}m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"),
            f"-Dlog4j2.configurationFile={LOGGING}",
            *("-cp", self._classpath, "kafka.Kafka", str(self.properties_file)),
        ]

    def answers(self) -> bool:
        """Ask for the brokers of the cluster: ready when there is one."""
        # Metadata request v1: api key, version, correlation id, no client id, no topics.
        request = struct.pack(">hhihi", METADATA, 1, 1, -1, 0)
        with socket.create_connection((self.host, self.port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            reply = _receive(connection, 12)
        _size, _correlation, brokers = struct.unpack(">iii", reply)
        return int(brokers) > 0

    def _format(self) -> None:
        self.properties_file.write_text(
            "".join(f"{key}={value}\n" for key, value in self._settings.items())
        )
        # 16 bytes; the first ones are ours, for an id that began with "-" would be taken as an option.
        cluster_id = urlsafe_b64encode(b"leadpulse" + os.urandom(7)).decode().rstrip("=")
        formatted = subprocess.run(
            [
                *("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"),
                f"-Dlog4j2.configurationFile={LOGGING}",
                *("-cp", self._classpath, "kafka.tools.StorageTool", "format"),
                *("-t", cluster_id, "-c", str(self.properties_file)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode != 0:
            msg = f"kafka: storage was not formatted: {formatted.stderr[-2000:]}"
            raise ServerError(msg)

    def _own_settings(self) -> dict[str, str]:
        controller = f"{self.host}:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            # One node holds everything once.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # Small and quick to come up.
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            "num.network.threads": "2",
            "num.io.threads": "4",
            # A group forms as soon as its first member asks.
            "group.initial.rebalance.delay.ms": "0",
            # Members of the tests may be declared dead sooner than in earnest.
            "group.min.session.timeout.ms": "1000",
            # After kill -9 the controller refuses the next life until the last one's session ends.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            msg = "the connection was closed before the answer came"
            raise ConnectionError(msg)
        received += piece
    return received
