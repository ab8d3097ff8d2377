"""The Dockerfile: linted, its build stage replayed, its program run as its user on a read-only root."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from streams.settings import load
from tests.deploy import image as images
from tests.deploy.files import DOCKERFILE, HADOLINT, dockerfile_steps, run_tool, services
from tests.parts.install import ROOT


def run(image: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        images.confined([str(image / "bin" / command[0]), *command[1:]]),
        cwd="/",
        env=images.final_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_dockerfile_is_linted() -> None:
    done = run_tool(HADOLINT, "hadolint", DOCKERFILE)

    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_has_the_uv_of_make_and_the_oldest_python() -> None:
    bases = [rest.split()[0] for word, rest in dockerfile_steps() if word == "FROM"]

    assert f"UV_VERSION := {bases[0].rpartition(':')[2]}" in (ROOT / "Makefile").read_text()
    assert bases[1] == bases[2]
    assert bases[1].startswith("python:3.11.")


def test_image_runs_as_a_user_that_is_not_root_and_says_when_it_is_well() -> None:
    assert images.final("USER") == f"{images.USER}:{images.USER}"
    assert f":{load({}).metrics.port}/healthz" in images.final("HEALTHCHECK")
    assert services()["worker"]["user"] == images.final("USER")
    assert services()["worker"]["image"].endswith(f":{version('leadpulse')}")
    labels = next(rest for word, rest in dockerfile_steps() if word == "LABEL")
    assert f'image.version="{version("leadpulse")}"' in labels


def test_build_stage_leaves_nothing_behind_but_the_environment() -> None:
    copies = [rest for word, rest in dockerfile_steps() if word == "COPY"]

    assert copies[-1] == f"--from=build {images.INSTALLED} {images.INSTALLED}"


def test_nothing_can_be_written_where_the_tests_of_the_image_run(
    image: Path, tmp_path: Path
) -> None:
    # Proves the other tests of this file: what they run could not have written anything.
    for place in (tmp_path, image, Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"), Path("/")):
        program = f"open({str(place / 'written')!r}, 'w')"
        done = run(image, "python", "-c", program)
        assert "Read-only file system" in done.stderr, place


def test_installed_program_runs_on_a_read_only_root(image: Path) -> None:
    done = run(image, "leadpulse", "--version")

    assert done.stdout.split()[-1] == version("leadpulse"), done.stderr


def test_installed_package_is_whole(image: Path) -> None:
    packages = image / "lib"
    [streams] = packages.glob("python*/site-packages/streams")
    here = {
        str(file.relative_to(ROOT / "streams"))
        for file in (ROOT / "streams").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }

    installed = {str(file.relative_to(streams)) for file in streams.rglob("*") if file.is_file()}

    assert here <= installed
    assert not streams.is_symlink()
    assert list(streams.glob("__pycache__/app.*.pyc")), (
        "bytecode cannot be made on a read-only root"
    )


def test_image_counts_visitors_and_has_no_tools_of_developers(image: Path) -> None:
    done = run(image, "python", "-c", "import datasketches")

    assert done.returncode == 0, done.stderr
    programs = {file.name for file in (image / "bin").iterdir()}
    assert "leadpulse" in programs
    assert not programs & {"pytest", "ruff", "mypy", "uv", "pip"}
