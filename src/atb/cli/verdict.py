"""The verdict table: what the ledger says, what the exchange says, and what comes of it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb.execution.reconcile import Line, Verdict

HEADER = ("what", "database", "exchange", "difference", "explanation", "action")


def print_verdict(verdict: Verdict, title: str = "") -> None:
    """A table on a terminal, plain rows in a pipe; nothing where there is no difference."""
    from atb.cli.console import print_table

    if verdict.lines:
        print_table(HEADER, [[value or "" for value in _row(line).values()] for line in verdict.lines], title)


def verdict_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """The same for a program: amounts as text, exact."""
    return [_row(line) for line in verdict.lines]


def _row(line: Line) -> dict[str, str | None]:
    amounts = (_text(line.database), _text(line.exchange), _text(line.difference, sign=True))
    return dict(zip(HEADER, (line.subject, *amounts, line.explanation, line.action), strict=True))


def _text(amount: Decimal | None, sign: bool = False) -> str | None:
    if amount is None:
        return None
    return f"{amount.normalize():{'+' if sign else ''}f}" if amount else "0"
