"""What was refused, or took too long, is tried again: not at each look, not for ever, and by what the ledger says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from atb.execution.closing import Closing
from atb.execution.closing_executor import executor_of
from atb.execution.dust import moved
from atb.execution.spooling_journal import SpoolingJournal
from atb.ledger.connect import Where, connect
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from atb.venue.faults import Fault
from tests.sim.mortal import MortalJournal
from tests.sim.test_refused import bare_of_orders, faults, holding, stops
from tests.sim.world import World

ALL = ("stop", "stop_limit", "take_limit")
Held = tuple[World, int]


@pytest.fixture
def held(where: Where, tmp_path: Path) -> Iterator[Held]:
    world, s = holding(where, home=tmp_path)
    yield world, s
    world.session.journal.close()


def orders_at_looks(world: World, looks: int) -> list[int]:
    """How many were sent at each look, a second after the last one."""
    made = []
    for _ in range(looks):
        before = len(world.session.state.books.orders)
        world.look(world.clock.now_ms(), (1,))
        made.append(len(world.session.state.books.orders) - before)
    return made


def too_little_from_now_on(world: World, s: int) -> None:
    symbol, told = world.traded[s].symbol, world.broker.market_rules
    least = world.session.state.held(s) * world.session.state.books.prices[symbol.market, symbol.id] * 2
    world.broker.market_rules = lambda symbol, fresh=False: told(symbol, fresh)._replace(min_notional=least)  # type: ignore[method-assign]


def test_dust_is_dust_also_of_what_had_no_stop_once(held: Held) -> None:
    world, s = held
    bare_of_orders(world, s)
    faults(world, Fault("*", "refused", 1.0, types=ALL, reason="price"))
    world.look(world.clock.now_ms(), (1,))
    faults(world)
    world.look(world.clock.now_ms(), (2, 4))
    assert stops(world, s)
    too_little_from_now_on(world, s)
    faults(world, Fault("place", "refused", 1.0, types=("market",), reason="min_notional"))
    world.executor.get_out(s, "signal", "test")
    assert sum(orders_at_looks(world, 15)) <= 2 and world.session.state.dust


def test_a_stop_that_the_price_has_passed_while_nothing_can_be_sold(held: Held) -> None:
    world, s = held
    bare_of_orders(world, s)
    no_sale = Fault("place", "refused", 1.0, types=("market",), reason="market_closed")
    faults(world, Fault("*", "refused", 1.0, types=ALL, reason="would_trigger"), no_sale)
    made = orders_at_looks(world, 20)
    assert made.count(0) >= 12 and max(made) <= 6, made


def test_a_take_alone_is_no_protection(held: Held) -> None:
    world, s = held
    bare_of_orders(world, s)
    pair = Fault("place_pair", "refused", 1.0, reason="not_supported")
    faults(world, pair, Fault("place", "refused", 1.0, types=("stop", "stop_limit"), reason="not_supported"))
    world.look(world.clock.now_ms(), (1, 2))
    assert not stops(world, s) and "stop_refused" in [event.code for event in world.events]
    faults(world)
    world.look(world.clock.now_ms(), (4,))
    assert stops(world, s)


def test_the_wait_begins_anew_once_there_is_a_stop(held: Held) -> None:
    world, s = held
    for _ in range(2):
        before = len(world.events)
        bare_of_orders(world, s)
        faults(world, Fault("*", "refused", 1.0, types=ALL, reason="price"))
        orders_at_looks(world, 20)
        told = [event.message for event in world.events[before:] if event.code == "stop_refused"]
        assert [each.rpartition(" again in ")[2] for each in told] == ["1 s.", "2 s.", "4 s.", "8 s.", "16 s."]
        faults(world)
        orders_at_looks(world, 20)
        assert stops(world, s)


def test_killed_in_a_sale_after_all_was_refused(held: Held) -> None:
    world, s = held
    bare_of_orders(world, s)
    no_stop = Fault("*", "refused", 1.0, types=ALL, reason="price")
    faults(world, no_stop)
    world.look(world.clock.now_ms(), (0,))
    faults(world, no_stop, Fault("place", "unknown_before", 1.0, types=("market",)))
    world.executor.get_out(s, "signal", "test")
    world.executor.act()
    world.restart()
    faults(world, Fault("place", "refused", 1.0, types=("market",), reason="market_closed"))
    world.look(world.clock.now_ms(), (6, 7))
    assert stops(world, s)


def test_a_close_that_gives_up_protects_what_it_could_not_sell(held: Held) -> None:
    """Also where each way was refused a moment ago."""
    world, s = held
    no_sale = Fault("place", "refused", 1.0, types=("market",), reason="market_closed")
    faults(world, no_sale, Fault("*", "refused", 1.0, types=ALL, reason="price"))
    executor = executor_of(world.session.account, world.broker, world.session.journal, world.events.append)

    def pause(seconds: float) -> None:
        world.clock.time_ms += round(seconds * 1000)

    closing = Closing(executor, reason="test", by="test", trying_s=0.5, pause=pause)
    run = closing._run

    def until_it_gives_up(others: bool) -> float:
        try:
            return run(others)
        finally:
            faults(world, no_sale)

    closing._run = until_it_gives_up  # type: ignore[method-assign]
    outcome = closing.run(others=False)
    assert outcome.left and "no stop" not in outcome.left[0].protection and stops(world, s)


def test_a_close_sells_what_was_kept_apart_with_what_is_held(held: Held) -> None:
    """Else what is left of both is more than a lot, and told as dust."""
    world, s = held
    symbol, rules = world.traded[s]
    half = rules.lot / 2
    world.session.journal.append(moved(world.session.state, s, -half, world.executor.now(), world.session.id))
    executor = executor_of(world.session.account, world.broker, world.session.journal, world.events.append)
    outcome = Closing(executor, reason="test", by="test", trying_s=0.5).run(others=False)
    assert outcome.flat_after_s is not None and sum(qty for _, qty in outcome.dust) < rules.lot
    assert world.exchange.balances()[symbol.base].total < rules.lot


def beside(world: World, *entries: Entry) -> None:
    """Somebody else writes, while our own commit waits."""
    account = world.session.account.id
    with connect(world.where) as connection:
        (epoch,) = connection.execute("SELECT epoch FROM authority WHERE account_id = %s", (account,)).fetchone() or (
            0,
        )
        append(connection, account, epoch, entries)
        connection.commit()


@pytest.mark.parametrize("slow", [False, True])
def test_what_was_written_before_a_slow_commit_is_folded_once_and_so_is_that(held: Held, slow: bool) -> None:
    world, _ = held
    mortal = world.executor.journal
    assert isinstance(mortal, MortalJournal) and isinstance(mortal.journal, SpoolingJournal)
    spooling, cash = mortal.journal, world.session.state.books.cash
    beside(
        world, Entry("halt:op", "control", world.executor.now(), {"action": "halt", "reason": "r", "by": "operator"})
    )
    deposit = {"type": "deposit", "asset": "USDT", "amount": Decimal(100), "reason": "test", "evidence": "test"}
    spooling.slow_s = 0.0 if slow else spooling.slow_s
    world.executor.append([Entry("deposit:1", "adjustment", world.executor.now(), deposit)])
    assert spooling.away == slow
    spooling.slow_s, spooling._next_s = 60.0, 0.0
    for _ in range(2):
        world.executor.catch_up()
        world.look(world.clock.now_ms(), (1,))
    books = world.session.state.books
    assert books.halted == "r" and books.cash == cash + 100 and not spooling.away


def test_commits_that_are_nearly_too_slow_twice_are(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = held
    mortal = world.executor.journal
    assert isinstance(mortal, MortalJournal) and isinstance(mortal.journal, SpoolingJournal)
    spooling = mortal.journal
    seen: list[bool] = []
    judge: Callable[[float], None] = spooling._judge
    for took_s in (1.9, 0.1, 0.9, 1.9, 1.1):
        judge(took_s)
        seen.append(spooling.away)
    assert seen == [False, False, False, False, True]
