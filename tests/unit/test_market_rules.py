"""Market rules: the exchange's answer before the shipped table, the table before cautious defaults."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atb.core.errors import DataError
from atb.core.types import MarketRules, symbol_for
from atb.venue.market_rules import SHIPPED, remark, rules_for, store_rules

BTC = symbol_for("binance", "BTCUSDT")
OWN = MarketRules("BTCUSDT", Decimal("0.001"), Decimal("0.5"), Decimal(11), "binance exchangeInfo", "2025-01-01")


def test_the_shipped_table_is_dated_and_positive() -> None:
    table = json.loads(SHIPPED.read_text())
    assert set(table) == {"binance", "coinbase"}
    for entry in table.values():
        assert entry["date"] and entry["source"]
        for row in [*entry["rules"].values(), entry["otherwise"]]:
            assert all(Decimal(row[name]) > 0 for name in ("lot", "tick", "min_notional"))
    rules = rules_for("binance", BTC)
    assert (rules.symbol, rules.lot, rules.tick, rules.date) == (
        "BTCUSDT",
        Decimal("0.00001"),
        Decimal("0.01"),
        "2024-09-08",
    )


def test_an_unknown_symbol_gets_assumed_rules_and_says_so() -> None:
    for venue in ("binance", "coinbase"):
        assert rules_for(venue, symbol_for(venue, "NEW/USDT")).source == "assumed"


def test_the_exchange_s_own_answer_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "home" / "market_rules.json"
    assert rules_for("binance", BTC, path) == rules_for("binance", BTC)
    store_rules(path, "binance", OWN)
    assert rules_for("binance", BTC, path) == OWN
    assert rules_for("binance", symbol_for("binance", "ETHUSDT"), path) == rules_for(
        "binance", symbol_for("binance", "ETHUSDT")
    )
    assert rules_for("coinbase", symbol_for("coinbase", "BTCUSDT"), path).source == "assumed"


def test_a_second_answer_joins_the_first(tmp_path: Path) -> None:
    path = tmp_path / "market_rules.json"
    other = OWN._replace(symbol="ETHUSDT", lot=Decimal("1E-8"))
    for rules in (OWN, other, OWN._replace(tick=Decimal(1))):
        store_rules(path, "binance", rules)
    assert rules_for("binance", BTC, path).tick == 1
    assert rules_for("binance", symbol_for("binance", "ETHUSDT"), path) == other
    assert [p.name for p in tmp_path.iterdir()] == ["market_rules.json"]
    assert '"0.00000001"' in path.read_text()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.decimals("1E-12", "1E6", allow_nan=False).filter(lambda d: d > 0), min_size=3, max_size=3))
def test_steps_come_back_exactly(tmp_path: Path, steps: list[Decimal]) -> None:
    rules = MarketRules("BTCUSDT", steps[0], steps[1], steps[2], "binance exchangeInfo", "2025-01-01")
    store_rules(tmp_path / "r.json", "binance", rules)
    assert rules_for("binance", BTC, tmp_path / "r.json") == rules


def row(**changed: Any) -> str:
    fields = {"lot": "1", "tick": "1", "min_notional": "1", "source": "x", "date": "y"} | changed
    return json.dumps({"binance": {"BTCUSDT": {k: v for k, v in fields.items() if v is not None}}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"binance": []}',
        '{"binance": {"BTCUSDT": []}}',
        '{"binance": {"BTCUSDT": 3}}',
        "\0",
        row(lot=None),
        row(lot="x"),
        row(lot="0"),
        row(tick="-1"),
        row(min_notional="NaN"),
        row(lot="Infinity"),
        row(lot=None),
        row(date=None),
        row(lot=[1]),
    ],
)
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    path = tmp_path / "market_rules.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        rules_for("binance", BTC, path)
    assert str(path) in caught.value.what and f"rm '{path}'" in caught.value.hint


def test_a_damaged_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "market_rules.json"
    for text in ("{", "[]", '{"binance": 3}'):
        path.write_text(text)
        with pytest.raises(DataError):
            store_rules(path, "binance", OWN)
        assert path.read_text() == text


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(DataError, match="cannot be written") as caught:
        store_rules(tmp_path / "home" / "market_rules.json", "binance", OWN)
    assert "ATB_HOME" in caught.value.hint


def test_assumed_rules_are_remarked_on_with_the_way_to_the_real_ones() -> None:
    new = symbol_for("coinbase", "NEW/USD")
    told = remark(rules_for("coinbase", new), "coinbase")
    date = rules_for("coinbase", new).date
    assert told.startswith(f"NEW-USD is not in the table of {date}: its lot, tick and minimum notional are assumed.")
    assert told.endswith("Ask the exchange: atb data rules NEW-USD --provider coinbase --refresh")
    assert remark(rules_for("binance", BTC), "binance") == ""
    assert "refresh" not in remark(rules_for("coinbase", new), "")  # where the market is simulated
