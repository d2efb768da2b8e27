"""`atb data test-provider` and `symbols`: what an exchange is like, and what it has."""

from __future__ import annotations

from typing import Annotated

import typer

from atb.cli.data_options import Json, ProviderName, TimeframeName
from atb.cli.lean import LeanCommand

EXAMPLE = {"binance": "BTCUSDT", "coinbase": "BTC-USD"}


def register(app: typer.Typer) -> None:
    app.command(
        "test-provider",
        cls=LeanCommand,
        help="Whether an exchange is fit to be traded at from here: reachable, fast, on time, with rules and fresh candles.\n\n"
        "Needs no key; one that is set is looked at, too. Exit code 0 when all is well or there are warnings, 4 when not.\n\n"
        "\b\nExamples:\n  atb data test-provider binance BTCUSDT 1h\n  atb data test-provider coinbase BTC-USD 1h --json",
    )(test_provider)
    app.command(
        "symbols",
        cls=LeanCommand,
        help="What trades at an exchange, the most traded of the last day first.\n\n\b\nExamples:\n"
        "  atb data symbols binance --quote USDT --top 59\n  atb data symbols coinbase --quote USD --json",
    )(symbols)


def test_provider(
    provider: ProviderName,
    symbol: Annotated[
        str | None, typer.Argument(help="BTCUSDT, BTC-USD or BTC/USDT. [default: its bitcoin]", show_default=False)
    ] = None,
    timeframe: TimeframeName = "1h",
    json: Json = False,
) -> None:
    from atb.cli.console import open_app, print_json, print_table
    from atb.core.errors import ExchangeUnavailable
    from atb.core.timeframe import check_timeframe
    from atb.core.types import symbol_for
    from atb.market.looking_over import BAD, verdict_of

    app = open_app()
    app.settings.check_venue(provider)
    check_timeframe(timeframe)
    wanted = symbol_for(provider, symbol or EXAMPLE[provider])
    checks = app.test_provider(provider, wanted, timeframe)
    verdict = verdict_of(checks)
    if json:
        rows = [check._asdict() for check in checks]
        print_json(
            {"provider": provider, "symbol": wanted.id, "timeframe": timeframe, "verdict": verdict, "checks": rows}
        )
    else:
        print_table(["check", "verdict", "seen"], [[c.name.removesuffix("_ms"), c.verdict, c.seen] for c in checks])
    if verdict == BAD:
        bad = next(check for check in checks if check.verdict == BAD)
        raise ExchangeUnavailable(f"{provider} is not fit to be used: {bad.seen.rstrip('.')}.")
    typer.echo(f"{provider} {wanted.id} {timeframe}: {verdict}.", err=True)


def symbols(
    provider: ProviderName,
    quote: Annotated[str | None, typer.Option(help="Only what is priced in this.", metavar="ASSET")] = None,
    top: Annotated[int | None, typer.Option(help="Only so many.", metavar="N")] = None,
    json: Json = False,
) -> None:
    from atb.cli.console import open_app, print_json, print_table
    from atb.core.errors import DataError, UsageError, nearest

    app = open_app()
    app.settings.check_venue(provider)
    if top is not None and top < 1:
        raise UsageError(f"--top must be at least 1, not {top}.")
    found = app.traded_symbols(provider)
    quotes = sorted({each.quote for each in found})
    if quote is not None:
        found = [each for each in found if each.quote == quote.upper()]
        if not found:
            raise DataError(f"Nothing at {provider} is priced in '{quote}'.", nearest(quote.upper(), quotes))
    found = found[:top]
    if json:
        print_json([each._asdict() for each in found])
        return
    print_table(
        ["symbol", "base", "quote", "traded in 24 h (quote)"],
        [[each.symbol, each.base, each.quote, f"{each.quote_volume:,.0f}"] for each in found],
    )
