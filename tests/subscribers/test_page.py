"""The page of the examples."""

import re

from tests.documents import ROOT

EXAMPLES = ROOT / "examples"


def test_the_page_names_every_example_and_no_other() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {file.name for file in EXAMPLES.iterdir() if file.suffix in {".py", ".java"}}
    assert len(files) == 5
    assert files == set(re.findall(r"\]\((\w+\.(?:py|java))\)", text))
