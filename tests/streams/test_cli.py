import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kpis.catalog import Catalog
from kpis.facts import BASES
from kpis.kpi_table import markdown_table
from streams import cli
from streams.cli import main
from streams.settings import load
from streams.top import WINDOWS
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.server import free_port

DATA = Path(__file__).parents[1] / "data" / "facebook_ads.csv"
COMMANDS = (
    *(
        "worker",
        "simulate",
        "import",
        "topics",
        "top",
        "explain",
        "kpis",
        "schemas",
        "alerts",
        "verify",
        "demo",
    ),
)
# What a command cannot do without.
ARGUMENTS = {"explain": ["all", "1d", "cpl"]}


def run(*arguments: str, **environ: str) -> Result:
    variables = {"LEADPULSE_KAFKA": f"localhost:{free_port()}", "COLUMNS": "140", **environ}
    return CliRunner().invoke(main, arguments, env=variables)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.output


@pytest.mark.parametrize(
    "command",
    [
        *([name] for name in COMMANDS),
        ["import", "facebook-ads"],
        ["alerts", "rules"],
        ["alerts", "test"],
    ],
)
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert "leadpulse" in result.output


def test_version_is_that_of_the_package() -> None:
    assert run("--version").output.startswith("leadpulse, version ")


@pytest.mark.parametrize(
    "command", [[name, *ARGUMENTS.get(name, [])] for name in COMMANDS if name != "import"]
)
def test_wrong_setting_is_one_line_and_status_two(command: list[str]) -> None:
    result = run(*command, LEADPULSE_KAFKA="nonsense")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "kafka.servers (LEADPULSE_KAFKA): expected host:port, several separated by commas, "
        "got 'nonsense'\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["simulate", "--events", "10"],
        ["topics"],
        ["topics", "--create"],
        ["explain", "all", "1d", "cpl"],
        ["alerts"],
        ["alerts", "--json"],
        ["alerts", "test", "cpl_spike", "--from", "2026-11-01"],
        ["import", "facebook-ads", str(DATA)],
        ["worker"],
    ],
)
def test_kafka_that_is_not_there_is_one_line_and_status_one(command: list[str]) -> None:
    arguments = [sys.executable, "-c", "from streams.cli import main; main()", *command]
    servers = f"localhost:{free_port()}"
    said = subprocess.run(
        arguments,
        env={"LEADPULSE_KAFKA": servers, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr == (
        f"Kafka at {servers}: expected a broker that answers, got connection refused; "
        "start it or set LEADPULSE_KAFKA\n"
    )


def test_redis_that_is_not_there_is_one_line_and_status_one() -> None:
    result = run("top", LEADPULSE_REDIS=f"redis://localhost:{free_port()}/0")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "expected a server that answers, got connection refused" in result.stderr


def test_bad_file_is_one_line_and_status_one() -> None:
    result = run("import", "facebook-ads", "gone.csv")
    assert (result.exit_code, result.stderr) == (
        1,
        "gone.csv: expected a file to read, got No such file or directory\n",
    )


def test_config_option_names_the_settings_file() -> None:
    Path("mine.toml").write_text("currency = 'EURO'", encoding="utf-8")
    result = run("--config", "mine.toml", "topics")
    assert result.exit_code == 2
    assert result.stderr.startswith("currency (mine.toml): expected a currency code")


def test_kafka_option_wins_over_both_variables() -> None:
    servers = f"localhost:{free_port()}"
    result = run("topics", "--kafka", servers, LEADPULSE_KAFKA_SERVERS="other:1")
    assert result.stderr.startswith(f"Kafka at {servers}:")


def test_windows_and_bases_of_the_options_are_those_that_there_are() -> None:
    assert cli.WINDOWS == WINDOWS
    assert cli.BASES == BASES


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["google ads", "1d", "cpl"], "SCOPE: expected all, a channel or channel/campaign, got "),
        (["all", "yesterday", "cpl"], "WINDOW: expected one of 1m, 5m, 1h, 1d, 1w, 1mo, lifetime"),
        (["all", "1d", "cpll"], "KPI: expected the name of a KPI, got 'cpll'; did you mean cpl?"),
        (["all", "1d", "ctr", "--basis", "cohort"], "KPI: expected one of the cohort basis, got "),
    ],
)
def test_question_that_makes_no_sense_is_one_line_and_status_one(
    arguments: list[str], line: str
) -> None:
    result = run("explain", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_kpis_are_those_of_the_funnel_with_their_french_names() -> None:
    result = run("kpis", LEADPULSE_FUNNEL_STAGES="lead,demo,customer")
    assert result.exit_code == 0
    assert "stage_conversion.lead.demo" in result.stdout
    assert "stage_conversion.lead.mql" not in result.stdout
    for part in ("cost / leads", "Coût par lead", "target_attainment.<kpi>"):
        assert part in result.stdout


def test_kpis_in_markdown_are_the_documents_table() -> None:
    result = run("kpis", "--markdown")
    assert result.stdout == markdown_table(Catalog(load({}).funnel.stages).kpis)


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = "import sys, streams.cli; print(*{m.split('.')[0] for m in sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"faust", "aiokafka", "redis", "rich", "aiohttp"} & set(said.stdout.split())


@pytest.mark.integration
def test_topics_are_shown_created_and_checked(kafka: KafkaBroker, prefix: str) -> None:
    environ = {"LEADPULSE_KAFKA": kafka.bootstrap, "LEADPULSE_TOPICS_PREFIX": prefix}
    environ["LEADPULSE_APP_ID"] = prefix.strip(".")

    missing = run("topics", **environ)
    assert missing.exit_code == 1
    assert "missing" in missing.stdout
    assert "run `leadpulse topics --create`" in missing.stderr

    created = run("topics", "--create", "--partitions", "3", **environ)
    assert created.exit_code == 0, created.output
    assert created.stdout.startswith("created 19 topics")
    assert "missing" not in created.stdout

    again = run("topics", "--create", **environ)
    assert again.exit_code == 0
    assert again.stdout.startswith("nothing to create")


@pytest.mark.integration
def test_simulation_and_import_say_what_they_sent(kafka: KafkaBroker, prefix: str) -> None:
    environ = {"LEADPULSE_KAFKA": kafka.bootstrap, "LEADPULSE_TOPICS_PREFIX": prefix}
    environ["LEADPULSE_APP_ID"] = prefix.strip(".")
    assert run("topics", "--create", **environ).exit_code == 0

    simulated = run("simulate", "--events", "2000", "--rate", "100000", "--seed", "9", **environ)
    assert simulated.exit_code == 0, simulated.output
    assert simulated.stdout.startswith("sent 2,000 events, seed 9: ")

    imported = run("import", "facebook-ads", str(DATA), **environ)
    assert imported.exit_code == 0, imported.output
    assert imported.stdout == f"sent 7,772 events from {DATA}\n"


def test_rules_in_force_are_listed(tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text("[cpl_spike]\nratio = 2\n", encoding="utf-8")
    result = run("alerts", "rules", LEADPULSE_ALERTS_RULES="alerts.toml")
    assert result.exit_code == 0
    assert "  ratio = 2.0  (default 1.5)\n" in result.stdout
    assert "\npacing_behind\n" in result.stdout


def test_wrong_rule_is_one_line_and_status_two(tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text("[cpl_spik]\n", encoding="utf-8")
    result = run("alerts", LEADPULSE_ALERTS_RULES="alerts.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("alerts.toml: cpl_spik: expected kind to be one of cpl_spike, ")
    assert result.stderr.endswith("got 'cpl_spik'; did you mean cpl_spike?\n")


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            ["cpl_spikes", "--from", "2026-03-01"],
            (
                "RULE: expected one of cpl_spike, spend_stopped, leads_stopped, cost_missing, "
                "conversion_drop, pacing_behind, got 'cpl_spikes'; did you mean cpl_spike?"
            ),
        ),
        (
            ["cpl_spike", "--from", "2099-01-01"],
            "--from: expected a time that has been, got '2099-01-01'",
        ),
        (
            ["cpl_spike", "--from", "1 March"],
            (
                "--from: expected a date or time of the years 2000 to 2100 such as 2026-11-01 or "
                "2026-11-01T10:00, got '1 March'"
            ),
        ),
        (
            ["cpl_spike", "--from", "2026-03-02", "--to", "2026-03-01"],
            "--to: expected a time after --from, got '2026-03-01'",
        ),
        (
            ["spend_stopped", "--from", "2026-03-02", "--scope", "google_ads/brand"],
            (
                "--scope: expected one that spend_stopped looks at (overall, channel), "
                "got google_ads/brand"
            ),
        ),
        (
            ["cpl_spike", "--from", "2026-03-02", "--scope", "all/x"],
            "SCOPE: expected all, a channel or channel/campaign, got 'all/x'",
        ),
    ],
)
def test_what_cannot_be_tried_is_one_line(asked: list[str], line: str) -> None:
    result = run("alerts", "test", *asked)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{line}\n"
