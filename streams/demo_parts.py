"""What the demo starts and takes away again: its folder, its settings, its worker."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from zoneinfo import ZoneInfo

from streams.problems import Problem
from streams.settings import GENERAL, PREFIX, Kafka, Metrics, Redis, Settings

APP_ID: Final = "demo"
PARTITIONS: Final = 2
PUBLISH_MS: Final = 1_000
"""Slower than usual: the embedded broker keeps only the last 5 MB of each partition."""

STOP_SECONDS: Final = 15.0
_START: Final = "from streams.cli import main; main()"
_SAID_CHARACTERS: Final = 300


def demo_settings(settings: Settings, kafka: str, redis_url: str) -> Settings:
    """Return `settings` with what is the demo's own: broker, Redis, name, a port that is free."""
    return replace(
        settings,
        general=replace(settings.general, app_id=APP_ID),
        kafka=Kafka(servers=kafka, embedded=True),
        redis=Redis(url=redis_url),
        metrics=_free(settings.metrics),
        topics=replace(settings.topics, partitions=PARTITIONS, replication=1),
        commit=replace(settings.commit, publish_ms=max(PUBLISH_MS, settings.commit.publish_ms)),
    )


def settings_text(settings: Settings) -> str:
    """Return `settings` as the text of a leadpulse.toml."""
    return "\n".join(_lines(settings)) + "\n"


class Folder:
    """A folder in the machine's place for such; it stays where there is a problem to be looked at."""

    def __enter__(self) -> Path:
        """Make it."""
        self._path = Path(tempfile.mkdtemp(prefix="leadpulse-demo-"))
        return self._path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Problem):
            shutil.rmtree(self._path, ignore_errors=True)


class WorkerProcess:
    """`leadpulse worker` in a process of its own; its log and its settings are files in `folder`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.log = folder / "worker.log"
        self.settings_file = folder / "leadpulse.toml"
        self._text = settings_text(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.settings_file.write_text(self._text, encoding="utf-8")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, our own words
                [sys.executable, "-c", _START, "--config", str(self.settings_file), "worker"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # All settings are in the file.
                env={k: v for k, v in os.environ.items() if not k.startswith(PREFIX)},
                # Ctrl-C in the terminal is for us; it is stopped before broker and Redis are.
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            Problem: once it has ended, with the end of its log.
        """
        if self._process is None or (status := self._process.poll()) is None:
            return
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        got = f"exit status {status}: {last:.{_SAID_CHARACTERS}}"
        where = "the demo's worker"
        raise Problem(where, "a process that runs", got, f"see {self.log}")


def _free(metrics: Metrics) -> Metrics:
    """Return `metrics`, with another port if that one is taken."""
    for port in (metrics.port, 0):
        with socket.socket() as probe:
            # As a server does: connections that are only being forgotten do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((metrics.host, port))
            except OSError:
                continue
            return replace(metrics, port=probe.getsockname()[1])
    return metrics


def _lines(settings: Settings) -> Iterator[str]:
    for section in fields(settings):
        if section.name != GENERAL:
            yield f"\n[{section.name}]"
        values = getattr(settings, section.name)
        for key in fields(values):
            # Only keys that may stand in a file; costs expected have tables of their own.
            if "reader" in key.metadata:
                yield f"{key.name} = {_toml(getattr(values, key.name))}"
    for channel, is_expected in settings.channels.cost_expected.items():
        yield f"\n[channels.{_toml(channel)}]\ncost_expected = {_toml(is_expected)}"


def _toml(value: object) -> str:
    """Return a value in TOML, which writes texts, numbers, truths and lists as JSON does."""
    if isinstance(value, ZoneInfo):
        return _toml(value.key)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
