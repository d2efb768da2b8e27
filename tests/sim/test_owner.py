"""Bad days on an account whose owner uses it, too: he pays in and out, converts, buys and sells. Both sides agree in the end."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from atb.core.errors import ExchangeRefused
from atb.core.money import floor_to
from atb.core.orders import NewOrder
from atb.execution.reconcile import differences
from atb.execution.reconciler import Reconciler
from atb.execution.session import Session
from atb.ledger.audit import audit
from atb.ledger.connect import Where, connect
from atb.live.trader import Trader
from atb.venue.broker import Window
from tests.database import Postgres, postgres
from tests.sim.world import World

ACTS = ("pay_in", "pay_out", "bring", "take_away", "convert", "buy", "sell", "rest")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


class OwnedWorld(World):
    """`often`: how likely he does something before a look."""

    def __init__(self, where: Where, seed: int, often: float = 0.08, **more: Any) -> None:
        self.owner, self.often, self.acts = random.Random(seed + 1), 0.0, 0
        super().__init__(where, seed, **more)
        self.often = often

    def begin(self) -> tuple[Session, Trader]:
        session, trader = super().begin()
        self.reconciler = Reconciler(session.executor, pause=lambda seconds: None)
        return session, trader

    def look(self, from_ms: int, after_s: Sequence[int]) -> None:
        for seconds in after_s:
            self.clock.time_ms = from_ms + 1000 * seconds
            if self.owner.random() < self.often:
                with contextlib.suppress(ExchangeRefused):  # too little, or not his
                    getattr(self, f"_{self.owner.choice(ACTS)}")()
            self.survive(self.cycle)

    def cycle(self) -> None:
        self.trader.look(self.clock.now_ms())
        self.reconciler.look()

    def _free(self, asset: str) -> Decimal:
        balance = self.exchange.balances().get(asset)
        return max(balance.free, Decimal(0)) if balance else Decimal(0)

    def _some(self, asset: str) -> Decimal:
        share = Decimal(self.owner.randint(1, 10)) / 100
        return floor_to(self._free(asset) * share, Decimal("0.00000001"))

    def _base(self) -> str:
        return self.owner.choice(self.traded).symbol.base

    def _pay_in(self) -> None:
        self.exchange.move("deposit", ("USDT", Decimal(self.owner.randint(1, 10**6)) / 1000))

    def _pay_out(self) -> None:
        self.exchange.move("withdrawal", ("USDT", -self._some("USDT")))

    def _bring(self) -> None:
        self.exchange.move("deposit", (self._base(), Decimal(self.owner.randint(1, 10**6)) / 10**6))

    def _take_away(self) -> None:
        base = self._base()
        self.exchange.move("withdrawal", (base, -self._some(base)))

    def _convert(self) -> None:
        base = self._base()
        self.exchange.move("conversion", (base, -self._some(base)), ("BNB", Decimal("0.01")))

    def _buy(self) -> None:
        self._order("buy", None)

    def _sell(self) -> None:
        self._order("sell", None)

    def _rest(self) -> None:
        self._order("sell", Decimal(10) ** 9)

    def _order(self, side: str, price: Decimal | None) -> None:
        symbol, rules = self.owner.choice(self.traded)
        qty = self._free(symbol.base) if side == "sell" else Decimal(self.owner.randint(1, 50)) * rules.lot
        qty = floor_to(qty * Decimal(self.owner.randint(1, 100)) / 100, rules.lot)
        self.acts += 1
        order = NewOrder(f"web_{self.acts}", symbol, side, "limit" if price else "market", qty, price)
        self.exchange.place(order, Window(self.exchange.now_ms(), 2_000))


def live_through(where: Where, seed: int) -> OwnedWorld:
    world = OwnedWorld(where, seed)
    world.live()
    world.often = 0.0
    world.calm_down()
    return world


def check(world: OwnedWorld) -> None:
    books, seed = world.session.state.books, world.seed
    verdict = world.reconciler.look()
    assert not verdict.unsettled and not verdict.unexplained, (seed, verdict)
    left = differences(books, world.broker.venue, world.exchange.balances())
    assert all(abs(difference) < Decimal("1e-15") for difference in left.values()), (seed, left)
    assert all(position.qty > 0 for position in books.positions.values()), seed
    for s, traded in enumerate(world.traded):
        state, held = world.session.state, world.session.state.held(s)
        assert state.position(s).qty == int(held // traded.rules.lot), (seed, traded.symbol.id)
    with connect(world.where) as connection:
        assert audit(connection, world.session.account).problems == []


@pytest.mark.parametrize("seed", range(4))
def test_both_sides_agree_in_the_end(server: Postgres, seed: int) -> None:
    world = live_through(server.where(server.database()), seed)
    check(world)
    before = world.session.state.seq
    world.restart()
    world.reconciler.look()
    assert world.session.state.seq == before + 1  # the session's beginning
    check(world)
    world.session.journal.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 40))
def test_many_days(server: Postgres, seed: int) -> None:
    world = live_through(server.where(server.database()), seed)
    check(world)
    world.session.journal.close()
