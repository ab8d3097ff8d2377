"""The pages for who writes programs beside LeadPulse."""

import re

from kpis.alert_records import TYPES
from kpis.windows import LEDGER_TYPES, UPDATED
from streams.settings import Settings
from streams.topics import DAY_MS, LEDGER, REJECTS, topics_of
from tests.documents import ROOT, document

EXAMPLES = ROOT / "examples"


def test_the_page_names_every_example_and_no_other() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {file.name for file in EXAMPLES.iterdir() if file.suffix in {".py", ".java"}}
    assert len(files) == 5
    assert files == set(re.findall(r"\]\((\w+\.(?:py|java))\)", text))


def test_the_page_for_subscribers_names_every_topic_and_type_that_is_written() -> None:
    text = document("docs/subscribing.md")
    topics = topics_of(Settings())
    written = {UPDATED, *LEDGER_TYPES.values(), *TYPES.values()}
    written |= {topics.kpis, topics.windows, topics.alerts, topics.rejects}
    assert written <= set(re.findall(r"`(leadgen\.[a-z0-9_.-]+)`", text))


def test_the_page_for_subscribers_says_how_long_records_are_kept() -> None:
    text = document("docs/subscribing.md")
    for name, configs in (("kpi-windows", LEDGER), ("rejects", REJECTS)):
        row = re.search(rf"^\| `leadgen\.{name}\.v1` \|.*\| (\d+) days \|", text, re.MULTILINE)
        assert row is not None
        assert int(row[1]) * DAY_MS == int(configs["retention.ms"])
