"""Book executions that an exchange's export lists: trades made by hand, or while nothing was running."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import AtbError, DataError, UsageError
from atb.core.timeframe import parse_time_ms
from atb.core.types import symbol_for
from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.entries import Entry, fill_id
from atb.ledger.line import Line
from atb.ops.closing import open_positions

if TYPE_CHECKING:
    from psycopg import Connection

NEEDED = ("time", "symbol", "side", "qty", "price", "trade_id")
CLOCKS_DIFFER = timedelta(days=1)  # whatever the time zone
OPTIONAL = ("fee", "fee_asset", "fee_quote", "client_order_id")


class Imported(NamedTuple):
    """How many executions were new, and how many were there. short: what more was sold of, on a spot account, than bought."""

    booked: int
    known: int
    short: list[str]


def import_file(line: Line, path: Path, account: str | None) -> Imported:
    """Append the file's executions to an account, all or none."""
    chosen = _account(line.connection, account)
    entries = [_entry(chosen, path, number, row) for number, row in _rows(path)]
    # Asked before: an append that had to find out whether it was written does not know what was new.
    new = {entry.id for entry in entries} - _known(line.connection, chosen, entries)
    line.connection.rollback()
    line.append_beside(chosen.id, sorted(entries, key=lambda entry: entry.at))
    held = line.surely(lambda connection: open_positions(connection, chosen))
    short = [h.symbol for h in held if h.side == "SHORT" and h.market == "spot"]
    return Imported(len(new), len(entries) - len(new), short)


def _known(connection: Connection[Any], account: AccountRow, entries: list[Entry]) -> set[str]:
    query = "SELECT id FROM entries WHERE account_id = %s AND id = ANY(%s)"
    return {row[0] for row in connection.execute(query, (account.id, [entry.id for entry in entries]))}


def _account(connection: Connection[Any], name: str | None) -> AccountRow:
    accounts = all_accounts(connection)
    chosen = [account for account in accounts if name in (None, account.name)]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(account.name for account in accounts) or "none"
    if not chosen:
        raise UsageError(f"There is no account {name or 'yet'} (known: {known}).", "See: atb db sessions")
    raise UsageError(f"There are several accounts: {known}.", "Say which: --account NAME")


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8.", "Save it as CSV.") from None
    try:
        return _checked_rows(path, csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}.") from None


def _checked_rows(path: Path, reader: csv.DictReader[str]) -> list[tuple[int, dict[str, str]]]:
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: the header lacks {', '.join(missing)}.",
            f"It needs {', '.join(NEEDED)}; {', '.join(OPTIONAL)} if known.",
        )
    rows = [(reader.line_num, {key: (value or "").strip() for key, value in row.items() if key}) for row in reader]
    if not rows:
        raise DataError(f"{path} has no executions.")
    return rows


def _entry(account: AccountRow, path: Path, line: int, row: dict[str, str]) -> Entry:
    try:
        symbol = symbol_for(account.venue, row["symbol"])
        side = row["side"].lower()
        if side not in ("buy", "sell"):
            raise UsageError(f"side is '{row['side']}', not buy or sell.")
        if not row["trade_id"] or "\0" in "".join(row.values()):
            raise UsageError("trade_id is empty, or something has a NUL.")
        body: dict[str, Any] = {
            "symbol": symbol.id, "market": symbol.market, "side": side, "base": symbol.base,
            "qty": _above_zero(row, "qty"), "price": _above_zero(row, "price"), "venue_trade_id": row["trade_id"],
            "reason": "import", "evidence": f"{path.name}, line {line}",
        }  # fmt: skip
        body |= {name: _number(row[name], name) for name in ("fee", "fee_quote") if row.get(name)}
        body |= {name: row[name] for name in ("fee_asset", "client_order_id") if row.get(name)}
        at = datetime.fromtimestamp(parse_time_ms(row["time"], "time") / 1000, UTC)
        if at > datetime.now(UTC) + CLOCKS_DIFFER:  # an engine asks for executions since the latest that it knows
            raise UsageError(f"time {row['time']} is in the future.")
    except AtbError as error:
        raise DataError(f"{path}, line {line}: {error.what}") from None
    return Entry(fill_id(symbol.id, side, row["trade_id"], symbol.market), "fill", at, body)


def _above_zero(row: dict[str, str], name: str) -> Decimal:
    number = _number(row[name], name)
    if number <= 0:
        raise UsageError(f"{name} is {row[name]}, not above 0.")
    return number


def _number(text: str, name: str) -> Decimal:
    try:
        number = Decimal(text)
    except ArithmeticError:
        number = Decimal("NaN")
    if not number.is_finite():
        raise UsageError(f"{name} is '{text}', not a number.")
    return number
