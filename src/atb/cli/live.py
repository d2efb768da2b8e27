"""`atb live`: trade a strategy. A known subcommand comes first, anything else is a strategy's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atb.cli import backtest as options
from atb.cli import live_control
from atb.cli.lean import LeanCommand, LeanGroup
from atb.cli.policy_options import with_policy_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from atb.live.rehearsal import Outcome

RUN = "run"
HELP = """Trade a strategy. This version rehearses on history: --provider replay.

A rehearsal runs everything that will trade with money (journal, ledger, orders, stops), against a simulated exchange with the
rules of the backtest, on an account of its own in the database. At the end it is compared with the backtest of the same candles:
exit code 0 when they are the same, 7 when not.

\b
Examples:
  atb live sma_cross --symbol BTCUSDT --provider replay --data candles.csv
  atb live ml_basic --symbol BTCUSDT --provider replay --data candles.parquet --days 30
  atb live sma_cross --symbol BTCUSDT --provider replay --data candles.csv --speed 3600
"""


class LiveGroup(LeanGroup):
    """`atb live ml_basic ...` is `atb live run ml_basic ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=LiveGroup, no_args_is_help=True, rich_markup_mode=None, help=HELP)

Provider = Annotated[str, typer.Option(help="replay: history from --data, as if it happened now.", metavar="NAME")]
Speed = Annotated[
    str, typer.Option(help="Seconds of history in one of ours, or max: as fast as it goes.", metavar="NUMBER|max")
]


@app.callback()
def live() -> None:
    pass


def run(
    *,
    strategy: options.StrategyName,
    symbol: options.Symbols,
    timeframe: options.TimeframeName = None,
    provider: Provider = "",
    data: options.Files = None,
    days: options.Days = None,
    years: options.Years = None,
    start: options.Start = None,
    end: options.End = None,
    initial_balance: options.Balance = 10_000.0,
    fee_bps: options.FeeBps = 10.0,
    slippage_bps: options.SlippageBps = 5.0,
    param: options.Params = None,
    model_version: options.ModelVersion = None,
    policy: options.PolicyFile = None,
    max_gaps: options.MaxGaps = 0.02,
    allow_gaps: options.AllowGaps = False,
    speed: Speed = "max",
    json: options.Json = False,
    policy_flags: dict[str, Any],
) -> None:
    from atb.cli.console import ProgressLine, open_app, warn
    from atb.core.errors import Disagreement
    from atb.live.rehearsal import rehearse

    _check(provider, data)
    asked = locals() | {"provider": "file", "seed": None, "offline": True, "engine": "auto"}
    application = open_app()
    where = application.database_to("change", warn)
    progress, ended = ProgressLine(), _ended_by_signal()
    try:
        ready = application.rehearsal(options.make_request(asked), warn, progress)
        outcome = rehearse(
            where, ready, _speed(speed), lambda share: progress("replay", share), ended,
            lambda event: warn(f"{event.code}: {event.message}"), application.settings.home,
        )  # fmt: skip
    finally:
        progress.close()
    _print(outcome, json)
    if outcome.parity is not None and outcome.parity.differences:
        raise Disagreement(
            f"It is not what the backtest does: {outcome.parity.differences[0]}"
            + (f" (and {len(outcome.parity.differences) - 1} more)" if len(outcome.parity.differences) > 1 else "")
            + "."
        )


app.command(RUN, cls=LeanCommand, help=HELP, no_args_is_help=True, hidden=True)(with_policy_options(run))
live_control.register(app)


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


def _check(provider: str, data: Any) -> None:
    from atb.core.errors import UsageError

    if provider != "replay":
        what = f"'{provider}' is no provider of this version's atb live" if provider else "No --provider was given"
        raise UsageError(f"{what}: trading at an exchange, on paper or with money, is not in it yet.",
                         "Rehearse on history: --provider replay --data candles.csv")  # fmt: skip
    if not data:
        raise UsageError("--provider replay needs candles.", "Add --data candles.csv, one for each --symbol.")


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
