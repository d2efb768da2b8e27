"""`atb live parity`: a session against the backtest of the candles that it saw."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli import backtest as options
from atb.cli.lean import LeanCommand

if TYPE_CHECKING:
    from atb.live.recorded import Recorded
    from atb.live.session_parity import Difference, SessionParity

HELP = """What a session did against what the backtest does with the same candles: every difference with its cause.

The backtest is begun anew at each close, in the state that the ledger had then, so a difference is named once, where it arose.
Compared are candles, signals, decisions, executions and equity. The candles come from the store, and what it lacks from the
exchange; those of a rehearsal from --data. Nothing is written. Exit code 0: no difference, or each has its cause; 7: nothing
that was recorded explains one of them.

\b
Examples:
  atb live parity --session-id 7
  atb live parity --session-id 7 --json
  atb live parity --session-id 8 --data candles.csv
"""
HEADER = ("candle", "symbol", "what", "session", "backtest", "effect", "cause")


def register(app: typer.Typer) -> None:
    app.command("parity", cls=LeanCommand, help=HELP)(parity)


def parity(
    session_id: Annotated[int, typer.Option(help="Number of the session. See: atb db sessions", metavar="N")],
    data: options.Files = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    from atb.cli.console import ProgressLine, open_app, warn
    from atb.core.errors import Disagreement

    progress = ProgressLine()
    try:
        recorded, found = open_app().session_parity(session_id, data or [], warn, progress)
    finally:
        progress.close()
    if json:
        _print_json(recorded, found)
    else:
        _print(recorded, found)
    unexplained = [difference for difference in found.differences if not difference.cause.explained]
    if unexplained:
        rest = f" (and {len(unexplained) - 1} more)" if len(unexplained) > 1 else ""
        raise Disagreement(f"Nothing that was recorded explains this: {_sentence(unexplained[0])}{rest}.")


def _print(recorded: Recorded, found: SessionParity) -> None:
    from atb.cli.console import print_table, warn
    from atb.core.timeframe import iso_minute
    from atb.core.words import counted

    session, last = recorded.session, found.last_ms + recorded.step_ms
    if found.differences:
        print_table(HEADER, [_row(difference) for difference in found.differences])
    typer.echo(
        f"Session {session.id} of account {recorded.account.name} ({session.mode}, {session.strategy}), "
        f"{iso_minute(found.first_ms)} to {iso_minute(last)}: {counted(found.closes, 'close')}, "
        f"{counted(found.decisions, 'decision')} and {counted(found.fills, 'execution')} compared."
    )
    quote = recorded.account.quote
    if not found.differences:
        typer.echo(f"The same as the backtest: equity {found.equity:,.2f} {quote}.")
    else:
        typer.echo(f"Equity {found.equity:,.2f} {quote}, of the backtest alone {found.alone:,.2f}.")
        for line in _by_cause(found):
            typer.echo(line)
    for note in [*_running(recorded), *found.notes]:
        warn(note)


def _by_cause(found: SessionParity) -> list[str]:
    from atb.live.causes import CAUSES

    counts = Counter(difference.cause.code for difference in found.differences)
    return [f"  {count} x {code}: {CAUSES[code]}" + _worth(found, code) for code, count in counts.most_common()]


def _worth(found: SessionParity, code: str) -> str:
    effects = [d.effect for d in found.differences if d.cause.code == code and d.effect is not None]
    return f" ({sum(effects):+,.2f})" if effects else ""


def _running(recorded: Recorded) -> list[str]:
    status = recorded.session.status
    return ["The session has not ended: compared up to its last close."] if status == "RUNNING" else []


def _row(difference: Difference) -> list[str]:
    from atb.core.timeframe import iso_minute

    d = difference
    effect = "" if d.effect is None else f"{d.effect:+.4f}"
    return [iso_minute(d.at_ms), d.symbol, d.what, d.session, d.backtest, effect, f"{d.cause.code}: {d.cause.why}"]


def _sentence(difference: Difference) -> str:
    from atb.core.timeframe import iso_minute

    d = difference
    what = " ".join(word for word in (iso_minute(d.at_ms), d.symbol, d.what) if word)
    return f"{what}: {d.session}, in the backtest {d.backtest}"


def _print_json(recorded: Recorded, found: SessionParity) -> None:
    from atb.cli.console import print_json
    from atb.core.timeframe import iso

    session = recorded.session
    print_json({
        "session_id": session.id, "account": recorded.account.name, "mode": session.mode, "venue": recorded.account.venue,
        "strategy": session.strategy, "timeframe": session.timeframe, "status": session.status,
        "start": iso(found.first_ms), "end": iso(found.last_ms + recorded.step_ms),
        "closes": found.closes, "decisions": found.decisions, "executions": found.fills,
        "equity": found.equity, "backtest_equity": found.alone,
        "equal": not found.differences, "explained": found.explained,
        "causes": Counter(difference.cause.code for difference in found.differences),
        "differences": [_json(difference) for difference in found.differences],
        "notes": [*_running(recorded), *found.notes],
    })  # fmt: skip


def _json(difference: Difference) -> dict[str, Any]:
    from atb.core.timeframe import iso

    d = difference
    return {
        "candle": iso(d.at_ms), "symbol": d.symbol or None, "what": d.what, "session": d.session, "backtest": d.backtest,
        "cause": d.cause.code, "why": d.cause.why, "explained": d.cause.explained, "effect_quote": d.effect,
    }  # fmt: skip
