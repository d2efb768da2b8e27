"""The operator of an account: what he does at a shell beside the engine, by the functions that his commands call."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from atb.core.errors import UsageError
from atb.core.money import floor_to
from atb.execution import halt_file
from atb.ledger.line import Line
from atb.ops import closing, control

if TYPE_CHECKING:
    from tests.sim.world import World

ACTS = ("halt", "resume", "resume", "tighter_stop", "tighter_stop", "halt_file", "clear_file", "clear_file")


class Operator:
    """`often`: how likely he does something when he may."""

    def __init__(self, world: World, home: Path, seed: int, often: float) -> None:
        self.world, self.home, self.random, self.often = world, home, random.Random(seed), often

    def may_act(self) -> bool:
        """Whether he did something."""
        if self.random.random() >= self.often:
            return False
        with contextlib.suppress(UsageError):  # nothing is held, or no such stop
            getattr(self, f"_{self.random.choice(ACTS)}")()
        return True

    def _halt(self) -> None:
        self._tell(control.halt)

    def _resume(self) -> None:
        self._tell(control.resume)

    def _tell(self, command: Callable[..., object]) -> None:
        with Line(self.world.where, 10) as line:
            status = control.account_meant(line.connection, "", self.world.account, None)
            command(line, status, reason="test", by="operator")

    def _tighter_stop(self) -> None:
        with Line(self.world.where, 10) as line:
            held = self.random.choice(closing.open_positions(line.connection, self.world.session.account) or [None])
            if held is None:
                return
            rules = next(t.rules for t in self.world.traded if t.symbol.id == held.symbol)
            price = held.current_price * Decimal(self.random.randint(900, 999)) / 1000
            control.set_stop(line, held, floor_to(price, rules.tick), rules, "operator")

    def _halt_file(self) -> None:
        halt_file.write(self.home, self.world.account, by="operator", reason="test")

    def _clear_file(self) -> None:
        halt_file.clear(self.home, self.world.account)
