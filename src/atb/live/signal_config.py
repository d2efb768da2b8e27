"""What a session's signals come from (parameters, the strategy's file, models), and whether that is another now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atb.strategy.contract import Strategy


def signal_config(sha256: str, strategies: Mapping[str, Strategy]) -> dict[str, Any]:
    """strategies: by symbol. sha256: of the strategy's file."""
    first = next(iter(strategies.values()))
    models = {name: each.model.version for name, each in strategies.items() if each.model is not None}
    return {"params": first.values(), "strategy_sha256": sha256, "models": models}


def what_changed(config: Mapping[str, Any], sha256: str, strategies: Mapping[str, Strategy]) -> str:
    """What is known to be another one than that of the session; empty: nothing."""
    then, now = config.get("models", {}), signal_config(sha256, strategies)["models"]
    for name, version in then.items():
        if now.get(name) != version:
            return f"the model of {name} was version {version} and is {now.get(name, 'none')} now"
    if config.get("strategy_sha256", sha256) != sha256:
        return "the strategy's file has changed since"
    return ""
