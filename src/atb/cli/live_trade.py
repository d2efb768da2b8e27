"""`atb live` at an exchange: on paper, on a test network, with real money."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from atb.app import App
    from atb.ledger.connect import Where
    from atb.live.mode import Asked, Mode, Unmanaged
    from atb.live.request import LiveRequest


def trade(asked: dict[str, Any]) -> None:
    """Trade by `asked` (the values of the options) until somebody ends it."""
    from atb.cli.console import looks, open_app, warn
    from atb.cli.verdict import print_verdict
    from atb.core.errors import Interrupted
    from atb.live.mode import decide_mode
    from atb.live.prepare import check, prepare, symbols_of
    from atb.live.run import trade as run

    request, application = make_request(asked), open_app()
    check(request)
    application.settings.check_venue(request.venue, "replay")
    loaded = application.load_strategy(request.strategy)
    facts = _facts(request, application)
    mode = None if facts.unmeant else decide_mode(facts, [])
    where = application.database_for_trading(warn)
    mode = mode or decide_mode(facts, _unmanaged(where))
    _say_mode(mode)
    if mode.is_paper:
        _rehearse(request, application, where)
    broker = None if mode.is_paper else application.broker(request.venue, symbols_of(request))
    ready = prepare(request, mode, application.live_desk(request, mode, loaded, broker))
    for note in ready.notes:
        warn(note)
    application.remember(where)
    ended = _Signals()
    run(ready, application.surroundings_of(ready, where, broker, print_verdict, sys.stdout, looks()), ended.end_with)
    if ended.by_hand:
        raise Interrupted("Ended by Ctrl-C. What is held stays held, and protected.")


def make_request(asked: dict[str, Any]) -> LiveRequest:
    """What the command line says, else [live] in ./atb.toml, else the defaults."""
    from pathlib import Path

    from atb.cli.backtest import parse_params
    from atb.core.policy import load_policy
    from atb.live.defaults import read_defaults
    from atb.live.request import LiveRequest

    said = {name: value for name, value in asked.items() if value is not None and value is not False and value != ""}
    asked = asked | read_defaults(Path("atb.toml")) | said

    plain = LiveRequest(asked["strategy"], tuple(asked["symbol"]))
    given = {
        "timeframe": asked["timeframe"], "venue": asked["provider"] or None, "check_interval_s": asked["check_interval"],
        "initial_balance": asked["initial_balance"], "model_version": asked["model_version"], "account": asked["account"],
        "on_halt": asked["on_halt"], "stop_offset": asked["stop_limit_offset"], "health_host": asked["health_host"],
        "health_port": asked["health_port"], "log_dir": asked["log_dir"] and str(asked["log_dir"]),
    }  # fmt: skip
    return plain._replace(
        params=parse_params(asked["param"] or []),
        policy_file=load_policy(str(asked["policy"])) if asked["policy"] else {},
        policy_flags=asked["policy_flags"],
        fee_bps=asked["fee_bps"],
        slippage_bps=asked["slippage_bps"],
        paper=asked["paper_trading"],
        resume=asked["resume_from_last_balance"],
        close_on_exit=asked["close_on_exit"],
        stream=not asked["no_stream"],
        allow_unprotected=asked["allow_unprotected"],
        embedded_allowed=asked["use_embedded_database"],
        **{name: value for name, value in given.items() if value is not None},
    )


def _facts(request: LiveRequest, application: App) -> Asked:
    from atb.live.mode import Asked
    from atb.settings import trading_disabled

    mine = application.settings
    has_key = request.venue in mine.keys
    enabled = not request.paper and mine.enable_trading
    environment = mine.environment(request.venue) if enabled else "real"
    return Asked(
        enabled, trading_disabled(), request.paper, request.venue, environment, has_key,
        not mine.database_url, request.embedded_allowed,
    )  # fmt: skip


def _unmanaged(where: Where) -> list[Unmanaged]:
    """Real accounts of this database with something open."""
    from atb.ledger.accounts import all_accounts
    from atb.ledger.connect import connect
    from atb.ledger.migrate import check_schema
    from atb.live.mode import Unmanaged
    from atb.ops.closing import open_positions, working_orders

    found = []
    with connect(where) as connection:
        check_schema(connection, where)
        for account in all_accounts(connection):
            if account.environment != "real":
                continue
            held = [f"{h.size.normalize():f} {h.symbol}" for h in open_positions(connection, account)]
            orders = len(working_orders(connection, account))
            if held or orders:
                found.append(Unmanaged(account.name, ", ".join(held + ([f"{orders} orders"] if orders else []))))
    return found


def _rehearse(request: LiveRequest, application: App, where: Where) -> None:
    """Paper beside a real account: what a start with real money would find there, on a copy of its ledger."""
    if request.venue not in application.settings.keys:
        return
    import time
    from functools import partial

    from atb.cli.console import warn
    from atb.cli.verdict import print_verdict
    from atb.core.errors import AtbError
    from atb.execution.compared import identity_of
    from atb.ledger.line import Line
    from atb.ops.status import read_status
    from atb.ops.syncing import sync

    identity = application.account_identity(request.venue)
    with Line(where) as line:
        statuses = [s for s in line.surely(read_status) if s.account.environment != "paper"]
        for status in (s for s in statuses if identity_of(s.account) == identity):
            name = status.account.name
            try:
                synced = sync(line, status, partial(application.broker, status.account.venue), None, "", time.sleep)
            except AtbError as error:
                warn(f"{name} could not be compared with the exchange: {error.what}")
                continue
            print_verdict(synced.verdict, f"{name}, as a start with real money would find it")
            found = "agrees with the exchange" if synced.equal else "differs from the exchange"
            typer.echo(f"{name} {found}; nothing was written there.", err=True)


def _say_mode(mode: Mode) -> None:
    """In large letters, before anything else happens."""
    why = f" ({mode.why})" if mode.why else ""
    line = f"*** {mode.title} ***{why}"
    typer.echo(line if mode.is_paper else typer.style(line, bold=True), err=True)


class _Signals:
    """SIGTERM, Ctrl-C and a terminal that is closed end the session after the cycle that runs; a second one the process."""

    def __init__(self) -> None:
        import signal

        self.by_hand = False
        self._end: Callable[[], None] = lambda: None
        self._seen = False
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._note)

    def end_with(self, end: Callable[[], None]) -> None:
        self._end = end
        if self._seen:
            end()

    def _note(self, number: int, frame: object) -> None:
        import signal

        self._seen = True
        self.by_hand = self.by_hand or number == signal.SIGINT
        signal.signal(number, signal.SIG_DFL)
        self._end()
