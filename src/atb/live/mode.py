"""Paper or real: what a start is, from the environment, the keys, the flags and what the database holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atb.core.errors import UsageError


class Asked(NamedTuple):
    """What decides. environment: where orders would go with keys, `testnet` or `real`."""

    enabled: bool  # ENABLE_TRADING
    disabled: str  # where DISABLE_TRADING is on; empty: nowhere
    paper: bool  # --paper-trading
    venue: str
    environment: str
    has_key: bool
    own_server: bool  # the database is atb's embedded one
    embedded_allowed: bool  # --use-embedded-database

    @property
    def unmeant(self) -> bool:
        """Whether it is paper without anybody having said so."""
        return not self.paper and not self.enabled


class Unmanaged(NamedTuple):
    """A real account of this database with something open."""

    account: str
    open: str  # in words


class Mode(NamedTuple):
    """paper, testnet or real, and why it is not real."""

    environment: str
    why: str = ""

    @property
    def is_paper(self) -> bool:
        return self.environment == "paper"

    @property
    def title(self) -> str:
        return {"paper": "PAPER TRADING", "testnet": "TEST NETWORK", "real": "REAL MONEY"}[self.environment]


def decide_mode(asked: Asked, real: Sequence[Unmanaged]) -> Mode:
    """The mode of a start. A UsageError where money would be traded, or left alone, by mistake.

    real: the accounts with real money that have something open, for a start that would be on paper without having been asked.
    """
    if asked.paper:
        return Mode("paper", "--paper-trading")
    if not asked.enabled:
        _refuse_to_abandon(asked, real)
        return Mode("paper", "ENABLE_TRADING is not true")
    if not asked.has_key:
        name = asked.venue.upper()
        raise UsageError(
            f"ENABLE_TRADING is true, and there is no key for {asked.venue}.",
            f"Set {name}_API_KEY and {name}_API_SECRET, or add --paper-trading.",
        )
    if asked.environment == "real" and asked.own_server and not asked.embedded_allowed:
        raise UsageError(
            "Real money is traded on a database that somebody runs and backs up: DATABASE_URL is not set.",
            "Set DATABASE_URL, or add --use-embedded-database to trade on atb's own server.",
        )
    return Mode(asked.environment)


def _refuse_to_abandon(asked: Asked, real: Sequence[Unmanaged]) -> None:
    if not real:
        return
    missing = ["ENABLE_TRADING=true"]
    if not asked.has_key:
        name = asked.venue.upper()
        missing.append(f"{name}_API_KEY and {name}_API_SECRET")
    held = "; ".join(f"{one.account}: {one.open}" for one in real)
    raise UsageError(
        f"This would be paper trading, and an account with real money has something open ({held}). "
        f"Missing in the environment: {' and '.join(missing)}.",
        "Set what is missing, or add --paper-trading if paper is meant.",
    )
