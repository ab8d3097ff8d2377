"""The documents, and the events that they show."""

import re
from pathlib import Path
from typing import Final

from streams.settings import Settings
from streams.topics import topics_of

ROOT: Final = Path(__file__).parent.parent
CONTRACT: Final = "docs/contract.md"


def document(name: str) -> str:
    """Return the text of a document."""
    return (ROOT / name).read_text(encoding="utf-8")


def examples_in(name: str) -> list[tuple[str, str]]:
    """Return (short name of the topic, event) of every example in a document.

    Raises:
        ValueError: if it has none.
    """
    block = re.search(r"```json\n(# leadgen.*?)```", document(name), re.DOTALL)
    if block is None:
        msg = f"{name}: expected a block of events, got none"
        raise ValueError(msg)
    short = {full: topic for topic, full in topics_of(Settings()).inputs.items()}
    found, topic = [], ""
    for line in block[1].splitlines():
        if line.startswith("# "):
            topic = short[line.removeprefix("# ")]
        else:
            found.append((topic, line))
    return found
