"""`--provider binance,coinbase`: the first that answers gives all candles of a command, so that no series is made of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atb.core.errors import ExchangeUnavailable, UsageError, nearest
from atb.venue.ccxt_session import VENUES


def providers_of(text: str) -> list[str]:
    """The names in `binance,coinbase`. UsageError for one that is none, or is there twice."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in VENUES:
            raise UsageError(f"Unknown provider '{name}'.", nearest(name, list(VENUES)))
    if len(set(names)) < len(names):
        raise UsageError(f"--provider {text} names one more than once.", "Name each once.")
    return names


def first_that_answers(names: Sequence[str], answers: Callable[[str], bool], say: Callable[[str], None]) -> str:
    """Its name; `say` hears when that is not the first. ExchangeUnavailable when none answers."""
    for i, name in enumerate(names):
        if len(names) == 1 or answers(name):
            if i:
                silent = " and ".join(names[:i])
                does = "does" if i == 1 else "do"
                say(f"{silent} {does} not answer: all candles are those of {name}, which are another series.")
            return name
    raise ExchangeUnavailable(
        f"None of {', '.join(names)} answers.", "Use --offline for what is stored, or --provider simulated."
    )
