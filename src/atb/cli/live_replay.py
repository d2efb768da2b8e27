"""`atb live --provider replay`: history as if it happened now, and then the comparison with the backtest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from atb.cli import backtest as options

if TYPE_CHECKING:
    from collections.abc import Callable

    from atb.execution.executor import Event
    from atb.live.rehearsal import Outcome


def replay(asked: dict[str, Any]) -> None:
    """Play `asked` (the values of the options). A Disagreement where it is not what the backtest does."""
    from atb.cli.console import ProgressLine, open_app, warn
    from atb.core.errors import Disagreement, UsageError
    from atb.live.rehearsal import rehearse

    if not asked["data"]:
        raise UsageError("--provider replay needs candles.", "Add --data candles.csv, one for each --symbol.")
    defaults = {"initial_balance": 10_000.0, "max_gaps": 0.02, "speed": "max"}
    asked = asked | {name: value for name, value in defaults.items() if asked[name] is None}
    asked |= {"provider": "file", "seed": None, "offline": True, "engine": "auto"}
    application = open_app()
    where = application.database_to("change", warn)
    progress, ended = ProgressLine(), _ended_by_signal()
    try:
        ready = application.rehearsal(options.make_request(asked), warn, progress)
        outcome = rehearse(
            where, ready, _speed(asked["speed"]), lambda share: progress("replay", share), ended,
            _worth_a_note, application.settings.home,
        )  # fmt: skip
    finally:
        progress.close()
    _print(outcome, asked["json"])
    if outcome.parity is not None and outcome.parity.differences:
        first, *more = outcome.parity.differences
        rest = f" (and {len(more)} more)" if more else ""
        raise Disagreement(f"It is not what the backtest does: {first}{rest}.")


def _worth_a_note(event: Event) -> None:
    from atb.cli.console import warn

    if event.severity not in ("debug", "info"):
        warn(f"{event.code}: {event.message}")


def _ended_by_signal() -> Callable[[], bool]:
    """Ctrl-C and SIGTERM end the session after the candle that is played; a second one ends the process."""
    import signal

    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return lambda: bool(seen)


def _speed(text: str) -> float | None:
    from atb.core.errors import UsageError

    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise UsageError(
            f"--speed {text} is no speed.", "Write max, or a number above 0: 3600 plays an hour in a second."
        )
    return speed


def _print(outcome: Outcome, json: bool) -> None:
    from atb.cli.console import print_json

    """What was traded, and whether it is what the backtest does."""
    parity = outcome.parity
    if json:
        print_json(
            outcome._asdict() | {"equity": str(outcome.equity), "parity": None if parity is None else parity._asdict()}
        )
        return
    typer.echo(f"Session {outcome.session_id} of account {outcome.account}: {outcome.rows} candles, "
               f"{outcome.trades} exits, equity {outcome.equity:,.2f}")  # fmt: skip
    if parity is None:
        typer.echo("It was ended before the last candle, so it is not compared with the backtest.")
    elif not parity.differences:
        typer.echo(f"The same as the backtest: {parity.fills} fills and {parity.candles} closes compared")
