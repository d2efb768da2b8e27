"""An engine that holds positions with stops at the exchange, to be ended, hung and overtaken by an emergency close.

    python -m tests.closing_engine ACTION SYMBOL...

Settings as any command's, from the environment; VENUE: binance, if nothing is said. It buys the symbols, says so in a line of
JSON, and goes on as an engine does: a cycle now and then. ACTION: hold; or what it does when it buys the last of them: `stop`
(it stops itself between commit and send) or `dive` (it buys it once there is the file GO, and sends a little later).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from atb.app import App
from atb.core.errors import AtbError
from atb.core.policy import make_policy
from atb.core.timeframe import SystemClock, moment
from atb.core.types import symbol_for
from atb.engine.rules import make_rules
from atb.execution.engines import registered
from atb.execution.reconciler import Reconciler
from atb.execution.session import Session, Wish, open_session
from atb.execution.traded import Traded
from atb.ledger.entries import Entry
from atb.venue.broker import Broker

MINUTE_MS = 60_000


class Hesitating:
    """The way to the exchange of an engine that does something between the commit and the sending of an entry."""

    def __init__(self, broker: Broker, action: str, symbol: str) -> None:
        self.broker, self.action, self.symbol = broker, action, symbol

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    def place(self, order: Any, window: Any) -> Any:
        if order.side == "buy" and order.symbol.id == self.symbol:
            say("about to send", order=order.client_order_id)
            if self.action == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1.4)  # the close is at work, and the exchange takes it still
        return self.broker.place(order, window)

    def place_pair(self, *args: Any) -> Any:
        """What protects the first; then the last is bought."""
        seen = self.broker.place_pair(*args)
        if self.action == "dive":
            say("waits")
            while not Path(os.environ["GO"]).exists():
                time.sleep(0.0005)
        return seen


def say(what: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
    sys.stdout.flush()


def close(session: Session, names: list[str], prices: dict[str, str], number: int) -> None:
    """A candle closes with a signal to hold these."""
    executor = session.executor
    open_ms = executor.broker.now_ms() // MINUTE_MS * MINUTE_MS + number * MINUTE_MS
    body = {"prices": prices, "signals": dict.fromkeys(names, "1.0"), "open_ms": open_ms, "why": "close"}
    executor.append([Entry(f"mark:{open_ms}", "mark", moment(executor.broker.now_ms()), body, session.id)])
    executor.cycle()


def main(action: str, names: list[str]) -> None:
    application = App()
    settings, clock = application.settings, SystemClock()
    venue = os.environ.get("VENUE", "binance")
    symbols = [symbol_for(venue, name) for name in names]
    broker = application.broker(venue, symbols)
    rules = make_rules(make_policy({"stop_loss": 0.05, "take_profit": 0.2, "fraction": 0.15}), 10.0, 0.0)
    wish = Wish(
        application.account_identity(venue), venue, "real", [Traded(s, broker.market_rules(s)) for s in symbols],
        rules, "test", "1m", {}, Decimal(0), settings.key(venue).fingerprint,
    )  # fmt: skip
    through: Any = Hesitating(broker, action, names[-1]) if action != "hold" else broker
    session = open_session(application.database(), wish, clock, lambda _: through, home=settings.home, lease_s=30)
    Reconciler(session.executor).start(None)
    prices = json.loads(os.environ["PRICES"])
    with registered(settings.home, account=session.account.name, session_id=session.id, database="test"):
        say("begins", session=session.id, account=session.account.name)
        close(session, names, {name: prices[name] for name in names}, 0)
        held = {t.symbol.id: f"{session.state.held(s):f}" for s, t in enumerate(session.state.traded)}
        say("holds", session=session.id, held=held)
        while True:
            time.sleep(0.2)
            session.executor.cycle()
            if not session.executor.journal.away:
                with contextlib.suppress(AtbError):
                    session.renew()


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except AtbError as error:
        say("error", message=error.what)
        sys.exit(error.exit_code)
