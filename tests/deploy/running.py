"""Services of docker-compose.yml as processes: their own settings, on free ports of this machine."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.deploy import image as images
from tests.deploy.files import Service, flags, on_host
from tests.parts.kafka_broker import LOGGING, KafkaBroker
from tests.parts.prometheus_server import PrometheusServer
from tests.parts.redis_server import RedisServer
from tests.parts.server import ServerError, free_port

WRAPPER: Final = "kafka.docker.KafkaDockerWrapper"
"""What the image apache/kafka runs before its broker: makes server.properties, formats the storage."""


class ComposeKafka(KafkaBroker):
    """The broker of docker-compose.yml, set up by the program that its image uses.

    Only ports, the folder and the name `kafka` differ: all of them are of this machine.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.containers_port = free_port()
        self._environment = {
            name: self._here(value) for name, value in service["environment"].items()
        }

    @property
    def properties_file(self) -> Path:
        """Where the image's program has written the settings."""
        return self.directory / "final" / "server.properties"

    def here(self, address: str) -> str:
        """Return what stands for `kafka:19092` or `localhost:9092`."""
        return self._here(address)

    def _here(self, text: str) -> str:
        text = text.replace(":19092", f":{self.containers_port}").replace("kafka:", "127.0.0.1:")
        text = text.replace(":9092", f":{self.port}").replace(":9093", f":{self.controller_port}")
        return text.replace("/var/lib/kafka/data", str(self.directory / "data"))

    def _format(self) -> None:
        folders = {name: self.directory / name for name in ("default", "mounted", "final")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        options = [
            word
            for name, folder in folders.items()
            for word in (f"--{name}-configs-dir", str(folder))
        ]
        done = subprocess.run(
            [
                *("java", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", self._classpath),
                *(WRAPPER, "setup", *options),
            ],
            env={"PATH": os.environ["PATH"], **self._environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            msg = f"kafka: {WRAPPER} failed: {(done.stdout + done.stderr)[-2000:]}"
            raise ServerError(msg)


class ComposeRedis(RedisServer):
    """The Redis of docker-compose.yml: its own file, another port."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        program, file = service["command"]
        self._command = [program, str(on_host(service, file))]

    def command(self) -> list[str]:
        """Return redis-server with the file that is mounted."""
        return [*self._command, "--port", str(self.port), "--dir", str(self.directory)]


class ComposePrometheus(PrometheusServer):
    """The Prometheus of docker-compose.yml: its own files and flags, other port and folder."""

    def __init__(self, service: Service) -> None:
        super().__init__("127.0.0.1:9")
        given = flags(service)
        given["--config.file"] = str(on_host(service, given["--config.file"]))
        given["--storage.tsdb.path"] = str(self.directory / "data")
        given["--web.listen-address"] = f"{self.host}:{self.port}"
        self._command = ["prometheus", *(f"{name}={value}" for name, value in given.items())]

    def command(self) -> list[str]:
        """Return prometheus with what docker-compose.yml gives it."""
        return self._command


def leadpulse(
    image: Path, service: Service, hosts: Mapping[str, str], arguments: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a service of ours, on a read-only root.

    `hosts` are the places on this machine of what the settings name.
    """
    environment = {**images.final_environment(), "PATH": os.environ["PATH"]}
    for name, text in service["environment"].items():
        for there, here in hosts.items():
            text = text.replace(there, here)  # noqa: PLW2901 - one after the other
        environment[name] = str(on_host(service, text)) if text.startswith("/") else text
    return images.confined([str(image / "bin" / "leadpulse"), *arguments]), environment
