"""Records as a worker wrote them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kpis.schemas import OUTPUTS

FOLDER: Final = Path(__file__).parent / "examples"
EXAMPLES: Final[Mapping[str, list[dict[str, Any]]]] = {
    name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in OUTPUTS
}
"""By the name of their schema."""
