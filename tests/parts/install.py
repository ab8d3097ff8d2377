"""Puts what the tests need besides Python on this machine: Java, Maven, Redis, Prometheus with
its Alertmanager, Chromium, Kafka's jars.

`python -m tests.parts.install`, called by make; quick when everything is there.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
POM = Path(__file__).with_name("kafka") / "pom.xml"
OLDEST_JAVA = 17
POLICY = Path("/usr/sbin/policy-rc.d")


class MissingPartError(Exception):
    """Something that tests stand on is not on this machine; the text says what to do."""


def main() -> None:
    """Install what is missing, or name it in one line and exit with status 1."""
    try:
        install_programs()
        install_kafka()
    except MissingPartError as error:
        sys.exit(f"parts: {error}")


def kafka_version() -> str:
    """Return the version that `kafka/pom.xml` names."""
    maven = {"m": "http://maven.apache.org/POM/4.0.0"}
    for dependency in ET.parse(POM).iterfind(".//m:dependency", maven):
        if dependency.findtext("m:artifactId", "", maven).startswith("kafka_"):
            return dependency.findtext("m:version", "", maven)
    msg = f"{POM}: expected a dependency kafka_*, found none"
    raise MissingPartError(msg)


def kafka_libraries() -> Path:
    """Return the folder with Kafka's jars.

    Raises:
        MissingPartError: unless `install_kafka` put them there from the present pom.
    """
    folder = ROOT / ".parts" / f"kafka-{kafka_version()}"
    copied_pom = folder / "pom.xml"
    if not copied_pom.is_file() or copied_pom.read_bytes() != POM.read_bytes():
        msg = f"Kafka's jars are not in {folder}: run `make parts`"
        raise MissingPartError(msg)
    return folder / "lib"


def java_version(program: str = "java") -> int:
    """Return the major version of the Java on PATH, or 0 without one."""
    if not shutil.which(program):
        return 0
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr)
    return int(found[1]) if found else 0


def install_programs() -> None:
    """Install the programs that are missing with apt.

    Raises:
        MissingPartError: where that is not possible.
    """
    packages = _missing_packages()
    if not packages:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        msg = (
            f"the tests need {', '.join(packages.values())}, which this machine lacks: install"
            f" them, or as root: apt-get install {' '.join(packages)}"
        )
        raise MissingPartError(msg)
    print(f"parts: installing {', '.join(packages.values())} with apt", flush=True)
    with _no_services():
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *packages)
        if java_version() < OLDEST_JAVA:  # what a distribution calls default may be older
            _apt("install", "-y", "--no-install-recommends", "openjdk-17-jre-headless")
    still_missing = _missing_packages()
    if still_missing:
        msg = f"apt installed {' '.join(packages)}, but {', '.join(still_missing.values())}: still not on PATH"
        raise MissingPartError(msg)


def install_kafka() -> None:
    """Copy Kafka's jars from Maven Central, once for each change of the pom."""
    try:
        kafka_libraries()
    except MissingPartError:
        print(f"parts: fetching Apache Kafka {kafka_version()} with Maven", flush=True)
    else:
        return
    parts = ROOT / ".parts"
    parts.mkdir(exist_ok=True)
    folder = parts / f"kafka-{kafka_version()}"
    with tempfile.TemporaryDirectory(dir=parts) as made:
        # Moved into place when complete, so that an interrupted run leaves nothing half done.
        fetched = Path(made) / "kafka"
        output = f"-DoutputDirectory={fetched / 'lib'}"
        _run(["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", output])
        shutil.copy(POM, fetched)
        shutil.rmtree(folder, ignore_errors=True)
        fetched.rename(folder)


def _missing_packages() -> dict[str, str]:
    """Return what is missing: apt's name of it, and ours."""
    missing = {}
    if java_version() < OLDEST_JAVA:
        missing["default-jre-headless"] = f"Java {OLDEST_JAVA} or newer"
    if not shutil.which("mvn") and not _has_kafka():
        missing["maven"] = "Maven (mvn)"
    if not shutil.which("redis-server"):
        missing["redis-server"] = "redis-server"
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        missing["prometheus"] = "prometheus and promtool"
    if not shutil.which("prometheus-alertmanager") or not shutil.which("amtool"):
        missing["prometheus-alertmanager"] = "prometheus-alertmanager and amtool"
    if not shutil.which("chromium"):
        missing["chromium"] = "chromium"
    return missing


def _has_kafka() -> bool:
    try:
        kafka_libraries()
    except MissingPartError:
        return False
    return True


def _apt(*arguments: str) -> None:
    _run(["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", *arguments])


def _run(command: list[str]) -> None:
    """Run a command quietly; show what it said only when it fails."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout[-4000:], file=sys.stderr)
        msg = f"`{' '.join(command)}` ended with status {done.returncode}, see above"
        raise MissingPartError(msg)


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep dpkg from starting redis-server as a service of the machine."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    main()
