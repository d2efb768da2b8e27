"""What the commands of `atb data` have in common: their options, and the series that these name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from atb.app import App
    from atb.core.errors import DataError
    from atb.core.types import Symbol
    from atb.data.layout import SeriesKey
    from atb.data.store import CandleStore
    from atb.engine.candles import Candles

SYMBOL_HELP = "BTCUSDT, BTC-USD or BTC/USDT."
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
SymbolName = Annotated[str, typer.Argument(help=SYMBOL_HELP)]
SymbolOption = Annotated[str, typer.Option("--symbol", help=SYMBOL_HELP, metavar="SYMBOL")]
SymbolList = Annotated[list[str], typer.Option("--symbols", help="BTCUSDT ETHUSDT ...", metavar="SYMBOL...")]
TimeframeName = Annotated[str, typer.Argument(help="1m, 1h, ...")]
TimeframeOption = Annotated[str, typer.Option("--timeframe", help="1m, 1h, ...", metavar="TIMEFRAME")]
ProviderName = Annotated[str, typer.Argument(help="binance or coinbase.")]
Provider = Annotated[str, typer.Option(help="Whose: binance or coinbase.", metavar="NAME")]
Providers = Annotated[
    str, typer.Option("--provider", help="binance, coinbase, or binance,coinbase: the first that answers.", metavar="NAME")
]  # fmt: skip
Start = Annotated[str | None, typer.Option(help="From this day or time on, UTC.", metavar="DATE")]
End = Annotated[str | None, typer.Option(help="Up to there, exclusive.", metavar="DATE")]


def series_of(app: App, provider: str, symbol: str, timeframe: str) -> tuple[SeriesKey, Symbol]:
    """What a command's words name. UsageError where they name nothing."""
    from atb.core.timeframe import check_timeframe
    from atb.core.types import symbol_for
    from atb.data.layout import series_key

    app.settings.check_venue(provider)
    wanted = symbol_for(provider, symbol)
    return series_key(provider, wanted, check_timeframe(timeframe)), wanted


def stored(app: App, key: SeriesKey, start_ms: int | None = None, end_ms: int | None = None) -> Candles:
    """The candles of a series that open in that time; a DataError where there are none."""
    candles = app.store().read(key, start_ms, end_ms)
    if candles is None:
        raise nothing_stored(app, key)
    return candles


def nothing_stored(app: App, key: SeriesKey) -> DataError:
    """What to say where a series has no candles, or none in the time that is wanted."""
    from atb.core.errors import DataError, nearest

    known = [other.shown for other in app.store().keys()]  # noqa: SIM118 - a method
    fetch = f"Fetch them: atb data download {key.symbol} --timeframe {key.timeframe} --provider {key.venue}"
    if key.shown in known:
        return DataError(f"No candles of {key.shown} are stored in that time.", fetch)
    near = nearest(key.shown, known) if known else "Nothing is stored yet."
    return DataError(f"No candles of {key.shown} are stored.", f"{near} {fetch}")


def nothing_under(store: CandleStore) -> str:
    """What to say of a store, or of the series of it that are meant, without any candles."""
    return f"No candles are stored under {store.shown}."
