"""The catalogue as a Markdown table, for the documents and the command line."""

from collections.abc import Iterable

from kpis.facts import BASES
from kpis.formulas import Kpi

HEADING = ("KPI", "formula", "unit", "basis", "zero rule", "French", "source")


def markdown_table(kpis: Iterable[Kpi]) -> str:
    """Return one row per KPI: name, formula, unit, basis, zero rule, French name and source.

    The zero rule is the reason given where the denominator is not positive; where the numerator is 0
    too it is `no_data`.
    """
    rows = [_row(HEADING), _row(("---",) * len(HEADING)), *(_row(_cells(kpi)) for kpi in kpis)]
    return "".join(f"{row}\n" for row in rows)


def _row(cells: Iterable[str]) -> str:
    # Stages are named by their users.
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cells(kpi: Kpi) -> tuple[str, ...]:
    return (
        f"`{kpi.name}.<kpi>`" if kpi.per_target else f"`{kpi.name}`",
        _formula(kpi),
        kpi.unit,
        ", ".join(kpi.bases) + (" (the whole only)" if kpi.is_overall else ""),
        f"`{kpi.reason}`",
        kpi.french,
        kpi.source,
    )


def _formula(kpi: Kpi) -> str:
    """Return the formula, or one for each basis if they differ."""
    by_basis = {basis: formula for basis in BASES if (formula := kpi.formula(basis)) is not None}
    texts = {basis: formula.text(kpi.unit) for basis, formula in by_basis.items()}
    if len({*texts.values()}) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{basis}: {text}" for basis, text in texts.items())
