"""The composition root: puts adapters and use cases together from settings. Imports what a command needs, when it needs it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO

from atb.core.errors import DatabaseError, UsageError
from atb.core.keys import account_identity
from atb.core.timeframe import SystemClock
from atb.market_app import MarketApp
from atb.settings import Settings, load_settings, trading_disabled, without_postgres

if TYPE_CHECKING:
    from atb.backtest.request import Request
    from atb.backtest.result import BacktestResult
    from atb.backtest.run import Desk
    from atb.backtest.sources import Surroundings
    from atb.core.types import MarketRules, Symbol
    from atb.execution.reconcile import Verdict
    from atb.ledger.connect import Where
    from atb.live.feed import Feed
    from atb.live.mode import Mode
    from atb.live.prepare import Desk as LiveDesk
    from atb.live.prepare import Ready
    from atb.live.recorded import Recorded
    from atb.live.rehearsal import Rehearsal
    from atb.live.request import LiveRequest
    from atb.live.run import Around
    from atb.live.screen import Looks
    from atb.live.session_parity import Part, SessionParity
    from atb.live.side_refresh import Fresh
    from atb.market.looking_over import Check
    from atb.strategy.contract import Strategy
    from atb.strategy.loader import LoadedStrategy, StrategyFile
    from atb.venue.broker import Broker

Say = Callable[[str], None]
Progress = Callable[[str, float], None]


class App(MarketApp):
    """The settings, and everything that is made from them."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or load_settings())

    def strategies(self) -> dict[str, StrategyFile]:
        from atb.strategy.loader import find_strategies

        return find_strategies(self.settings.strategy_dirs, self.settings.shipped_strategies)

    def load_strategy(self, name: str) -> LoadedStrategy:
        from atb.strategy.loader import load_strategy

        return load_strategy(name, self.strategies())

    def model_roots(self) -> list[Any]:
        return [*self.settings.model_dirs, self.settings.shipped_models]

    def attach_model(self, strategy: Strategy, symbol: str, timeframe: str, as_of_ms: int, version: str | None) -> None:
        """Give a strategy that asks for one the model for this symbol, timeframe and time."""
        if strategy.model_kind is None:
            if version is not None:
                raise UsageError(f"{strategy.title()} has no model, so --model-version {version} means nothing.")
            return
        from atb.strategy.model import load_model
        from atb.strategy.model_registry import resolve_model

        entry = resolve_model(self.model_roots(), symbol, timeframe, strategy.model_kind, as_of_ms, version)
        strategy.model = load_model(entry, self.settings.cache / "predictions")

    def broker(self, venue: str, symbols: Sequence[Symbol]) -> Broker:
        """The account that the key for `venue` opens, on the real exchange or its test network. Asks nothing yet."""
        from atb.venue.ccxt_broker import LIVE, open_broker

        mine = self.settings
        return open_broker(
            venue,
            mine.key(venue),
            symbols,
            base_url=mine.order_url(venue),
            rates=mine.rates,
            rules_file=mine.market_rules,
            rules_last_s=mine.rules_lifetime_s,
            patience=LIVE.within(mine.request_timeout_s),
        )

    def account_identity(self, venue: str, market: str = "spot") -> str:
        """Which account that is: venue, market, environment and the key's fingerprint."""
        mine = self.settings
        return account_identity(venue, market, mine.environment(venue), mine.key(venue).fingerprint)

    def test_provider(self, venue: str, symbol: Symbol, timeframe: str) -> list[Check]:
        """Whether an exchange is fit to be traded at; the key, too, where there is one."""
        from atb.market.looking_over import Place, look_over, look_over_key
        from atb.venue.ccxt_session import Patience

        mine = self.settings
        patience = Patience(attempts=1).within(mine.request_timeout_s)
        checks = look_over(Place(venue, mine.url(venue), mine.rates, patience), symbol, timeframe, SystemClock().now_ms)
        if venue in mine.keys and checks[0].verdict != "bad":
            checks.append(look_over_key(lambda: self.broker(venue, [symbol])))
        return checks

    def surroundings(self, warn: Say, progress: Progress) -> Surroundings:
        from atb.backtest.sources import Surroundings

        rates, now_ms = self.settings.rates, SystemClock().now_ms
        return Surroundings(self.store(), self.settings.url, now_ms, warn, progress, rates, self.timeout_s)

    def database_to(self, do: Literal["read", "check", "change"], warn: Say) -> Where:
        """The database. Where it is not the one that was changed last: a reader is warned, others are refused."""
        from atb.ledger.meant import other_than_meant, refuse_other

        where = self.database()
        if do != "read":
            refuse_other(self.settings.home, where)
        if do != "change" and (last := other_than_meant(self.settings.home, where)) is not None:
            warn(f"This is {where.shown}; the database that was changed last from here is {last}.")
        return where

    def remember(self, where: Where) -> None:
        """This database is the one that is meant: it was reached, and is one to be changed."""
        from atb.ledger.meant import remember

        remember(self.settings.home, where)

    def database(self) -> Where:
        """DATABASE_URL, else the embedded server if it runs. Starts and creates nothing."""
        from atb.ledger.connect import embedded, from_url

        if self.settings.database_url:
            return from_url(self.settings.database_url)
        from atb.ledger.embedded import living

        server = living(self.settings.home)
        if server is None:
            raise DatabaseError(
                "There is no database: DATABASE_URL is not set, and atb's own server does not run.",
                "Start it: atb db start",
            )
        return embedded(server)

    def tool_environment(self) -> dict[str, str]:
        """What psql, pg_dump and their like need to find the database: libpq's variables, a password among them."""
        from atb.ledger.connect import libpq_environment

        return without_postgres() | libpq_environment(self.database())

    def run_tool(self, name: str, args: Sequence[str]) -> NoReturn:
        """Become one of Postgres' own programs, on the database that commands use."""
        from atb.ledger.embedded import tool

        program = tool(name)
        of_itself = {"--help", "-?", "--version", "-V"} & set(args)  # which it tells without a database
        os.execve(program, [name, *args], without_postgres() if of_itself else self.tool_environment())

    def backtest(self, request: Request, warn: Say, progress: Progress) -> BacktestResult:
        from atb.backtest.run import run_backtest

        return run_backtest(request, self._desk(request, warn, progress))

    def rehearsal(self, request: Request, warn: Say, progress: Progress) -> Rehearsal:
        """What a request comes to, ready to be traded as if it happened now."""
        from atb.backtest.run import Stopwatch, prepare
        from atb.engine.rules import make_rules
        from atb.execution.traded import Traded
        from atb.live.rehearsal import Part, Rehearsal

        policy, notes, sources, prepared, market_rules = prepare(
            request, self._desk(request, warn, progress), Stopwatch()
        )
        parts = [
            Part(Traded(source.symbol, known), p.strategy, p.candles, p.first, p.signals)
            for source, p, known in zip(sources, prepared, market_rules, strict=True)
        ]
        return Rehearsal(
            request.strategy, sources[0].timeframe, parts, make_rules(policy, request.fee_bps, request.slippage_bps),
            request.initial_balance, [source.describe() for source in sources], policy.digest(), notes,
            self.load_strategy(request.strategy).sha256, self.join(),
        )  # fmt: skip

    def session_parity(
        self, number: int, files: Sequence[Path], warn: Say, progress: Progress
    ) -> tuple[Recorded, SessionParity]:
        """A session against the backtest of the candles that it saw: of `files`, else of the store and its exchange."""
        from atb.ledger.migrate import check_schema
        from atb.ledger.reading import reading
        from atb.live.recorded import read_recorded
        from atb.live.session_parity import compare_session

        where = self.database_to("read", warn)

        def work(connection: Any) -> Recorded:
            check_schema(connection, where)
            connection.rollback()
            return read_recorded(connection, number, where.shown)

        recorded = reading(where, work)
        strategies, changed = self._strategies_of(recorded, warn)
        recorded = recorded._replace(changed=changed)
        return recorded, compare_session(recorded, self._candles_of(recorded, strategies, files, warn, progress))

    def _strategies_of(self, recorded: Recorded, warn: Say) -> tuple[list[Strategy], str]:
        """One a symbol, and what of them is known to be another one now. None where they cannot be had any more."""
        from atb.core.errors import AtbError
        from atb.core.timeframe import in_ms
        from atb.live.signal_config import what_changed

        session, config = recorded.session, recorded.config
        if "params" not in config:
            warn("The session does not say its strategy's parameters: its signals are taken as they were recorded.")
            return [], ""
        made, names = [], [traded.symbol.id for traded in recorded.traded]
        try:
            loaded = self.load_strategy(session.strategy)
            for name in names:
                made.append(loaded.make(config["params"]))
                at, version = in_ms(session.opened_at), config.get("models", {}).get(name)
                self.attach_model(made[-1], name, session.timeframe, at, version)
        except AtbError as error:
            warn(f"The signals are taken as they were recorded: {error.what}")
            return [], ""
        return made, what_changed(config, loaded.sha256, dict(zip(names, made, strict=True)))

    def _candles_of(
        self, recorded: Recorded, strategies: list[Strategy], files: Sequence[Path], warn: Say, progress: Progress
    ) -> list[Part]:
        """Each symbol's candles from what the first window looks back on to the last close, and the signals they give."""
        from atb.backtest.request import Request, Span
        from atb.backtest.sources import open_sources
        from atb.live.recorded import refuse_without_files
        from atb.live.session_parity import Part, history_of
        from atb.strategy.contract import sides_of
        from atb.strategy.signals import compute_signals

        if not files:
            refuse_without_files(recorded)
        span = Span(*recorded.span_ms)
        names = tuple(traded.symbol.id for traded in recorded.traded)
        provider = "file" if files else recorded.account.venue
        asked = Request(
            recorded.session.strategy, names, recorded.session.timeframe, provider, tuple(files), span
        )  # fmt: skip
        parts, join = [], self.join()
        for s, source in enumerate(open_sources(asked, self.surroundings(warn, progress))):
            strategy = strategies[s] if strategies else None
            candles = source.read(history_of(strategy))
            if strategy is None:
                parts.append(Part(candles, None))
            else:
                joined = join(sides_of(type(strategy)), candles)
                parts.append(Part(joined, compute_signals(strategy, joined)))
        return parts

    def database_for_trading(self, warn: Say) -> Where:
        """The database that a session writes into: where nothing is set, atb's own server, which is started."""
        if not self.settings.database_url:
            from atb.ledger.connect import embedded
            from atb.ledger.embedded import start
            from atb.ledger.migrate import migrate

            server = start(self.settings.home, warn)
            migrate(embedded(server), self.settings.migrations)
        return self.database_to("change", warn)

    def live_desk(self, asked: LiveRequest, mode: Mode, loaded: LoadedStrategy, broker: Broker | None) -> LiveDesk:
        """What `live.prepare` needs. broker: the account at the exchange, None on paper."""
        from atb.live.prepare import Desk as LiveDesk

        fingerprint = "" if mode.is_paper else self.settings.key(asked.venue).fingerprint

        def rules(symbol: Symbol) -> MarketRules:
            if broker is not None:
                return broker.market_rules(symbol)
            from atb.core.errors import ExchangeUnavailable
            from atb.venue.market_rules import rules_for

            with contextlib.suppress(ExchangeUnavailable):  # the candles will tell whether it is away
                self.refresh_rules(asked.venue, symbol)
            return rules_for(asked.venue, symbol, self.settings.market_rules)

        now_ms = SystemClock().now_ms()
        return LiveDesk(loaded, self.attach_model, rules, now_ms, fingerprint, self.join().keys)

    def surroundings_of(
        self, ready: Ready, where: Where, broker: Broker | None, show: Callable[[Verdict], None], stream: TextIO, looks: Looks
    ) -> Around:  # fmt: skip
        """What a session meets: clock, database, market data, exchange, and where it is shown."""
        from atb.live.run import Around

        mine = self.settings
        key = mine.keys.get(ready.asked.venue)
        secrets = [mine.database_url or "", *([key.id, key.secret] if key else [])]
        stream_url = mine.stream_url(ready.asked.venue) if ready.asked.stream else None
        return Around(
            where, mine.home, Path(ready.asked.log_dir) if ready.asked.log_dir else mine.logs, SystemClock(), broker,
            lambda after_ms, tell: self._feed(ready, stream_url, after_ms, tell), trading_disabled, show, secrets, stream, looks,
            self.join(), self._fresh(ready),
        )  # fmt: skip

    def _fresh(self, ready: Ready) -> list[Fresh]:
        """The side series of a session that can be downloaded while it runs."""
        from functools import partial

        from atb.live.side_refresh import Fresh
        from atb.strategy.contract import sides_of
        from atb.venue.side_sources import SOURCES

        find = self.join().keys
        both = zip(ready.strategies, ready.traded, strict=True)
        keys = {key: None for made, traded in both for key in find(sides_of(type(made)), traded.symbol.id)}
        return [
            Fresh(key.shown, SOURCES[key.name].every_s, partial(self.download_side, key, attempts=1))
            for key in keys
            if key.name in SOURCES and SOURCES[key.name].venue == key.venue
        ]

    def _feed(self, ready: Ready, stream_url: str | None, after_ms: int | None, tell: Callable[[Any], None]) -> Feed:
        from atb.live.candle_history import History
        from atb.live.feed import Feed
        from atb.venue.candle_stream import CandleStream
        from atb.venue.candle_tail import LIVE, CandleTail

        venue, mine, clock = ready.asked.venue, self.settings, SystemClock()
        url = mine.url(venue)
        symbols, timeframe = [t.symbol for t in ready.traded], ready.asked.timeframe
        patience = LIVE.within(mine.request_timeout_s)
        tail = CandleTail(venue, base_url=url, now_ms=clock.now_ms, patience=patience, rates=mine.rates)
        store = self.store()
        store.patience_s = 0.5  # trading waits for no download that was stopped
        history = History(
            store,
            venue,
            url=url,
            rates=mine.rates,
            pins=self.pins(),
            account=ready.account,
            timeout_s=mine.request_timeout_s,
        )
        stream = CandleStream(venue, stream_url, symbols, timeframe) if stream_url else None
        return Feed(
            tail, history, symbols, timeframe, ready.lookback, clock, tell, after_ms=after_ms,
            look_every_s=ready.asked.check_interval_s, stream=stream,
        )  # fmt: skip

    def _desk(self, request: Request, warn: Say, progress: Progress) -> Desk:
        from atb.backtest.run import Desk

        return Desk(
            loaded=self.load_strategy(request.strategy),
            market_rules=self.market_rules,
            attach_model=self.attach_model,
            around=self.surroundings(warn, progress),
            cache=self.settings.cache / "kernel",
            join=self.join(),
        )
