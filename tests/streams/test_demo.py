import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from kpis.facts import OVERALL, Scope
from streams.demo_parts import Folder, WorkerProcess, demo_settings, settings_text
from streams.demo_screen import (
    Lines,
    LiveTable,
    Moment,
    Places,
    directions,
    has_desktop,
    has_kpi,
    headline,
    screen_of,
)
from streams.problems import Problem
from streams.settings import Settings, load
from streams.simulate import Plan
from streams.top import NONE, View
from tests.parts.server import free_port

GOOGLE = Scope("google_ads", None)
BUDGET_MB = 250
FIRST_KPI_SECONDS = 15
TROUBLE = Problem("here", "all well", "trouble")
LEADPULSE = (sys.executable, "-c", "from streams.cli import main; main()")


def a_view(scope: Scope = OVERALL, **fields: str) -> View:
    return View(scope, {"ctr": "0.03", "leads": "4", "cpl": "12.5", **fields}, {})


def a_page(width: int = 80) -> Console:
    return Console(width=width, no_color=True)


def own(settings: Settings | None = None) -> Settings:
    return demo_settings(settings or load({}), "127.0.0.1:1", "redis://127.0.0.1:2/0")


# --------------------------------------------------------------------------- settings


def test_worker_reads_from_its_file_exactly_the_settings_of_the_demo(tmp_path: Path) -> None:
    file = tmp_path / "leadpulse.toml"
    given = load(
        {
            "LEADPULSE_CURRENCY": "CHF",
            "LEADPULSE_TIME_ZONE": "Europe/Zurich",
            "LEADPULSE_FUNNEL_ALIASES": "Kunde=customer",
            "LEADPULSE_CHANNELS_SEO_COST_EXPECTED": "true",
            "LEADPULSE_REJECTS_PERSONAL": 'prénom,quo"te',
        }
    )
    settings = own(given)
    file.write_text(settings_text(settings), encoding="utf-8")

    assert load({}, file) == settings


def test_what_the_user_set_for_another_kafka_does_not_count() -> None:
    given = load(
        {
            "LEADPULSE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "LEADPULSE_KAFKA_SASL_MECHANISM": "PLAIN",
            "LEADPULSE_KAFKA_SASL_USERNAME": "ada",
            "LEADPULSE_KAFKA_SASL_PASSWORD": "hunter2",
        }
    )

    assert own(given).kafka == own().kafka
    assert "hunter2" not in settings_text(own(given))


def test_metrics_move_to_a_free_port_if_theirs_is_taken() -> None:
    taken = free_port()
    asked = load({"LEADPULSE_METRICS": f"127.0.0.1:{taken}"})
    assert own(asked).metrics.port == taken

    async def while_it_is_taken() -> int:
        server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", taken)
        async with server:
            return own(asked).metrics.port

    assert asyncio.run(while_it_is_taken()) not in (taken, 0)


def test_zone_is_written_by_its_name() -> None:
    given = load({"LEADPULSE_TIME_ZONE": "Europe/Paris"})
    assert given.time_zone == ZoneInfo("Europe/Paris")
    assert tomllib.loads(settings_text(given))["time_zone"] == "Europe/Paris"


# --------------------------------------------------------------------------- the worker


def test_worker_that_ends_is_one_line_with_the_end_of_its_log(tmp_path: Path) -> None:
    worker = WorkerProcess(own(), tmp_path)
    with worker:
        assert worker._process is not None
        worker._process.wait(60)
        with pytest.raises(Problem) as raised:
            worker.check()

    line = str(raised.value)
    assert line.startswith("the demo's worker: expected a process that runs, got exit status 1: ")
    assert "Kafka at 127.0.0.1:1: expected a broker that answers, got connection refused" in line
    assert line.endswith(f"see {tmp_path}/worker.log")
    assert "\n" not in line


def test_folder_stays_only_if_there_is_a_problem_to_look_at() -> None:
    with Folder() as tidy:
        pass
    with pytest.raises(Problem), Folder() as kept:
        raise TROUBLE

    assert not tidy.exists()
    assert kept.is_dir()
    kept.rmdir()


# --------------------------------------------------------------------------- the screen


def test_lines_show_cost_per_lead_of_each_paid_channel_in_eighty_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Lines(a_page()) as lines:
        lines.show(Moment(4.2, 2_000, [a_view(), a_view(GOOGLE, cpl="1234.5")]))

    said, heading, numbers = capsys.readouterr().out.splitlines()
    assert said.startswith("waiting for the first KPI: ")
    assert heading.split()[:5] == ["s", "events", "leads", "CPL:", "all"]
    assert heading.split()[5:] == ["google_ads", "meta_ads", "linkedin_ads", "microsoft_ads"]
    assert numbers.split() == ["4", "2,000", "4", "12.50", "1,234.50", NONE, NONE, NONE]
    assert len(heading) == len(numbers) <= 80


def test_a_line_comes_every_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(a_page()) as lines:
        for second in range(3, 21):
            lines.show(Moment(float(second), 1, [a_view()]))

    shown = capsys.readouterr().out.splitlines()[2:]
    assert [int(line.split()[0]) for line in shown] == [3, 10, 15, 20]


def test_nothing_is_shown_before_there_is_a_kpi(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(a_page()) as lines:
        lines.show(Moment(1.0, 10, []))
        lines.show(Moment(2.0, 10, [View(OVERALL, {"impressions": "1"}, {})]))

    assert len(capsys.readouterr().out.splitlines()) == 1
    assert has_kpi([a_view()])


def test_live_table_says_how_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    page = Console(width=80, height=24, force_terminal=True, color_system=None)
    with suppress(KeyboardInterrupt), LiveTable(page, Plan(seconds=None)) as table:
        table.show(Moment(1.0, 100, []))
        table.show(Moment(7.0, 3_500, [a_view()]))
        raise KeyboardInterrupt

    shown = capsys.readouterr().out
    assert "opens its shards (1 s)" in shown
    # It stays where it is, and the cursor comes back.
    assert shown.endswith("\n7 s, 3,500 events sent; Ctrl-C ends\n\x1b[?25h")


def test_live_table_is_only_for_terminals() -> None:
    terminal, page = Console(force_terminal=True), Console(force_terminal=False)

    assert isinstance(screen_of(terminal, Plan(), plain=False), LiveTable)
    assert isinstance(screen_of(terminal, Plan(), plain=True), Lines)
    assert isinstance(screen_of(page, Plan(), plain=False), Lines)


def test_directions_say_where_everything_is_and_how_it_ends() -> None:
    page, metrics = "http://c:3/", "http://c:3/metrics"
    places = Places(page, "a:1", 2, "redis://b:2/0", metrics, Path("/x/l"), Path("/x/s"))

    assert headline(places) == "Live page: http://c:3/"
    told = directions(places, Plan(seconds=None))
    for part in ("a:1", "redis://b:2/0", "http://c:3/metrics", "/x/l", "LEADPULSE_CONFIG=/x/s"):
        assert part in told
    assert told.endswith("runs until Ctrl-C")
    assert directions(places, Plan(seconds=30)).endswith(
        "ends after 30 s and verifies every number"
    )


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ""}, "linux", False),
        ({}, "linux", False),
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22", "DISPLAY": ":10"}, "linux", False),
        ({"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "darwin", False),
    ],
)
def test_a_browser_is_only_for_the_desktop_of_who_asks(
    environ: dict[str, str], platform: str, expected: bool
) -> None:
    assert has_desktop(environ, platform) is expected


# --------------------------------------------------------------------------- all of it


@pytest.fixture
def demo(tmp_path: Path) -> Iterator["Running"]:
    running = Running(tmp_path)
    yield running
    running.close()


class Running:
    """A demo in a process of its own, in an empty folder, without settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("LEADPULSE_")}
        return own | {"TMPDIR": str(self.folder), "PYTHONPATH": str(Path.cwd())}

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*LEADPULSE, "demo", "--plain", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environ,
            )
        return self.process

    def start_on_a_desktop(self, opened: Path, *options: str) -> int:
        """Start it in a terminal, with a browser that only writes down what it is to open."""
        programs = self.folder / "programs"
        programs.mkdir()
        scripts = {
            # Its name comes into being with the whole text in it.
            "xdg-open": f'echo "$1" > {opened}.new && mv {opened}.new {opened}',
            # Nobody has chosen another browser.
            "xdg-settings": "exit 1",
        }
        for name, text in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        environ = {k: v for k, v in self.environ.items() if k not in ("BROWSER", "SSH_CONNECTION")}
        environ |= {"PATH": f"{programs}:/usr/bin:/bin", "DISPLAY": ":77", "TERM": "xterm"}
        terminal, inner = os.openpty()
        self.process = subprocess.Popen(
            [*LEADPULSE, "demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=inner,
            stderr=inner,
            cwd=self.folder,
            env=environ,
        )
        os.close(inner)
        return terminal

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        assert self.process is not None
        for _ in range(int(seconds / 0.1)):
            if text in self.said:
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                break
        assert text in self.said

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


def memory_mb(root: int) -> float:
    """Return what a process and all its descendants hold, shared pages counted once (PSS), in MB."""
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        with suppress(OSError):
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                todo += map(int, children.read_text().split())
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int((re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE) or ["", "0"])[1])
    return total / 1024


@pytest.mark.integration
def test_demo_ends_by_itself_exact_small_and_quick(demo: Running) -> None:
    process, most = demo.start("--seconds", "20"), 0.0
    while process.poll() is None:
        most = max(most, memory_mb(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3)

    assert process.returncode == 0, demo.said
    assert re.search(r"^exact: [\d,]+ events, [\d,]+ values$", demo.said, re.MULTILINE)
    assert re.search(r"^ linkedin_ads +whitepaper ", demo.said, re.MULTILINE)
    first = re.search(r"^first KPI ([\d.]+) s after", demo.said, re.MULTILINE)
    assert first is not None
    assert float(first[1]) < FIRST_KPI_SECONDS
    assert 0 < most < BUDGET_MB
    assert [one.name for one in demo.folder.iterdir()] == ["output"]


@pytest.mark.integration
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_endless_demo_stops_cleanly_when_asked(demo: Running, name: signal.Signals) -> None:
    process = demo.start()
    demo.wait_for("first KPI")
    process.send_signal(name)

    assert process.wait(30) == 0
    assert demo.said.endswith("stopped\n")
    assert "Traceback" not in demo.said
    assert [one.name for one in demo.folder.iterdir()] == ["output"]


@pytest.mark.integration
def test_demo_on_a_desktop_opens_the_live_page_once_there_are_numbers(
    demo: Running, tmp_path: Path
) -> None:
    opened = tmp_path / "opened"
    terminal = demo.start_on_a_desktop(opened)
    assert demo.process is not None
    said = b""
    while demo.process.poll() is None and not opened.exists():
        said += os.read(terminal, 4096)

    (headline,) = re.findall(r"Live page: (http://127\.0\.0\.1:\d+/)", said.decode())
    assert opened.read_text() == f"{headline}\n"
    with urlopen(headline, timeout=10) as page:
        assert page.read().startswith(b"<!doctype html>")
    with urlopen(f"{headline}board", timeout=10) as answer:
        board = json.load(answer)
    assert board["status"]["redis"] == "ok"
    assert int(board["numbers"]["period|last_1h|_all|_all"]["impressions"]) > 0
    # The running hour may not be reached yet.
    assert any(impressions > 0 for _, impressions, *_ in board["series"]["_all"])
    demo.process.send_signal(signal.SIGINT)
    with suppress(OSError):
        # The other end is closed when it has ended.
        while os.read(terminal, 4096):
            pass
    assert demo.process.wait(30) == 0
    os.close(terminal)


@pytest.mark.integration
def test_demo_says_in_one_line_that_its_worker_died(demo: Running) -> None:
    process = demo.start()
    demo.wait_for("first KPI")
    os.kill(worker_of(process.pid), signal.SIGKILL)

    assert process.wait(30) == 1
    line = demo.said.splitlines()[-1]
    assert line.startswith("the demo's worker: expected a process that runs, got exit status -9: ")
    assert "Traceback" not in demo.said
    assert Path(line.rpartition("see ")[2]).is_file()


def worker_of(root: int) -> int:
    """Return the child of `root` that is a worker."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return next(pid for pid, line in lines.items() if line.endswith(b"\0worker\0"))
