"""The image without an engine: its build stage replayed in a folder, its user and root imitated."""

import fnmatch
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.deploy.files import dockerfile_steps, uv
from tests.parts.install import ROOT

USER: Final = 65532
INSTALLED: Final = "/opt/leadpulse"

# Every file system is made read-only; the user may read everything (the Python of a developer can
# be in a home), and write nothing.
_READ_ONLY: Final = """
while read -r _ place kind _; do
  case $kind in
    proc|sysfs|devpts|cgroup*|mqueue) ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
  esac
done < /proc/mounts
"""
_AS_ROOT: Final = (
    f"{_READ_ONLY}exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs"
    " --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
    ' --bounding-set=-all,+dac_read_search "$@"'
)


def build(directory: Path) -> Path:
    """Replay the build stage of the Dockerfile in `directory`, and return the installed environment.

    Its Python is the one that runs the tests.
    """
    context = directory / "build"
    context.mkdir()
    installed = directory / INSTALLED.lstrip("/")
    environment = {**os.environ, "UV_PYTHON": sys.executable}
    for word, rest in _build_stage():
        if word == "ENV":
            environment |= dict(
                pair.split("=", 1) for pair in shlex.split(rest.replace(INSTALLED, str(installed)))
            )
        elif word == "COPY" and not rest.startswith("--from"):
            _copy(rest.split(), context)
        elif word == "RUN":
            command = [uv() if part == "uv" else part for part in shlex.split(rest)]
            done = subprocess.run(
                command, cwd=context, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{rest}: {done.stderr}"
    shutil.rmtree(context)
    return installed


def confined(command: list[str]) -> list[str]:
    """Return `command` where every file system is read-only, as the image's user where we may be root."""
    if os.geteuid() == 0:
        return ["unshare", "--mount", "sh", "-c", _AS_ROOT, "--", *command]
    inner = f'{_READ_ONLY}exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner, "--", *command]


def final_environment() -> dict[str, str]:
    """Return what the image itself sets, but PATH."""
    pairs = (shlex.split(rest) for word, rest in _final_stage() if word == "ENV")
    found = dict(pair.split("=", 1) for group in pairs for pair in group)
    found.pop("PATH")
    return found


def final(instruction: str) -> str:
    """Return what the last stage says after an instruction that it has once."""
    [rest] = [rest for word, rest in _final_stage() if word == instruction]
    return rest


def _build_stage() -> list[tuple[str, str]]:
    steps = dockerfile_steps()
    starts = [i for i, (word, _) in enumerate(steps) if word == "FROM"]
    return steps[starts[-2] : starts[-1]]


def _final_stage() -> list[tuple[str, str]]:
    steps = dockerfile_steps()
    return steps[max(i for i, (word, _) in enumerate(steps) if word == "FROM") :]


def _copy(words: list[str], context: Path) -> None:
    *sources, target = words
    for source in sources:
        assert _is_sent(source), f".dockerignore leaves out {source}, which the Dockerfile copies"
        place = context / target / (source if target.endswith("/") else "")
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(ROOT / source, context / target, ignore=ignored)
        else:
            shutil.copy(ROOT / source, place)


def _is_sent(source: str) -> bool:
    is_sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and fnmatch.fnmatch(source, pattern.lstrip("!")):
            is_sent = pattern.startswith("!")
    return is_sent
