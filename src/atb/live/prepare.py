"""From a request to everything a session needs before it opens: the mode, the policy, the strategies, the market rules.

Nothing is written and nothing is sent here: whatever is wrong with the request ends the start with nothing done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from atb.core.errors import UsageError
from atb.core.keys import account_identity
from atb.core.policy import Policy, effective_policy
from atb.core.timeframe import check_timeframe
from atb.core.types import MarketRules, Symbol, symbol_for
from atb.engine.records import Rules
from atb.engine.rules import make_rules
from atb.engine.sides import Side
from atb.execution.traded import Traded
from atb.live.health_server import address_of
from atb.live.mode import Mode
from atb.live.request import LiveRequest
from atb.live.signal_config import signal_config
from atb.strategy.contract import Strategy, own_policy, sides_of
from atb.strategy.gate import SEGMENT_BARS, check_on_load
from atb.strategy.loader import LoadedStrategy
from atb.strategy.signals import compute_signals, lookback_of

GATE_SEED = 7
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 1.0, 3600.0


class Desk(NamedTuple):
    """What a start needs of its surroundings. rules: a symbol's market rules, asked of the exchange where it answers."""

    loaded: LoadedStrategy
    attach_model: Callable[[Strategy, str, str, int, str | None], None]
    rules: Callable[[Symbol], MarketRules]
    now_ms: int
    fingerprint: str  # of the key, empty without one
    find_sides: Callable[[Sequence[Side], str], object] = lambda declared, symbol: (
        None
    )  # DataError where one is not stored


class Ready(NamedTuple):
    """All that is decided before the session opens."""

    asked: LiveRequest
    mode: Mode
    policy: Policy
    rules: Rules
    traded: tuple[Traded, ...]
    strategies: tuple[Strategy, ...]
    lookback: tuple[int, ...]
    account: str
    key_identity: str
    notes: tuple[str, ...]
    strategy_sha256: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """What the session follows, for the ledger."""
        asked = self.asked
        strategies = {t.symbol.id: strategy for t, strategy in zip(self.traded, self.strategies, strict=True)}
        return {
            **signal_config(self.strategy_sha256, strategies),
            "policy": self.policy.as_dict(), "policy_hash": self.policy.digest(),
            "check_interval_s": asked.check_interval_s, "on_halt": asked.on_halt, "venue": asked.venue,
            "fee_bps": asked.fee_bps, "slippage_bps": asked.slippage_bps,
        }  # fmt: skip


def prepare(asked: LiveRequest, mode: Mode, desk: Desk) -> Ready:
    """Load what a request names that was checked."""
    own = own_policy(desk.loaded.cls, len(asked.symbols))
    policy, notes = effective_policy(own, asked.policy_file, asked.policy_flags)
    _check_protection(policy, asked)
    symbols = symbols_of(asked)
    strategies = tuple(_strategy(symbol, asked, desk) for symbol in symbols)
    for symbol, strategy in zip(symbols, strategies, strict=True):  # each: it may have a model of its own
        _let_through(strategy, symbol, asked.timeframe, policy.min_confidence, exact=desk.loaded.file.shipped)
    traded = tuple(Traded(symbol, desk.rules(symbol)) for symbol in symbols)
    return Ready(
        asked, mode, policy, make_rules(policy, asked.fee_bps, asked.slippage_bps), traded, strategies,
        tuple(lookback_of(strategy) for strategy in strategies), account_name(asked, mode, desk.fingerprint),
        "" if mode.is_paper else desk.fingerprint, tuple(notes), desk.loaded.sha256,
    )  # fmt: skip


def symbols_of(asked: LiveRequest) -> list[Symbol]:
    symbols = [symbol_for(asked.venue, name) for name in asked.symbols]
    twice = sorted({s.id for s in symbols if symbols.count(s) > 1})
    if twice:
        raise UsageError(f"--symbol {twice[0]} was given more than once.", "Leave one of them out.")
    quotes = sorted({symbol.quote for symbol in symbols})
    if len(quotes) > 1:
        raise UsageError(
            f"The symbols are priced in different currencies: {', '.join(quotes)}.",
            "An account counts in one. Start one session for each.",
        )
    return symbols


def account_name(asked: LiveRequest, mode: Mode, fingerprint: str) -> str:
    """Paper accounts have names; a real one is what the exchange knows it as."""
    if mode.is_paper:
        return asked.account or f"paper:{asked.venue}:{asked.strategy}"
    if asked.account:
        raise UsageError("--account names a paper account; a real one is known by its key.", "Leave it out.")
    return account_identity(asked.venue, "spot", mode.environment, fingerprint)


def facts(ready: Ready, database: str) -> Mapping[str, str]:
    """What is printed at the start, stored, and shown by health."""
    asked, policy = ready.asked, ready.policy
    return {
        "mode": ready.mode.title + (f" ({ready.mode.why})" if ready.mode.why else ""),
        "account": ready.account,
        "strategy": asked.strategy,
        "symbols": " ".join(t.symbol.id for t in ready.traded) + f" {asked.timeframe} at {asked.venue}",
        "policy": f"{ready.policy.digest()}: " + _changed(policy),
        "database": database,
        "if a stop is refused": "another type is tried; the price is watched, and sold at the market when it is passed",
        "on a drawdown halt": "positions are closed" if asked.on_halt == "close" else "positions are held",
    }


def _changed(policy: Policy) -> str:
    plain = Policy().as_dict()
    return ", ".join(f"{k}={v}" for k, v in policy.as_dict().items() if plain[k] != v) or "all defaults"


def check(asked: LiveRequest) -> None:
    """What can be told of a request by itself, before anything is started for it."""
    if "," in asked.venue:
        raise UsageError(
            f"--provider {asked.venue}: a session trades at one exchange, and decides on its candles.",
            "Name one. Several are for atb data and atb backtest.",
        )
    symbols_of(asked)
    check_timeframe(asked.timeframe)
    if not SHORTEST_INTERVAL_S <= asked.check_interval_s <= LONGEST_INTERVAL_S:
        raise UsageError(
            f"--check-interval must be from {SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g} seconds, "
            f"not {asked.check_interval_s:g}."
        )
    for name, value in (("--fee-bps", asked.fee_bps), ("--slippage-bps", asked.slippage_bps)):
        if not 0 <= value <= 1000:
            raise UsageError(f"{name} must be from 0 to 1000 basis points, not {value:g}.", "10 is 0.1 %.")
    if not 0 < asked.stop_offset <= 0.5:
        raise UsageError(f"--stop-limit-offset must be above 0 and at most 0.5, not {asked.stop_offset:g}.")
    if asked.on_halt not in ("close", "hold"):
        raise UsageError(f"--on-halt must be close or hold, not '{asked.on_halt}'.")
    balance = asked.initial_balance
    if balance is not None and not 0 < balance <= 1e12:
        raise UsageError(f"--initial-balance must be above 0 (at most 1e12), not {balance:g}.")
    address_of(asked.health_host, asked.health_port)


def _check_protection(policy: Policy, asked: LiveRequest) -> None:
    has_stop = policy.stop_loss > 0 or (policy.trailing_stop > 0 and policy.trailing_after == 0)
    if not has_stop and not asked.allow_unprotected:
        raise UsageError(
            "The policy has no stop: positions would be open without protection while the engine is away.",
            "Set --stop-loss, or add --allow-unprotected.",
        )


def _strategy(symbol: Symbol, asked: LiveRequest, desk: Desk) -> Strategy:
    strategy = desk.loaded.make(asked.params)
    desk.find_sides(sides_of(type(strategy)), symbol.id)
    desk.attach_model(strategy, symbol.id, asked.timeframe, desk.now_ms, asked.model_version)
    return strategy


def _let_through(strategy: Strategy, symbol: Symbol, timeframe: str, min_confidence: float, exact: bool) -> None:
    """The gate, as before a backtest. Candles and side series are simulated: they are there at once, whatever happens, and
    what a strategy may look at does not depend on whose they are."""
    from atb.venue.simulated import SIMULATED_START_MS, simulate_candles
    from atb.venue.simulated_sides import simulated_sides

    count = lookback_of(strategy) + 4 * SEGMENT_BARS  # three stretches that have something between them
    candles = simulate_candles(symbol.id, timeframe, SIMULATED_START_MS, count, GATE_SEED)
    candles = simulated_sides(sides_of(type(strategy)), candles, GATE_SEED)
    check_on_load(strategy, candles, compute_signals(strategy, candles), min_confidence, exact)
