"""A real Prometheus that scrapes one address every second."""

import json
import shutil
import subprocess
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.parts.install import MissingPartError
from tests.parts.server import Server

SETTINGS = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: leadpulse
    static_configs: [{{targets: ["{target}"]}}]
"""


class PrometheusServer(Server):
    """One Prometheus that reads `/metrics` of `target` (host:port).

    Raises:
        MissingPartError: if prometheus is not on PATH (`make parts`).
    """

    name = "prometheus"

    def __init__(self, target: str) -> None:
        if not shutil.which("prometheus"):
            msg = "prometheus is not on PATH: run `make parts`"
            raise MissingPartError(msg)
        super().__init__()
        (self.directory / "prometheus.yml").write_text(SETTINGS.format(target=target))

    def command(self) -> list[str]:
        """Return prometheus with its data in our directory."""
        return [
            "prometheus",
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.host}:{self.port}",
        ]

    def answers(self) -> bool:
        """Ask whether it is ready; until then the answer is an error, which is an OSError."""
        with urlopen(f"http://{self.host}:{self.port}/-/ready", timeout=2) as response:
            return bool(response.status == 200)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that an instant query gives."""
        url = f"http://{self.host}:{self.port}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(url, timeout=10) as response:
            told = json.load(response)
        return [(one["metric"], float(one["value"][1])) for one in told["data"]["result"]]


def promtool_faults(exposition: str) -> str:
    """Return what `promtool check metrics` has to say against a text; empty if nothing.

    Raises:
        MissingPartError: if promtool is not on PATH (`make parts`).
    """
    if not shutil.which("promtool"):
        msg = "promtool is not on PATH: run `make parts`"
        raise MissingPartError(msg)
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    return said or ("" if done.returncode == 0 else f"exit status {done.returncode}")
