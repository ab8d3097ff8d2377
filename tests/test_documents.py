"""What the documents say is so: tables are complete, examples are accepted, files exist."""

import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from kpis.catalog import Catalog
from kpis.events import TOPICS
from kpis.kpi_table import HEADING
from kpis.readers import READERS
from kpis.reading import read
from streams import settings
from streams.settings import SECTIONS, Settings, load
from streams.topics import topics_of
from tests.documents import CONTRACT, ROOT, document, examples_in
from tests.generated import WITH_KPIS, with_kpis

NOW_MS = 1_795_000_000_000


def rows_of(text: str, *heading: str) -> list[tuple[str, ...]]:
    """Return the rows of the table with this heading, without the quotation marks of code."""
    lines = text.splitlines()
    first = lines.index(f"| {' | '.join(heading)} |") + 2
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")))
    return rows


def anchors(text: str) -> set[str]:
    """Return what the headings of a document are linked as."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ZoneInfo):
        return value.key
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value) if value not in ("", {}) else "empty"


def test_reference_lists_every_setting_with_its_variable_and_default() -> None:
    expected = [
        (
            name if section == settings.GENERAL else f"{section}.{name}",
            variable,
            shown(getattr(SECTIONS[section](), name)),
        )
        for variable, (section, name) in settings._variables().items()
    ]
    rows = rows_of(document("docs/settings.md"), "key", "variable", "default", "meaning")

    assert [row[:3] for row in rows] == expected
    assert all(row[3].endswith(".") for row in rows)


def test_example_of_a_settings_file_is_accepted(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", document("docs/settings.md"), re.DOTALL)
    assert example is not None
    file = tmp_path / "leadpulse.toml"
    file.write_text(example[1], encoding="utf-8")

    assert load({"LEADPULSE_KAFKA_SASL_PASSWORD": "secret"}, file).channels.expects_cost("email")


@pytest.mark.parametrize("name", WITH_KPIS)
def test_tables_of_kpis_are_those_of_the_catalogue(name: str) -> None:
    assert document(name) == with_kpis(document(name)), "make docs writes them anew"


def test_every_kpi_has_a_row_with_its_formula_unit_bases_and_reason() -> None:
    kpis = Catalog(Settings().funnel.stages).kpis
    rows = rows_of(document("docs/kpis.md"), *HEADING)

    assert len(rows) == len(kpis)
    for row, kpi in zip(rows, kpis, strict=True):
        name, formula, unit, basis, reason, french, source = row
        assert name.removesuffix(".<kpi>") == kpi.name
        assert unit == kpi.unit
        assert reason == kpi.reason
        assert french == kpi.french
        assert source == kpi.source
        assert all(each in basis for each in kpi.bases)
        for each in kpi.bases:
            told = kpi.formula(each)
            assert told is not None
            assert told.text(kpi.unit) in formula


def test_a_document_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the marks of the table of KPIs once, got 0"):
        with_kpis("no table here")


@pytest.mark.parametrize("name", ["README.md", CONTRACT])
def test_examples_of_events_are_accepted_as_they_stand(name: str) -> None:
    for topic, line in examples_in(name):
        assert read(topic, line.encode(), NOW_MS, Settings().rules()).unknown_fields == 0, line


def test_contract_has_an_example_of_each_type_and_the_readme_of_each_topic() -> None:
    kinds = [re.findall(r'"type": "(.*?)"', line)[0] for _, line in examples_in(CONTRACT)]

    assert set(kinds) == READERS.keys()
    assert {topic for topic, _ in examples_in("README.md")} == TOPICS.keys()


def test_documents_name_only_files_and_headings_that_exist() -> None:
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8")):
            target, _, anchor = link.partition("#")
            file = path.parent / target if target else path
            assert file.is_file(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), link


def test_contract_lists_every_topic_with_its_types() -> None:
    rows = rows_of(
        document(CONTRACT), "topic", "types (the first is the default if `type` is absent)"
    )

    assert {topic: kinds for topic, kinds in rows} == {  # noqa: C416 - a row is no pair to mypy
        topics_of(Settings()).inputs[topic]: ", ".join(kinds) for topic, kinds in TOPICS.items()
    }


def test_contract_lists_every_field_of_every_type() -> None:
    envelope = frozenset.intersection(*(known for _, known in READERS.values()))
    told = {
        kind: fields
        for kinds, fields in rows_of(document(CONTRACT), "type", "fields")
        for kind in kinds.split(", ")
    }

    assert told.keys() == READERS.keys()
    for kind, (_, known) in READERS.items():
        # What takes a thing back has the fields of its key, told in one word.
        if "key fields" not in told[kind]:
            words = set(re.findall(r"[a-z_]+", told[kind]))
            assert known - envelope <= words, kind


def test_the_kpis_of_the_contract_are_in_the_catalogue_with_their_units_and_reasons() -> None:
    heading = "KPI", "numerator / denominator", "unit", "reason if undefined", "asked for as"
    rows = rows_of(document(CONTRACT), *heading, "French")
    expected = [
        ("stage_conversion.<from>.<to>" if kpi.name.startswith("stage_") else kpi.name, kpi)
        for kpi in Catalog(Settings().funnel.stages).kpis
    ]
    told = {
        name.removesuffix(".<kpi>"): (row[2], row[3])
        for row in rows
        for name in row[0].replace("`", "").split(" (")[0].split(", ")
    }

    # The catalogue may have more; docs/kpis.md always has them all.
    promised = [(name, kpi) for name, kpi in expected if name in told]
    assert list(told) == list(dict.fromkeys(name for name, _ in promised))
    for name, kpi in promised:
        unit, reasons = told[name]
        assert unit == kpi.unit
        assert kpi.reason in reasons


def test_compose_opens_ports_to_this_machine_only() -> None:
    ports = re.findall(r"ports: \[(.*?)\]", document("docker-compose.yml"))

    assert ports
    assert all(port.startswith('"127.0.0.1:') for port in ports)


def test_image_runs_without_root_and_with_the_uv_of_the_makefile() -> None:
    image = document("deploy/Dockerfile")
    pinned = re.search(r"UV_VERSION := (\S+)", document("Makefile"))

    assert pinned is not None
    assert f"/uv:{pinned[1]} " in image
    assert re.search(r"^USER (?!0|root)", image, re.MULTILINE)
