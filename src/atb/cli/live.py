"""`atb live`: trade a strategy. A known subcommand comes first, anything else is a strategy's name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atb.cli import backtest as options
from atb.cli import live_control, live_parity, live_sync
from atb.cli.lean import LeanCommand, LeanGroup
from atb.cli.policy_options import with_policy_options

RUN = "run"
HELP = """Trade a strategy: on paper, on a test network, with real money, or as a rehearsal on history.

It is paper trading unless ENABLE_TRADING=true is set and the exchange's key is there, and it says so. Every start resumes its
account. Orders, stops and fills are in the database before and after they are sent; a stop rests at the exchange for whatever
is held. Ctrl-C and SIGTERM leave positions open and protected. Defaults for options: [live] in ./atb.toml (docs/live.md).

A rehearsal (--provider replay) plays candles from a file through all of it, on an account of its own, and compares the result
with the backtest of the same candles: exit code 0 when they are the same, 7 when not.

\b
Examples:
  atb live ml_basic --symbol BTCUSDT
  atb live ml_basic --symbol BTCUSDT --symbol ETHUSDT --timeframe 1h --paper-trading
  atb live ml_basic --symbol BTCUSDT --check-interval 30 --resume-from-last-balance
  atb live ml_basic --symbol BTC-USD --provider coinbase
  atb live sma_cross --symbol BTCUSDT --provider replay --data candles.csv --speed 3600
"""
TRADE_ONLY = (
    "account", "check_interval", "close_on_exit", "paper_trading", "resume_from_last_balance", "on_halt", "allow_unprotected",
    "use_embedded_database", "stop_limit_offset", "health_port", "health_host", "log_dir", "no_stream",
)  # fmt: skip
REPLAY_ONLY = ("data", "days", "years", "start", "end", "max_gaps", "allow_gaps", "speed", "json")


class LiveGroup(LeanGroup):
    """`atb live ml_basic ...` is `atb live run ml_basic ...`, also with options before the name."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and self._runs(args):
            if not args[0].startswith("-"):
                _refuse_misspelt(args[0], [name for name in self.commands if name != RUN])
            args = [RUN, *args]
        return super().parse_args(ctx, args)

    def _runs(self, args: list[str]) -> bool:
        if args[0].startswith("-"):
            return args[0] not in ("-h", "--help") and not any(word in self.commands for word in args)
        return args[0] not in self.commands


def _refuse_misspelt(word: str, commands: list[str]) -> None:
    """A word that is nearly a command and no strategy: whoever types `stopp` must not be asked for a symbol."""
    from difflib import get_close_matches

    close = get_close_matches(word.lower(), commands, n=1, cutoff=0.7)
    if not close:
        return
    from atb.cli.console import open_app
    from atb.core.errors import UsageError

    if word not in open_app().strategies():
        raise UsageError(
            f"'{word}' is neither a command of atb live nor a strategy.", f"Did you mean: atb live {close[0]}"
        )


app = typer.Typer(cls=LiveGroup, no_args_is_help=True, rich_markup_mode=None, help=HELP)

TRADE, HISTORY = "At an exchange", "On history (--provider replay)"
Provider = Annotated[
    str, typer.Option(help="binance, coinbase, or replay: history from --data. [default: binance]", metavar="NAME",
                      show_default=False)
]  # fmt: skip
Balance = Annotated[
    float | None, typer.Option(help="Quote currency of a new paper account. [default: 10000] With real money: how much of what "
                               "is free to trade with. [default: all]", metavar="AMOUNT")
]  # fmt: skip
Paper = Annotated[
    bool, typer.Option("--paper-trading", help="Paper, whatever the environment says.", rich_help_panel=TRADE)
]
Interval = Annotated[
    float | None, typer.Option(help="Seconds between two looks at what happened. [default: 60]", rich_help_panel=TRADE)
]
Resume = Annotated[
    bool, typer.Option("--resume-from-last-balance", help="Refuse where an account that was lost would begin anew. Every start "
                       "resumes; a first start is fine.", rich_help_panel=TRADE)
]  # fmt: skip
CloseOnExit = Annotated[
    bool, typer.Option("--close-on-exit", help="Sell all that is held at the end.", rich_help_panel=TRADE)
]
OnHalt = Annotated[
    str | None, typer.Option(help="What a drawdown halt does with positions: close or hold. [default: close]", metavar="WHAT",
                             rich_help_panel=TRADE)
]  # fmt: skip
Unprotected = Annotated[
    bool, typer.Option("--allow-unprotected", help="Trade by a policy that has no stop.", rich_help_panel=TRADE)
]
Embedded = Annotated[
    bool,
    typer.Option("--use-embedded-database", help="Real money on atb's own database server.", rich_help_panel=TRADE),
]
NoStream = Annotated[
    bool, typer.Option("--no-stream", help="Ask for candles only; do not listen to the exchange's stream as well.",
                       rich_help_panel=TRADE)
]  # fmt: skip
Offset = Annotated[
    float | None, typer.Option(help="Where only stop-limits are offered: how far below the stop the limit is, as a share of it. "
                               "[default: 0.01]", rich_help_panel=TRADE)
]  # fmt: skip
ModelVersion = Annotated[
    str | None,
    typer.Option(help="Model version. [default: the newest as of the start]", metavar="VERSION"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the rehearsal's result as JSON.", rich_help_panel=HISTORY)]
AccountName = Annotated[
    str | None, typer.Option(help="Name of a paper account. [default: paper:PROVIDER:STRATEGY]", metavar="NAME",
                             rich_help_panel=TRADE)
]  # fmt: skip
HealthPort = Annotated[int | None, typer.Option(help="Port of /health; 0: any. [default: 8000]", rich_help_panel=TRADE)]
HealthHost = Annotated[
    str | None, typer.Option(help="Address of /health. [default: 127.0.0.1]", metavar="ADDRESS", rich_help_panel=TRADE)
]
LogDir = Annotated[
    Path | None, typer.Option(help="Folder of trading.log. [default: ATB_LOG_DIR, or logs below ATB_HOME]", metavar="FOLDER",
                              rich_help_panel=TRADE)
]  # fmt: skip
Speed = Annotated[
    str | None, typer.Option(help="Seconds of history in one of ours, or max: as fast as it goes. [default: max]",
                             metavar="NUMBER|max", rich_help_panel=HISTORY)
]  # fmt: skip
MaxGaps = Annotated[
    float | None, typer.Option(help="Largest share of missing candles. [default: 0.02]", rich_help_panel=HISTORY)
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
    initial_balance: Balance = None,
    fee_bps: options.FeeBps = 10.0,
    slippage_bps: options.SlippageBps = 5.0,
    param: options.Params = None,
    model_version: ModelVersion = None,
    policy: options.PolicyFile = None,
    paper_trading: Paper = False,
    check_interval: Interval = None,
    resume_from_last_balance: Resume = False,
    close_on_exit: CloseOnExit = False,
    on_halt: OnHalt = None,
    allow_unprotected: Unprotected = False,
    use_embedded_database: Embedded = False,
    stop_limit_offset: Offset = None,
    account: AccountName = None,
    health_port: HealthPort = None,
    health_host: HealthHost = None,
    log_dir: LogDir = None,
    no_stream: NoStream = False,
    data: options.Files = None,
    days: options.Days = None,
    years: options.Years = None,
    start: options.Start = None,
    end: options.End = None,
    max_gaps: MaxGaps = None,
    allow_gaps: options.AllowGaps = False,
    speed: Speed = None,
    json: Json = False,
    policy_flags: dict[str, Any],
) -> None:
    asked = locals()
    if provider == "replay":
        from atb.cli.live_replay import replay

        _refuse_others(asked, TRADE_ONLY, "is for trading at an exchange, not for --provider replay")
        replay(asked)
    else:
        from atb.cli.live_trade import trade

        _refuse_others(asked, REPLAY_ONLY, "is for --provider replay")
        trade(asked)


app.command(RUN, cls=LeanCommand, help=HELP, no_args_is_help=True, hidden=True)(with_policy_options(run))
live_control.register(app)
live_sync.register(app)
live_parity.register(app)


def _refuse_others(asked: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    from atb.core.errors import UsageError

    given = [name for name in names if asked[name] not in (None, False, [])]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} {why}.", "Leave it out. All options: atb live run --help")
