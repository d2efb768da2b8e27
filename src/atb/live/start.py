"""The start at an exchange: what the key may do, whether the ledger and the exchange say the same, and what is resumed.

Whatever is refused here is refused with everything protected that the account holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from atb.core.errors import ExchangeRefused, UsageError
from atb.execution.copying import NotingJournal
from atb.execution.executor import Event
from atb.execution.reconcile import Verdict, order_lines
from atb.execution.reconciler import Reconciler
from atb.execution.session import Session
from atb.execution.state import TradingState
from atb.live.request import LiveRequest
from atb.venue.broker import Broker

Tell = Callable[[Event], None]


def check_key(broker: Broker, tell: Tell) -> None:
    """Before anything is written: the key is known, and may do what it is for and no more."""
    rights = broker.rights()
    if rights.may_withdraw:
        raise UsageError(
            f"The key for {broker.venue} may withdraw: whoever gets hold of it can empty the account.",
            "Make one at the exchange that may only read and trade, and set that.",
        )
    if rights.may_trade is False:
        raise UsageError(
            f"The key for {broker.venue} may not trade.", "Allow it spot trading at the exchange, and nothing else."
        )
    if rights.may_trade is None:
        broker.balances()  # at least it is a key of this place
    if rights.may_withdraw is None:
        tell(Event("warning", "rights_unknown", f"{broker.venue} does not tell whether this key may withdraw."))


def agree(session: Session, asked: LiveRequest, show: Callable[[Verdict], None], tell: Tell) -> Reconciler:
    """Compare with the exchange, book what it explains, and show it. Refused is what nothing explains, and a start
    that would begin anew what was traded before."""
    executor = session.executor
    noting = executor.journal = NotingJournal(executor.journal)
    reconciler = Reconciler(executor)
    limit = None if asked.initial_balance is None else Decimal(repr(asked.initial_balance))
    try:
        verdict = reconciler.start(limit, resume=asked.resume)
    finally:
        executor.journal = noting.journal
        _protect(session, tell)
    verdict = verdict._replace(lines=(*order_lines(noting.entries), *verdict.lines))
    show(verdict)
    if verdict.unexplained:
        raise verdict.refusal(f'atb live sync-balance --provider {asked.venue} --accept --reason "..."')
    return reconciler


def _protect(session: Session, tell: Tell) -> None:
    """What is held has its stop, whatever else the start may fail of."""
    executor = session.executor
    if session.state.begun is None:
        return  # nothing is held, and what the exchange tells of is not the account's
    executor.hold = "it only starts"
    try:
        executor.cycle()
    except ExchangeRefused as error:
        tell(Event("error", "not_protected", f"What is held could not be looked after: {error.what}"))
    executor.hold = ""


def check_money(state: TradingState) -> None:
    """Refused where nothing is held and nothing could be bought."""
    least = {t.symbol.id: t.rules.min_notional for t in state.traded[: state.count]}
    held = any(state.held(s) or state.working[s] for s in range(state.count))
    cash, quote = state.books.cash, state.books.quote
    if not held and cash < min(least.values()):
        symbol = min(least, key=lambda name: least[name])
        raise UsageError(
            f"The account has {money(cash)} {quote} to trade with, and the smallest order of {symbol} is "
            f"{money(least[symbol])} {quote}.",
            "Pay in more, or trade another symbol.",
        )


def resumed(state: TradingState, asked: LiveRequest) -> Mapping[str, str]:
    """What this start goes on from, in words."""
    books = state.books
    if len(books.sessions) < 2:
        return {"resume": f"a new account: it begins with {money(books.cash)} {books.quote}"}
    held = [f"{state.held(s).normalize():f} {t.symbol.base}" for s, t in enumerate(state.traded) if state.held(s)]
    halted = f", halted ({books.halted})" if books.halted else ""
    since = min(session.opened_at for session in books.sessions.values())
    text = f"equity {money(books.equity)} {books.quote}, holds {', '.join(held) or 'nothing'}{halted}"
    if asked.initial_balance is not None:
        text += f"; --initial-balance counts for a new account, this one began on {since:%Y-%m-%d}"
    return {"resume": text}


def money(amount: Decimal) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount.normalize():f}"
