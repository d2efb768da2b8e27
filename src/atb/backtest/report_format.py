"""How numbers, times and tables are written in the report. Everything that comes from outside goes through `esc`."""

from __future__ import annotations

import datetime as dt
import html
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from atb.core.timeframe import iso_minute

NA = "n/a"
MINUS = "\N{MINUS SIGN}"


class Markup(str):
    """HTML that is safe as it stands; plain strings are escaped wherever they meet HTML."""


class Cell(NamedTuple):
    """A table cell: what is shown, and what the browser sorts by."""

    shown: str
    sort: float | str | None = None
    css: str = ""


class Column(NamedTuple):
    """A table column: its heading, and whether it holds numbers (aligned right)."""

    title: str
    number: bool = True


Rows = Iterable[Sequence[Cell | str]]


def esc(text: Any) -> Markup:
    """`text` as HTML: escaped unless it is Markup already."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text), quote=True))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def number(value: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """`1,234.50`, with a true minus; n/a for None, NaN and infinity. What rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return NA
    text = f"{abs(value):,.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def percent(fraction: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """A fraction as `12.34%`; whole percents from 1,000% on."""
    if fraction is None or not math.isfinite(fraction):
        return NA
    return number(fraction * 100.0, decimals if abs(fraction) < 10 else 0, signed=signed) + "%"


def change(fraction: float | None) -> str:
    """A gain or loss: a percentage that always carries its sign."""
    return percent(fraction, signed=True)


def money_decimals(balance: float) -> int:
    """Decimal places of money in a quote of which `balance` is a usual amount: 2 for dollars, more for bitcoin."""
    return 2 if balance >= 100 else max(2, 6 - math.floor(math.log10(balance)))


def price(value: float | None) -> str:
    """At least six significant digits, at least two decimals."""
    if value is None or not math.isfinite(value):
        return NA
    digits = 2 if value == 0 else max(2, 5 - math.floor(math.log10(abs(value))))
    return number(value, digits)


def quantity(value: float, lot: Decimal) -> str:
    """Base units, with the decimals of the lot."""
    return number(value, max(0, -int(lot.normalize().as_tuple().exponent)))


def count(value: int) -> str:
    return f"{value:,}"


def hours(value: float | None) -> str:
    """A duration given in hours, in the unit that suits its size."""
    if value is None or not math.isfinite(value):
        return NA
    for at_least, size, unit in ((48.0, 24.0, "days"), (1.0, 1.0, "h"), (1 / 60, 1 / 60, "min")):
        if value >= at_least:
            return f"{number(value / size, 1)} {unit}"
    return f"{number(value * 3600, 0)} s"


def days(value: float) -> str:
    """Whole days."""
    text = number(value, 0)
    return f"{text} day" if text == "1" else f"{text} days"


def parse_ms(text: str) -> int | None:
    """An ISO time as ms UTC; None where it is not one."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1000)


def moment(text: str | None) -> str:
    """`2024-01-31 12:00` of an ISO time (the date alone at midnight); other text as it is."""
    if text is None:
        return NA
    ms = parse_ms(text)
    return text if ms is None else iso_minute(ms).removesuffix(" 00:00")


def words(name: str) -> str:
    """`out_of_sample` as `out of sample`."""
    return name.replace("_", " ")


def tone(value: float | None) -> str:
    """The CSS class of a gain, a loss, or neither."""
    if value is None or not _finite(value) or value == 0:
        return ""
    return "gain" if value > 0 else "loss"


def plain(value: Any) -> str:
    """A fact of unknown type: `a = 1, b = 2` for a mapping, short numbers, yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return NA if not math.isfinite(value) else f"{value:.10g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} = {plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value) or "none"
    return NA if value is None else str(value)


def table(columns: Sequence[Column], rows: Rows, css: str = "", *, tall: bool = False) -> Markup:
    """An HTML table in a box that scrolls sideways, a `tall` one also down; the first cell of a row is its heading."""
    head = "".join(f'<th scope="col"{_class(_align(c))}>{esc(c.title)}</th>' for c in columns)
    body = "\n".join(_row(columns, row) for row in rows)
    return Markup(
        f'<div{_class("scroll", "tall" if tall else "")} tabindex="0"><table{_class(css)}>\n'
        f"<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(columns: Sequence[Column], row: Sequence[Cell | str]) -> str:
    cells = []
    for i, (column, cell) in enumerate(zip(columns, row, strict=True)):
        cell = cell if isinstance(cell, Cell) else Cell(cell)
        tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
        sort = "" if cell.sort is None else f' data-v="{esc(cell.sort)}"'
        cells.append(f"<{tag}{scope}{_class(_align(column), cell.css)}{sort}>{esc(cell.shown)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _align(column: Column) -> str:
    return "n" if column.number else ""


def _class(*names: str) -> str:
    joined = " ".join(name for name in names if name)
    return f' class="{joined}"' if joined else ""


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A list of names and values."""
    items = "\n".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in pairs)
    return Markup(f'<dl class="facts">\n{items}\n</dl>')


def section(anchor: str, title: str, *parts: str) -> Markup:
    """A section of the page with its heading."""
    body = "\n".join(esc(part) for part in parts if part)
    heading = f'<h2 id="{anchor}-h">{esc(title)}</h2>'
    return Markup(f'<section id="{anchor}" aria-labelledby="{anchor}-h">\n{heading}\n{body}\n</section>')


def note(text: str) -> Markup:
    """A remark in small print."""
    return Markup(f'<p class="note">{esc(text)}</p>')
