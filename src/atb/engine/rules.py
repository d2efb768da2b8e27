"""From a Policy, costs and market rules to the engine's numbers."""

from __future__ import annotations

from atb.core.policy import SIZINGS, Policy
from atb.core.types import MarketRules
from atb.engine.records import Market, Rules


def make_rules(policy: Policy, fee_bps: float, slippage_bps: float, *, take_before_stop: bool = False) -> Rules:
    """The engine's Rules. Costs in basis points of the notional; `take_before_stop` only brackets ambiguous candles."""
    partials: dict[str, float] = {}
    for i, (gain, share) in enumerate(policy.partial_exits, 1):
        partials |= {f"partial_gain_{i}": gain, f"partial_share_{i}": share}
    return Rules(
        fee=fee_bps / 10_000.0,
        slip=slippage_bps / 10_000.0,
        sizing=SIZINGS.index(policy.sizing),
        fraction=policy.fraction,
        risk=policy.risk_per_trade,
        min_confidence=policy.min_confidence,
        exit_when_neutral=int(policy.neutral == "flat"),
        stop_loss=policy.stop_loss,
        take_profit=policy.take_profit,
        trailing=policy.trailing_stop,
        trailing_after=policy.trailing_after,
        break_even=policy.break_even_after,
        max_hold=policy.max_hold,
        cooldown=policy.cooldown,
        max_position=policy.max_position,
        max_exposure=policy.max_exposure,
        max_open_positions=policy.max_open_positions,
        daily_loss=policy.daily_loss_limit,
        max_drawdown=policy.max_drawdown,
        take_before_stop=int(take_before_stop),
        **partials,
    )


def make_market(rules: MarketRules) -> Market:
    """Market rules in the engine's numbers: base units a lot, quote units a tick, quote."""
    return Market(lot=float(rules.lot), tick=float(rules.tick), min_notional=float(rules.min_notional))
