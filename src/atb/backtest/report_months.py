"""The report's table of monthly returns, coloured by sign and size."""

from __future__ import annotations

import math

from atb.backtest.report_format import Cell, Column, Markup, number, table, tone
from atb.backtest.result import BacktestResult

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SHADES = 5
SMALLEST_SCALE = 0.005  # of a month's return: below it, colours stay pale


def monthly_table(result: BacktestResult) -> Markup:
    """Years down, months across, the year's compounded return at the end."""
    by_year: dict[str, dict[int, float]] = {}
    for row in result.monthly_rows():
        year, month = row["month"].split("-")
        by_year.setdefault(year, {})[int(month)] = row["return_frac"]
    largest = max((abs(r) for months in by_year.values() for r in months.values()), default=0.0)
    rows = [_year_row(year, months, max(largest, SMALLEST_SCALE)) for year, months in by_year.items()]
    columns = [Column("", number=False), *(Column(name) for name in MONTHS), Column("Year")]
    return table(columns, rows, "months")


def _year_row(year: str, months: dict[int, float], largest: float) -> list[Cell | str]:
    cells: list[Cell | str] = [year]
    for month in range(1, 13):
        r = months.get(month)
        cells.append(Cell("") if r is None else Cell(number(r * 100.0, 1, signed=True), css=shade(r, largest)))
    total = math.prod(1.0 + r for r in months.values()) - 1.0
    return [*cells, Cell(number(total * 100.0, 1, signed=True), css=f"year {tone(total)}".strip())]


def shade(fraction: float, largest: float) -> str:
    """The CSS class of a month: its sign and, in steps, its size."""
    level = min(SHADES, math.ceil(SHADES * abs(fraction) / largest - 1e-9))
    if level == 0:
        return "m0"
    return f"{'up' if fraction > 0 else 'dn'}{level}"
