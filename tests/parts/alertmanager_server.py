"""A real Alertmanager with a configuration of ours, and the receiver that it tells."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.request import Request, urlopen

from tests.parts.server import Server

SOON_SECONDS = 30.0
TURN_SECONDS = 0.05


class Notification(NamedTuple):
    """What a receiver was told: where, by whose token, and which alerts in which state."""

    path: str
    authorization: str
    alerts: list[tuple[str, str]]


class Receiver:
    """An HTTP server that takes every notification and remembers it."""

    def __init__(self) -> None:
        told: list[Notification] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                alerts = [(one["labels"]["alertname"], one["status"]) for one in body["alerts"]]
                token = self.headers.get("Authorization", "")
                told.append(Notification(self.path, token, alerts))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.told = told
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class AlertmanagerServer(Server):
    """One Alertmanager with the configuration `text`."""

    name = "alertmanager"

    def __init__(self, text: str) -> None:
        super().__init__()
        self.config.write_text(text)

    @property
    def config(self) -> Path:
        """The file with its configuration."""
        return self.directory / "alertmanager.yml"

    def command(self) -> list[str]:
        """Return Alertmanager alone, with its data in our directory."""
        return [
            "prometheus-alertmanager",
            f"--config.file={self.config}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address={self.host}:{self.port}",
            "--cluster.listen-address=",
        ]

    def answers(self) -> bool:
        """Ask whether it is ready; until then the answer is an error, which is an OSError."""
        with urlopen(f"http://{self.host}:{self.port}/-/ready", timeout=2) as response:
            return bool(response.status == 200)

    def post(self, *alerts: Mapping[str, str], are_over: bool = False) -> None:
        """Tell it alerts by their labels: that they fire, or that they are over."""
        now = datetime.now(UTC)
        ends = now if are_over else now + timedelta(hours=1)
        times = {
            "startsAt": (now - timedelta(minutes=1)).isoformat(),
            "endsAt": ends.isoformat(),
        }
        body = json.dumps([{"labels": dict(labels), **times} for labels in alerts]).encode()
        url = f"http://{self.host}:{self.port}/api/v2/alerts"
        request = Request(url, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as response:
            assert response.status == 200

    def states(self) -> dict[str, str]:
        """Return of each alert that fires whether it is "active" or "suppressed", by its name."""
        with urlopen(f"http://{self.host}:{self.port}/api/v2/alerts", timeout=10) as response:
            alerts: list[dict[str, Any]] = json.load(response)
        return {one["labels"]["alertname"]: one["status"]["state"] for one in alerts}


def until(condition: Callable[[], bool], what: str) -> None:
    """Return when `condition` holds.

    Raises:
        TimeoutError: unless it soon does.
    """
    deadline = time.monotonic() + SOON_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            msg = f"expected within {SOON_SECONDS:.0f} s: {what}"
            raise TimeoutError(msg)
        time.sleep(TURN_SECONDS)
