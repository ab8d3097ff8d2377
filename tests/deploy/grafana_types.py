"""Reads dashboards with Grafana's own types and prints what those understood; run by uvx."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder  # type: ignore[import-not-found] # only uvx has it
from grafana_foundation_sdk.cog.plugins import register_default_plugins  # type: ignore[import-not-found] # only uvx has it
from grafana_foundation_sdk.models.dashboard import Dashboard  # type: ignore[import-not-found] # only uvx has it

register_default_plugins()
dashboards = [Dashboard.from_json(json.loads(Path(name).read_text())) for name in sys.argv[1:]]
print(JSONEncoder().encode(dashboards))
